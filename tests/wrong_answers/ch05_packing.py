"""Plausible wrong answers to the exercises on packing and on the order of samples."""

WRONG = {
    "ex05-pack": [
        ("""
def positions_and_pairs(cumulated):
    lengths = [b - a for a, b in zip(cumulated, cumulated[1:])]
    return list(range(cumulated[-1])), sum(n * (n + 1) // 2 for n in lengths)
""", "start again at 0 in each document"),
        ("""
def positions_and_pairs(cumulated):
    lengths = [b - a for a, b in zip(cumulated, cumulated[1:])]
    return [i for n in lengths for i in range(n)], sum(n**2 for n in lengths)
""", "These pairs look ahead"),
        ("""
def positions_and_pairs(cumulated):
    lengths = [b - a for a, b in zip(cumulated, cumulated[1:])]
    return [i for n in lengths for i in range(n)], sum(n * (n - 1) // 2 for n in lengths)
""", "the diagonal counts"),
        ("""
def positions_and_pairs(cumulated):
    total = cumulated[-1]
    positions = [i for a, b in zip(cumulated, cumulated[1:]) for i in range(b - a)]
    return positions, total * (total + 1) // 2
""", "These pairs cross documents"),
        ("""
def positions_and_pairs(cumulated):
    lengths = [b - a for a, b in zip(cumulated, cumulated[1:])]
    return [i for n in lengths for i in range(1, n + 1)], sum(n * (n + 1) // 2 for n in lengths)
""", "The first position is 0"),
    ],
    "ex05-next-places": [
        ("""
def next_places(step, length, batch_size, rank, world_size):
    epoch, at = divmod(step, length // batch_size)
    start = at * batch_size
    n = min(batch_size, length - start)
    return epoch, list(range(start + n * rank // world_size, start + n * (rank + 1) // world_size))
""", "The short last batch is missing"),
        ("""
def next_places(step, length, batch_size, rank, world_size):
    epoch, at = divmod(step, -(-length // batch_size))
    places = range(at * batch_size, min((at + 1) * batch_size, length))
    return epoch, list(places[rank::world_size])
""", "contiguous slices"),
        ("""
def next_places(step, length, batch_size, rank, world_size):
    epoch, at = divmod(step, -(-length // batch_size))
    start, n = at * batch_size, batch_size
    return epoch, list(range(start + n * rank // world_size, start + n * (rank + 1) // world_size))
""", "no place at or after length"),
        ("""
def next_places(step, length, batch_size, rank, world_size):
    epoch, at = divmod(step + 1, -(-length // batch_size))
    start = at * batch_size
    n = min(batch_size, length - start)
    return epoch, list(range(start + n * rank // world_size, start + n * (rank + 1) // world_size))
""", "the next one is `step` itself"),
        ("""
def next_places(step, length, batch_size, rank, world_size):
    epoch, at = divmod(step, -(-length // batch_size))
    batch = list(range(at * batch_size, min((at + 1) * batch_size, length)))
    share = batch_size / world_size
    return epoch, batch[int(share * rank) : int(share * (rank + 1))]
""", "Slice the batch as it is"),
    ],
}
