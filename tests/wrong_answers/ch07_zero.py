"""Plausible wrong answers to Chapter 7's exercises (zero), and what the check should say to each."""

WRONG = {
    "ex07-shard": [
        ("""
def owned(sizes, world_size, rank):
    length = -(-sum(sizes) // world_size)
    found, offset = [], 0
    for i, size in enumerate(sizes):
        start, stop = max(rank * length, offset), min((rank + 1) * length, offset + size)
        if start < stop:
            found.append((i, start, stop))
        offset += size
    return found
""", "count inside the parameter"),
        ("""
def owned(sizes, world_size, rank):
    length = max(1, sum(sizes) // world_size)
    found, offset = [], 0
    for i, size in enumerate(sizes):
        start = max(rank * length - offset, 0)
        stop = min((rank + 1) * length - offset, size)
        if start < stop:
            found.append((i, start, stop))
        offset += size
    return found
""", "Round the slice up"),
        ("""
def owned(sizes, world_size, rank):
    length, found, offset = -(-sum(sizes) // world_size), [], 0
    for i, size in enumerate(sizes):
        if offset // length == rank:
            found.append((i, 0, size))
        offset += size
    return found
""", "slices cut through parameters"),
        ("""
def owned(sizes, world_size, rank):
    length = -(-sum(sizes) // world_size)
    sizes = [*sizes, length * world_size - sum(sizes)]
    found, offset = [], 0
    for i, size in enumerate(sizes):
        start = max(rank * length - offset, 0)
        stop = min((rank + 1) * length - offset, size)
        if start < stop:
            found.append((i, start, stop))
        offset += size
    return found
""", "padding at the end is no parameter"),
    ],
    "ex07-forgot-to-average": [
        ("""
def zero2_step(shards, gradients, lr):
    new = []
    for rank, shard in enumerate(shards):
        mine = sum(g.chunk(len(shards))[rank] for of_rank in gradients for g in of_rank)
        new.append(shard - lr * mine)
    return torch.cat(new)
""", "Still the sum over ranks and micro-batches"),
        ("""
def zero2_step(shards, gradients, lr):
    new = []
    for rank, shard in enumerate(shards):
        mine = sum(g.chunk(len(shards))[rank] for of_rank in gradients for g in of_rank)
        new.append(shard - lr * mine / len(shards))
    return torch.cat(new)
""", "still summed over the micro-batches"),
        ("""
def zero2_step(shards, gradients, lr):
    new = []
    for rank, shard in enumerate(shards):
        mine = sum(g.chunk(len(shards))[rank] for of_rank in gradients for g in of_rank)
        new.append(shard - lr * mine / len(gradients[0]))
    return torch.cat(new)
""", "still summed over the ranks"),
        ("""
def zero2_step(shards, gradients, lr):
    new = []
    for rank, shard in enumerate(shards):
        mine = sum(g.chunk(len(shards))[rank] for of_rank in gradients for g in of_rank)
        new.append((shard - lr * mine / len(shards) / len(gradients[0])) / len(shards))
    return torch.cat(new)
""", "divide the gradients only"),
    ],
    "ex07-choose-stage": [
        ("""
def choose_stage(num_params, num_ranks, memory):
    for stage, kept in [(3, 0), (2, 2), (1, 4), (0, 16)]:
        if num_params * (kept + (16 - kept) / num_ranks) <= memory:
            return stage
    return None
""", "the smallest one sends least"),
        ("""
def choose_stage(num_params, num_ranks, memory):
    for stage, kept in enumerate((16, 2, 2, 0)):
        if num_params * (kept + (16 - kept) / num_ranks) <= memory:
            return stage
    return None
""", "gradients stay whole until stage 2"),
        ("""
def choose_stage(num_params, num_ranks, memory):
    for stage, kept in enumerate((12, 4, 2, 0)):
        if num_params * (kept + (12 - kept) / num_ranks) <= memory:
            return stage
    return None
""", "the fp32 master weights count too"),
        ("""
def choose_stage(num_params, num_ranks, memory):
    for stage, kept in enumerate((16, 4, 2)):
        if num_params * (kept + (16 - kept) / num_ranks) <= memory:
            return stage
    return 3
""", "answer None"),
    ],
}
