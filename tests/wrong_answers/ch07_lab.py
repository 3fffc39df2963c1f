"""Plausible wrong answers to Chapter 7's exercises (lab), and what the check should say to each."""

WRONG = {
    "ex07-fastest-that-fits": [
        ("""
def fastest_that_fits(rows, memory):
    fitting = [r for r in rows if r["states"][0] <= memory]
    return min(fitting, key=lambda r: r["seconds"])["way"] if fitting else None
""", "rank 0 only"),
        ("""
def fastest_that_fits(rows, memory):
    fitting = [r for r in rows if sum(r["states"]) <= memory]
    return min(fitting, key=lambda r: r["seconds"])["way"] if fitting else None
""", "do not add the ranks up"),
        ("""
def fastest_that_fits(rows, memory):
    fitting = [r for r in rows if max(r["states"]) <= memory]
    return min(fitting, key=lambda r: max(r["states"]))["way"] if fitting else None
""", "holds least"),
        ("""
def fastest_that_fits(rows, memory):
    fitting = [r for r in rows if max(r["states"]) < memory]
    return min(fitting, key=lambda r: r["seconds"])["way"] if fitting else None
""", "exactly `memory` bytes fit"),
        ("""
def fastest_that_fits(rows, memory):
    return min((r for r in rows if max(r["states"]) <= memory), key=lambda r: r["seconds"])["way"]
""", "ValueError"),
    ],
    "ex07-full-stage-three": [
        ("""
def full_stage_three(config):
    return {**config, "zero_optimization": {**config.get("zero_optimization", {}), "stage": 3}}
""", "still stay whole"),
        ("""
def full_stage_three(config):
    return {**config, "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
""", "other keys are lost"),
        ("""
def full_stage_three(config):
    return {**config, "stage": 3, "stage3_param_persistence_threshold": 0}
""", "top level"),
        ("""
def full_stage_three(config):
    zero = config.get("zero_optimization", {})
    return {"zero_optimization": {**zero, "stage": 3, "stage3_param_persistence_threshold": 0}}
""", "rest of the configuration is lost"),
        ("""
def full_stage_three(config):
    config.setdefault("zero_optimization", {}).update(stage=3, stage3_param_persistence_threshold=0)
    return config
""", "changes its argument"),
    ],
}
