"""Plausible wrong answers to Chapter 7's exercises (strategies), and what the check should say to each."""

WRONG = {
    "ex07-clip": [
        ("""
def clip_shards(shards, max_norm):
    norm = sum(math.sqrt(sum(g * g for g in shard)) for shard in shards)
    factor = min(1.0, max_norm / norm)
    return norm, [[factor * g for g in shard] for shard in shards]
""", "Norms of shards do not add up"),
        ("""
def clip_shards(shards, max_norm):
    norm = math.sqrt(sum(g * g for shard in shards for g in shard))
    return norm, [[max_norm / norm * g for g in shard] for shard in shards]
""", "must stay as it is"),
        ("""
def clip_shards(shards, max_norm):
    norm = sum(g * g for shard in shards for g in shard)
    factor = min(1.0, max_norm / norm)
    return norm, [[factor * g for g in shard] for shard in shards]
""", "take the root"),
        ("""
def clip_shards(shards, max_norm):
    norms = [math.sqrt(sum(g * g for g in shard)) for shard in shards]
    scaled = [[min(1.0, max_norm / n) * g for g in shard] if n else shard
              for n, shard in zip(norms, shards)]
    return math.hypot(*norms), scaled
""", "by its own norm"),
        ("""
def clip_shards(shards, max_norm):
    norm = math.sqrt(sum(g * g for shard in shards for g in shard) / len(shards))
    factor = min(1.0, max_norm / norm)
    return norm, [[factor * g for g in shard] for shard in shards]
""", "The mean of squares"),
        ("""
def clip_shards(shards, max_norm):
    norm = math.sqrt(sum(g * g for shard in shards for g in shard))
    for shard in shards:
        for i in range(len(shard)):
            shard[i] *= min(1.0, max_norm / norm)
    return norm, shards
""", "changes its argument"),
    ],
    "ex07-micro-batch": [
        ("""
def micro_batch(memory, states, per_sample, batch_size, ranks):
    share = batch_size // ranks
    size = min(share, (memory - states) // per_sample)
    return (size, share // size) if size else None
""", "does not divide"),
        ("""
def micro_batch(memory, states, per_sample, batch_size, ranks):
    for size in range(batch_size, 0, -1):
        if batch_size % size == 0 and states + size * per_sample <= memory:
            return size, batch_size // size
""", "not the whole batch"),
        ("""
def micro_batch(memory, states, per_sample, batch_size, ranks):
    share = batch_size // ranks
    for size in range(share, 0, -1):
        if share % size == 0 and size * per_sample <= memory:
            return size, share // size
""", "The states are missing"),
        ("""
def micro_batch(memory, states, per_sample, batch_size, ranks):
    share = batch_size // ranks
    for size in range(share, 0, -1):
        if share % size == 0 and states + size * per_sample < memory:
            return size, share // size
""", "fill the memory exactly"),
        ("""
def micro_batch(memory, states, per_sample, batch_size, ranks):
    share = batch_size // ranks
    for size in range(share, 0, -1):
        if share % size == 0 and states + size * per_sample <= memory:
            return share // size, size
""", "are exchanged"),
    ],
}
