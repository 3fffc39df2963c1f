"""One frozen rule for test sets: what is test here is so in every chapter, and no pre-training text holds it.

A text's own hash decides its side, not its place and not the corpus's size: however a corpus grows, a test
text stays one. Where texts belong together (an integration's strings, a conversation, a paragraph's
sentences, what is written about one function), the hash is of the whole.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from labkit import corpora, data
from labkit.env import UserError

TEST, DEV = 0.10, 0.05
"""Shares of the hashes: the lowest tenth is test, the next twentieth dev, the rest train."""
ALIKE = 0.5
"""From this Jaccard similarity of their n-grams on, two texts count as one."""
WITHIN, LEAST = 0.8, 30
"""A longer text holds a text of at least 30 letters if it has this share of its n-grams."""


@dataclass(frozen=True)
class Split:
    """Items of a corpus. No item of train is like one of dev or test, and none of dev like one of test."""

    train: tuple
    dev: tuple
    test: tuple


@dataclass(frozen=True)
class Rule:
    """`place` of an item is from 0 to 1, by a hash; `texts` of it must not be known from training."""

    place: Callable[[tuple], float]
    texts: Callable[[tuple], tuple[str, ...]]
    copies: bool = False  # near copies stay where the task is to tell them apart


def normalized(text: str) -> str:
    """What counts of a text: its letters and digits, in lower case, full-width as half-width (NFKC)."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).lower())


def place(text: str) -> float:
    """A number in [0, 1) that only the normalized text decides: its SHA-256, as a fraction."""
    return int(hashlib.sha256(normalized(text).encode()).hexdigest()[:8], 16) / 2**32


def _review_place(review: tuple) -> float:
    """Reviews were split before this rule was: by `Corpus.split`, whose hash is of (text, label).

    Its test set, Chapter 4's, is test here: one of its reviews lies above the limit, all others below.
    """
    text, label = review[0], review[-1]
    if (text, label) in _chapter_4():
        return 0.0
    return int(data._digest((text, label))[:8], 16) / 2**32


@cache
def _chapter_4() -> frozenset:
    return frozenset(data.load("chinese-reviews").split(0.1)[1].items)


def _where(item: tuple) -> float:
    return place(item[-1])


RULES: dict[str, Rule] = {
    "chinese-reviews": Rule(_review_place, lambda item: item[:1]),
    "review-domains": Rule(_review_place, lambda item: item[:1]),
    "peoples-daily": Rule(place, lambda item: (item,)),
    "headlines-zh": Rule(lambda item: place(item[0]), lambda item: item),
    "tagged-zh": Rule(lambda item: place(corpora.paragraph_of()[item]),
                      lambda item: ("".join(word for word, _ in item),)),
    "home-assistant": Rule(_where, lambda item: item[:2]),
    "number-words": Rule(lambda item: place(item[0]), lambda item: item, copies=True),
    "conversations-en": Rule(_where, lambda item: ("\n".join(item[:2]),)),
    "docstring-questions": Rule(_where, lambda item: item[:1]),
    "docstring-summaries": Rule(_where, lambda item: item[:2]),
}


@cache
def split(name: str) -> Split:
    """The frozen split of a corpus. UserError if it has none."""
    if name not in RULES:
        raise UserError(f"{name!r} has no frozen split: choose from {', '.join(RULES)}")
    return divide(data.load(name).items, RULES[name])


def divide(items: Sequence, rule: Rule) -> Split:
    """Split items by a rule."""
    train, dev, test = [], [], []
    for item in items:
        where = rule.place(item)
        (test if where < TEST else dev if where < TEST + DEV else train).append(item)
    if not rule.copies:
        dev = _unlike(dev, test, rule)
        train = _unlike(train, test + dev, rule)
    return Split(tuple(train), tuple(dev), tuple(test))


def _unlike(items: list, others: list, rule: Rule) -> list:
    """The items of which no text is like the same text of another: sources to sources, targets to targets."""
    if not items or not others:
        return items
    parts, known = (list(zip(*map(rule.texts, side), strict=True)) for side in (items, others))
    like = []
    for texts, tests in zip(parts, known, strict=True):
        each = list(dict.fromkeys(texts))  # many questions have the same context
        copies = near_copies(each, list(dict.fromkeys(tests)))
        like.append({text for text, copy in zip(each, copies, strict=True) if copy})
    return [item for item, texts in zip(items, zip(*parts, strict=True), strict=True)
            if not any(text in copies for text, copies in zip(texts, like, strict=True))]


# ---------------------------------------------------------------- what is like what


def grams(text: str) -> set[str]:
    """The 3-grams of characters of a Chinese text, the 5-grams of any other: there, a letter says less.

    A text shorter than that is one gram. Only what `normalized` keeps counts.
    """
    text = normalized(text)
    n = 3 if re.search("[一-鿿]", text) else 5
    return {text[i:i + n] for i in range(max(len(text) - n, 0) + 1)}


def near_copies(texts: Sequence[str], others: Sequence[str], alike: float = ALIKE,
                grams: Callable[[str], set[str]] = grams) -> np.ndarray:
    """(texts,) bool: which have Jaccard similarity |A ∩ B| / |A ∪ B| ≥ `alike` to one of the others.

    A and B are the sets of two texts' `grams`.
    """
    i, _, common, a, b = _overlaps(tuple(texts), tuple(others), alike, grams, both=True)
    found = np.zeros(len(texts), bool)
    found[i[common >= alike * (a + b - common)]] = True
    return found


def holders(texts: Sequence[str], others: Sequence[str], within: float = WITHIN) -> np.ndarray:
    """(texts,) bool: which hold one of the others, |A ∩ B| / |B| ≥ `within`; short others do not count."""
    long = tuple(other for other in others if len(normalized(other)) >= LEAST)
    i, _, common, _, b = _overlaps(tuple(texts), long, within, grams, both=False)
    found = np.zeros(len(texts), bool)
    found[i[common >= within * b]] = True
    return found


def _overlaps(texts: tuple, others: tuple, share: float, grams: Callable, both: bool) -> tuple:
    """(i, j, |A ∩ B|, |A|, |B|) of all pairs that can have |A ∩ B| ≥ share · |B|, with `both` also of |A|.

    Exact, yet without comparing all pairs: to share 8 of B's 10 grams, A must have one of any 3 of them. The
    rarest ones bring the fewest candidates (prefix filter, Chaudhuri, Ganti and Kaushik 2006).
    """
    counts = CountVectorizer(analyzer=grams, binary=True, dtype=np.float32).fit_transform([*texts, *others])
    counts = counts[:, np.argsort(counts.getnnz(axis=0), kind="stable")]  # rare grams first
    counts.sort_indices()
    A, B = counts[:len(texts)], counts[len(texts):]
    a, b = A.getnnz(axis=1), B.getnnz(axis=1)
    few_A, few_B = _rarest(A, share) if both else A, _rarest(B, share).T.tocsr()
    found, rows = [], 4000  # so many at a time: memory
    for start in range(0, len(texts), rows):
        pairs = (few_A[start:start + rows] @ few_B).tocoo()
        i, j = pairs.row + start, pairs.col
        possible = a[i] >= share * b[j]
        if both:
            possible &= b[j] >= share * a[i]
        i, j = i[possible], j[possible]
        common = [np.asarray(A[p].multiply(B[q]).sum(axis=1)).ravel()
                  for p, q in zip(_chunks(i), _chunks(j), strict=True)]
        found.append((i, j, np.concatenate(common)))
    i, j, common = map(np.concatenate, zip(*found, strict=True))
    return i, j, common, a[i], b[j]


def _chunks(numbers: np.ndarray, size: int = 100_000) -> list[np.ndarray]:
    return [numbers[start:start + size] for start in range(0, max(len(numbers), 1), size)]


def _rarest(rows: csr_matrix, share: float) -> csr_matrix:
    """Each row's first n − ⌈share · n⌉ + 1 grams: who lacks all of them has less than `share` of the row."""
    size = rows.getnnz(axis=1)
    number = np.arange(rows.nnz) - np.repeat(rows.indptr[:-1], size)  # of a gram within its row
    kept = number <= np.repeat(size - np.ceil(share * size - 1e-9), size)
    few = csr_matrix((rows.data * kept, rows.indices, rows.indptr), rows.shape, copy=True)
    few.eliminate_zeros()
    return few


# ---------------------------------------------------------------- pre-training


@cache
def test_texts() -> tuple[str, ...]:
    """Every text of every frozen test set, each once."""
    return tuple(dict.fromkeys(
        text for name, rule in RULES.items() for item in split(name).test for text in rule.texts(item)))


def contaminated(texts: Sequence[str]) -> np.ndarray:
    """(texts,) bool: which of them is like a test text, or holds one."""
    return near_copies(texts, test_texts()) | holders(texts, test_texts())


PRETRAINING = ("peoples-daily", "chinese-reviews", "home-assistant", "conversations-en",
               "docstring-summaries", "docstring-questions", "python-reference", "ui-strings-zh")


@cache
def pretraining_texts(*names: str) -> tuple[str, ...]:
    """All text of the corpora `names` (or PRETRAINING) that no test set holds or nearly holds, each once.

    Of a corpus with a frozen split only train, without labels; of the others, paragraphs and both languages.
    """
    found: dict[str, None] = {}
    for name in names or PRETRAINING:
        if name in RULES:
            texts = [text for item in split(name).train for text in RULES[name].texts(item)]
        else:
            texts = [text for item in data.load(name).items
                     for text in (item.split("\n\n") if isinstance(item, str) else item)]
        found.update(dict.fromkeys(texts))
    texts = tuple(found)
    return tuple(text for text, drop in zip(texts, contaminated(texts), strict=True) if not drop)
