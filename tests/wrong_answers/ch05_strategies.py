"""Plausible wrong answers to the exercises on training strategies."""

WRONG = {
    "ex05-wsd": [
        ("""
def wsd_steps(lengths, decay):
    return sum(lengths)
""", "without a shared trunk"),
        ("""
def wsd_steps(lengths, decay):
    return round(max(lengths) + sum(decay * n for n in lengths))
""", "The trunk ends where"),
        ("""
def wsd_steps(lengths, decay):
    return max(lengths)
""", "Every length has a decay of its own"),
        ("""
def wsd_steps(lengths, decay):
    return round(lengths[-1] * (1 - decay) + decay * sum(lengths))
""", "may come in any order"),
    ],
    "ex05-clip": [
        ("""
def clip_shards(shards, max_norm):
    norms = [math.sqrt(sum(g.square().sum().item() for g in shard)) for shard in shards]
    if not all(map(math.isfinite, norms)):
        return None
    return [[g * min(1, max_norm / n) for g in shard] for shard, n in zip(shards, norms)]
""", "Each rank clips by its own norm"),
        ("""
def clip_shards(shards, max_norm):
    norm = math.sqrt(sum(g.square().sum().item() for shard in shards for g in shard))
    if not math.isfinite(norm):
        return None
    return [[g * max_norm / norm for g in shard] for shard in shards]
""", "must stay as it is"),
        ("""
def clip_shards(shards, max_norm):
    norm = sum(math.sqrt(sum(g.square().sum().item() for g in shard)) for shard in shards)
    if not math.isfinite(norm):
        return None
    return [[g * min(1, max_norm / norm) for g in shard] for shard in shards]
""", "Norms do not add up"),
        ("""
def clip_shards(shards, max_norm):
    norm = math.sqrt(sum(g.square().sum().item() for shard in shards for g in shard))
    return [[g * min(1, max_norm / norm) for g in shard] for shard in shards]
""", "Inf or nan must give None"),
    ],
}
