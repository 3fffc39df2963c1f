"""Plausible wrong answers to Chapter 7's exercises (traffic), and what the check should say to each."""

WRONG = {
    "ex07-why-three-psi": [
        ("""
def step_traffic(num_params, ranks, stage):
    if stage == 0:
        return {"all_reduce": num_params}, 2 * num_params * (ranks - 1) / ranks
    return ({"reduce_scatter": num_params, "all_gather": num_params},
            2 * num_params * (ranks - 1) / ranks)
""", "backward has to gather it again"),
        ("""
def step_traffic(num_params, ranks, stage):
    share = (ranks - 1) / ranks
    if stage == 0:
        return {"all_reduce": num_params}, 2 * num_params * share
    gathers = 3 if stage == 3 else 1
    return ({"reduce_scatter": num_params, "all_gather": gathers * num_params},
            (gathers + 1) * num_params * share)
""", "gathers nothing after the update"),
        ("""
def step_traffic(num_params, ranks, stage):
    share = (ranks - 1) / ranks
    if stage == 0:
        return {"all_reduce": num_params}, num_params * share
    gathers = 2 if stage == 3 else 1
    return ({"reduce_scatter": num_params, "all_gather": gathers * num_params},
            (gathers + 1) * num_params * share)
""", "it sends twice"),
        ("""
def step_traffic(num_params, ranks, stage):
    if stage == 0:
        return {"all_reduce": num_params}, 2 * num_params
    gathers = 2 if stage == 3 else 1
    return ({"reduce_scatter": num_params, "all_gather": gathers * num_params},
            (gathers + 1) * num_params)
""", "does not send everything"),
        ("""
def step_traffic(num_params, ranks, stage):
    share = (ranks - 1) / ranks
    if stage == 0:
        return {"all_reduce": num_params}, 2 * num_params * share
    if stage < 3:
        return ({"all_reduce": num_params, "all_gather": num_params}, 3 * num_params * share)
    return {"reduce_scatter": num_params, "all_gather": 2 * num_params}, 3 * num_params * share
""", "its own part only"),
    ],
    "ex07-accumulation-traffic": [
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    sent = [2, 3, 3, 2 if keep_live else 3][stage]
    return sent, sent > 3
""", "reduce at every micro-batch"),
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    m = micro_batches
    sent = [2 * m, 2 * m + 1, 2 * m + 1, 2 * m if keep_live else 3 * m][stage]
    return sent, sent > 2 * m + 1
""", "reduce once, at the end of the step"),
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    m = micro_batches
    sent = [2, 2 + m, 3 * m, 2 * m if keep_live else 3 * m][stage]
    return sent, sent > 2 + m
""", "Weights change once a step"),
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    m = micro_batches
    sent = [2, 3, 2 * m + 1, m + 1][stage]
    return sent, sent > 3
""", "each micro-batch gathers them anew"),
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    m = micro_batches
    sent = [1, 2, m + 1, 2 * m if keep_live else 3 * m][stage]
    return sent, sent > 2
""", "an all-reduce sends twice"),
        ("""
def accumulated(stage, micro_batches, keep_live=True):
    m = micro_batches
    sent = [2, 3, 2 * m + 1, 2 * m if keep_live else 3 * m][stage]
    return sent, sent > 2
""", "not with stage 0"),
    ],
}
