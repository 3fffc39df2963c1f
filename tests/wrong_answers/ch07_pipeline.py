"""Plausible wrong answers to Chapter 7's exercises (pipeline), and what the check should say to each."""

WRONG = {
    "ex07-draw-1f1b": [
        ("""
def draw_1f1b(num_stages, micro_batches):
    forwards = [f"F{m}" for m in range(micro_batches)]
    return [forwards + [f"B{m}" for m in range(micro_batches)] for _ in range(num_stages)]
""", "GPipe's two halves"),
        ("""
def draw_1f1b(num_stages, micro_batches):
    forwards = [f"F{m}" for m in range(micro_batches)]
    backwards = [f"B{m}" for m in reversed(range(micro_batches))]
    return [forwards + backwards for _ in range(num_stages)]
""", "That is GPipe"),
        ("""
def draw_1f1b(num_stages, micro_batches):
    orders = []
    for stage in range(num_stages):
        warm_up = min(stage, micro_batches)
        actions = [f"F{m}" for m in range(warm_up)]
        for m in range(micro_batches - warm_up):
            actions += [f"F{warm_up + m}", f"B{m}"]
        orders.append(actions + [f"B{m}" for m in range(micro_batches - warm_up, micro_batches)])
    return orders
""", "upside down"),
        ("""
def draw_1f1b(num_stages, micro_batches):
    orders = []
    for stage in range(num_stages):
        warm_up = min(num_stages - stage, micro_batches)
        actions = [f"F{m}" for m in range(warm_up)]
        for m in range(micro_batches - warm_up):
            actions += [f"F{warm_up + m}", f"B{m}"]
        orders.append(actions + [f"B{m}" for m in range(micro_batches - warm_up, micro_batches)])
    return orders
""", "One forward pass too many"),
        ("""
def draw_1f1b(num_stages, micro_batches):
    return [[x for m in range(micro_batches) for x in (f"F{m}", f"B{m}")]] * num_stages
""", "No warm-up"),
        ("""
def draw_1f1b(num_stages, micro_batches):
    orders = []
    for stage in range(num_stages):
        warm_up = num_stages - 1 - stage
        actions = [f"F{m}" for m in range(warm_up)]
        for m in range(micro_batches - warm_up):
            actions += [f"F{warm_up + m}", f"B{m}"]
        orders.append(actions)
    return orders
""", "runs every forward and every backward pass once"),
    ],
    "ex07-micro-batches": [
        ("""
def least_micro_batches(num_stages, share, chunks=1):
    return math.ceil((num_stages - 1) / share / chunks)
""", "share of the ideal time"),
        ("""
def least_micro_batches(num_stages, share, chunks=1):
    return max(1, int((num_stages - 1) * (1 - share) / share / chunks))
""", "One too few"),
        ("""
def least_micro_batches(num_stages, share, chunks=1):
    return max(1, math.ceil((num_stages - 1) * (1 - share) / share - 1e-9))
""", "Chunks divide the bubble"),
        ("""
def least_micro_batches(num_stages, share, chunks=1):
    return math.ceil(num_stages * (1 - share) / share / chunks - 1e-9)
""", "p − 1, not p"),
        ("""
def least_micro_batches(num_stages, share, chunks=1):
    return max(1, math.ceil((num_stages - 1) * (1 - share) / share / chunks) - 1)
""", "still larger than the share"),
    ],
}
