"""Which samples come next: an order of training data that any run can take up at any step."""

from hashlib import blake2b

from labkit.env import UserError


def permuted(place: int, length: int, key: str) -> int:
    """The number at ``place`` of a shuffled ``range(length)``; no list is kept.

    A Feistel network permutes 0 … 4^half − 1; a result outside the range is permuted again, until
    it is inside (cycle walking; Black and Rogaway 2002).
    """
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    while True:
        for turn in range(6):
            left, right = place >> half, place & ((1 << half) - 1)
            digest = blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            place = right << half | left ^ int.from_bytes(digest, "big") >> (64 - half)
        if place < length:
            return place


class SampleOrder:
    """The samples of every step: each sample once an epoch, in another order each epoch.

    It keeps no state: the same length, batch size and seed give the same batch at a step, in any
    process and on any number of ranks. Resuming needs only the step.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int = 0) -> None:
        """``batch_size`` counts the samples of all ranks. Raises UserError for a bad argument."""
        self.length = _whole("length", length, 1)
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.seed = _whole("seed", seed, 0)
        self.steps_per_epoch = -(-length // batch_size)

    def global_indices(self, step: int) -> list[int]:
        """Samples of all ranks at this step, counted over epochs; an epoch's last may be fewer."""
        epoch, step_in_epoch = divmod(_whole("step", step, 0), self.steps_per_epoch)
        start = step_in_epoch * self.batch_size
        places = range(start, min(start + self.batch_size, self.length))
        return [permuted(place, self.length, f"{self.seed}/{epoch}") for place in places]

    def indices(self, step: int, rank: int = 0, world_size: int = 1) -> list[int]:
        """This rank's slice of ``global_indices``: sizes differ by 1 at most, and may be 0."""
        if _whole("rank", rank, 0) >= _whole("world_size", world_size, 1):
            raise UserError(f"rank is {rank} with {world_size} ranks: it must be below {world_size}")
        batch = self.global_indices(step)
        return batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]


def _whole(name: str, value: int, lowest: int) -> int:
    if not isinstance(value, int) or value < lowest:
        raise UserError(f"{name} is {value!r}: it must be a whole number of at least {lowest}")
    return value
