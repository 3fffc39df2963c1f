"""Real text that every install has, by name, each with a data card; and batches that ranks share.

The corpora are read where their packages installed them, by labkit.corpora. Nothing is downloaded
unless the reader names a data set of the Hugging Face hub.
"""

from __future__ import annotations

import difflib
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from labkit.corpora import READERS
from labkit.env import UserError

if TYPE_CHECKING:
    import torch

VOCAB_SIZE = 256  # our tokens are bytes


@dataclass(frozen=True)
class Card:
    """What a careful reader asks of a data set before using it."""

    corpus: str
    holds: str
    source: str  # package and version
    licence: str
    items: int
    characters: int
    sha256: str
    care: str  # what to watch out for

    def __str__(self) -> str:
        return "\n".join(f"{key:10} {value}" for key, value in vars(self).items())


@dataclass(frozen=True)
class Corpus:
    """`items` are strings (text), or tuples such as (text, label), (source, target), (prompt, reply)."""

    card: Card
    items: tuple

    @property
    def text(self) -> str:
        """All documents joined by a blank line; only for a corpus of plain text."""
        if self.items and not isinstance(self.items[0], str):
            raise UserError(f"{self.card.corpus} holds pairs, not plain text: use .items")
        return "\n\n".join(self.items)

    def split(self, test_fraction: float = 0.1) -> tuple[Corpus, Corpus]:
        """(train, test), whole items only, about `test_fraction` of the characters in test.

        An item's own hash decides its side, not its place: a corpus that grows keeps most of its
        split, and no shuffling seed has to be remembered.
        """
        room = test_fraction * sum(map(_length, self.items))
        test = set()
        for item in sorted(self.items, key=_digest):
            if _length(item) <= room:
                test.add(item)
                room -= _length(item)
        sides = (tuple(item for item in self.items if (item in test) == side) for side in (0, 1))
        return tuple(Corpus(self.card, side) for side in sides)


def _length(item: str | tuple) -> int:
    return len(item) if isinstance(item, str) else sum(map(_length, item))


def _digest(item: object) -> str:
    return hashlib.sha256(repr(item).encode()).hexdigest()


def names() -> list[str]:
    """Names of the corpora that `load` knows."""
    return list(READERS)


@cache
def load(name: str, *, hub: str | None = None) -> Corpus:
    """The corpus called `name`, from its installed package.

    `hub` takes a data set of the Hugging Face hub in its place (a network is needed), written
    "owner/name", "owner/name:config" or "owner/name:config:column,column" where the columns are
    not called as ours are. Raises UserError with the cure when something is missing.
    """
    if name not in READERS:
        near = difflib.get_close_matches(name, READERS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(READERS)}"
        raise UserError(f"no corpus is called {name!r}: {hint}")
    reader = READERS[name]
    if hub:
        source, (items, licence) = f"hub data set {hub}", _from_hub(hub, reader.columns)
    else:
        items, licence, source = reader.read(), reader.licence, reader.source()
    size = sum(map(_length, items))
    card = Card(name, reader.holds, source, licence, len(items), size, _digest(items), reader.care)
    return Corpus(card, tuple(items))


def _from_hub(hub: str, columns: tuple[str, ...]) -> tuple[list, str]:
    try:
        import datasets
    except ImportError:
        cure = "run `pip install datasets`"
        raise UserError(f"reading {hub!r} from the hub needs one more package: {cure}") from None
    path, config, named = [*hub.split(":"), "", ""][:3]
    rows = datasets.load_dataset(path, config or None, split="train")
    columns = tuple(named.split(",")) if named else columns
    for column in columns:
        if column not in rows.column_names:
            has = ",".join(rows.column_names)
            raise UserError(f"{path} has no column {column!r}: write {path}:{config}:{has}")
    items = zip(*(map(str, rows[column]) for column in columns), strict=True)
    items = [item if len(columns) > 1 else item[0] for item in items]
    return list(dict.fromkeys(items)), rows.info.license or "not stated: ask its owner"


def card(name: str) -> Card:
    """The data card of the corpus called `name`."""
    return load(name).card


# ---------------------------------------------------------------- tokens and batches


def encode(text: str) -> torch.Tensor:
    """UTF-8 bytes of `text` as a tensor of token numbers 0…255."""
    import torch

    return torch.tensor(list(text.encode()), dtype=torch.long)


def decode(tokens: torch.Tensor | list[int]) -> str:
    """Text of a sequence of bytes; half a character at an end becomes �."""
    return bytes(int(token) for token in tokens).decode(errors="replace")


def batches(
    tokens: torch.Tensor,
    batch_size: int,
    context: int,
    steps: int,
    *,
    seed: int = 0,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (inputs, targets), each (batch_size / world_size, context), for steps start…steps−1.

    Step s holds the same `batch_size` sequences whatever the number of ranks, and each rank gets
    its slice of them: runs on 1, 2 and 4 ranks can be compared, and `start` lets a run resume.
    """
    import torch

    if batch_size % world_size:
        raise UserError(
            f"a global batch of {batch_size} sequences cannot be shared by {world_size} ranks: "
            f"choose a multiple of {world_size}"
        )
    if len(tokens) <= context:
        raise UserError(f"{len(tokens)} tokens are too few for a context of {context}")
    mine = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
    for step in range(start, steps):
        chooser = random.Random(f"{seed}/{step}")
        starts = [chooser.randrange(len(tokens) - context) for _ in range(batch_size)][mine]
        window = tokens[torch.tensor(starts)[:, None] + torch.arange(context + 1)]
        yield window[:, :-1], window[:, 1:]
