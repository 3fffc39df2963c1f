"""Plausible wrong answers to Chapter 2's exercises (data parallel), and what the check should say to each."""

_SHARDS = """
def average_shards(gradient, samples):
    total = gradient * {times}
    number = torch.tensor(float({number}), device=gradient.device)
    dist.all_reduce(total)
    {reduce}
    return total / {by}
"""


def _shards(times="samples", number="samples", reduce="dist.all_reduce(number)", by="number"):
    return _SHARDS.format(times=times, number=number, reduce=reduce, by=by)


_ACCUMULATE = """
def accumulated_gradient(w, x, y, micro):
    w = w.detach().clone().requires_grad_()
    pieces = list(zip(x.split(micro), y.split(micro)))
    for a, b in pieces:
        {before}
        (((a @ w - b) ** 2).{mean}() {scale}).backward()
    return w.grad
"""


def _accumulate(before="pass", mean="mean", scale=""):
    return _ACCUMULATE.format(before=before, mean=mean, scale=scale)


WRONG = {
    "ex02-average-shards": [
        (_shards(times="1", by="dist.get_world_size()"), "count as much as those with many"),
        (_shards(times="1", by="1"), "summed the means and divided by nothing"),
        (_shards(by="1"), "divide by their number on all ranks"),
        (_shards(by="dist.get_world_size()"), "divided by the ranks: divide by all samples"),
        (_shards(reduce="pass"), "Every rank divides by its own number of samples"),
        ("def average_shards(gradient, samples):\n    return gradient", "The ranks did not talk"),
        ("def average_shards(gradient, samples):\n    total = gradient.mul_(samples)\n"
         "    if dist.get_rank() == 0:\n        dist.all_reduce(total)\n    return total",
         "wait for each other"),
    ],
    "ex02-batch-arithmetic": [
        ("def best_cut(batch, ranks, most):\n"
         "    return next((b, batch // b) for b in range(most, 0, -1) if batch % b == 0)",
         "divide by the ranks first"),
        ("def best_cut(batch, ranks, most):\n    if batch % ranks:\n        return None\n"
         "    b = min(most, batch // ranks)\n    return b, batch // ranks // b", "not always a divisor"),
        ("def best_cut(batch, ranks, most):\n    share = batch // ranks\n"
         "    if not share:\n        return None\n"
         "    return next((b, share // b) for b in range(min(most, share), 0, -1) if share % b == 0)",
         "30 samples cannot be shared by 4 ranks"),
        ("def best_cut(batch, ranks, most):\n    if batch % ranks:\n        return None\n"
         "    share = batch // ranks\n"
         "    return next((share // b, b) for b in range(min(most, share), 0, -1) if share % b == 0)",
         "exchanged"),
        ("def best_cut(batch, ranks, most):\n    return (1, batch // ranks) if batch % ranks == 0 else None",
         "the largest micro-batch is asked for"),
        ("def best_cut(batch, ranks, most):\n    share = batch // ranks\n    return most, share / most",
         "`best_cut(48, 2, 10)`"),
    ],
    "ex02-accumulate": [
        (_accumulate(), "scale each before you add it"),
        (_accumulate(scale="/ len(pieces)"), "a smaller last piece must count for less"),
        (_accumulate(scale="/ micro"), "instead of each piece's own share"),
        (_accumulate(before="w.grad = None"), "Only the last piece is left"),
        (_accumulate(mean="sum"), "the gradient of the sum of squares"),
    ],
}
