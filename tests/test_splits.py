"""The frozen test sets: fixed sizes, nothing like them in train, nothing of them in pre-training text."""

import random
from functools import cache

import pytest

from labkit import corpora, data, install, splits
from labkit.env import UserError

SIZES = {  # (train, dev, test)
    "chinese-reviews": (14_691, 857, 1_762),
    "review-domains": (14_694, 857, 1_760),
    "peoples-daily": (16_077, 965, 1_897),
    "headlines-zh": (1_404, 76, 156),
    "tagged-zh": (37_028, 2_315, 4_343),
    "home-assistant": (19_417, 1_259, 2_120),
    "number-words": (25_601, 1_434, 2_965),
    "conversations-en": (51_443, 2_850, 6_040),
}
BY_VERSION = ("docstring-questions", "docstring-summaries")  # their text is that of the installed packages
QUICK = [name for name in splits.RULES if name != "conversations-en"]
GROUPS = {"home-assistant", "conversations-en", *BY_VERSION}


@pytest.fixture(scope="module", autouse=True)
def wheel():
    try:
        corpora._wheel()
    except UserError as error:
        pytest.skip(str(error))


@cache
def plain_grams(text: str) -> frozenset[str]:
    text = splits.normalized(text)
    n = 3 if any(0x4E00 <= ord(character) <= 0x9FFF for character in text) else 5
    return frozenset(text[k:k + n] for k in range(len(text) - n + 1)) or frozenset({text})


def jaccard(a: str, b: str) -> float:
    """By the definition, with plain sets; written apart from the code under test."""
    A, B = plain_grams(a), plain_grams(b)
    return len(A & B) / len(A | B)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    made = splits.split(name)
    assert (len(made.train), len(made.dev), len(made.test)) == SIZES[name]


@pytest.mark.parametrize("name", splits.RULES)
def test_sides_are_disjoint_and_of_the_corpus(name):
    made, items = splits.split(name), data.load(name).items
    sides = [set(made.train), set(made.dev), set(made.test)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert set.union(*sides) <= set(items)
    assert 0.06 < len(made.test) / len(items) < 0.14
    if name in GROUPS:
        assert not {item[-1] for item in made.train} & {item[-1] for item in made.test}


@pytest.mark.parametrize("name", [name for name in splits.RULES if name != "number-words"])
def test_no_train_item_is_like_a_test_item(name):
    """Brute force on a sample, by another program than the one that made the split."""
    made, texts = splits.split(name), splits.RULES[name].texts
    chooser = random.Random(0)
    train, test = (chooser.sample(side, min(len(side), 100)) for side in (made.train, made.test))
    for a in train:
        for b in test:
            assert all(jaccard(x, y) < 0.5 for x, y in zip(texts(a), texts(b), strict=True)), (a, b)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_near_copy_is_dropped_and_only_it(name):
    rule, made = splits.RULES[name], splits.split(name)
    if rule.copies or name == "tagged-zh":  # a tagged sentence's side is its paragraph's
        pytest.skip("no place for a made-up item")
    test = next(item for item in made.test if len(rule.texts(item)[0]) > 60)
    first = test if isinstance(test, str) else test[0]
    for number in range(100):  # until the copy's own hash says train
        changed = first + f" x{number}"
        copy = changed if isinstance(test, str) else (changed, *test[1:-1], f"{test[-1]} {number}")
        if rule.place(copy) >= splits.TEST + splits.DEV:
            break
    few = (*made.train[:50], *made.test[:50], test)
    assert splits.divide((*few, copy), rule) == splits.divide(few, rule)
    assert copy in splits.divide((*made.train[:50], copy), rule).train  # nothing to be like: it stays


def test_near_copies_agree_with_the_definition():
    """All pairs of 300 texts, of which many are alike, and at several limits."""
    chooser = random.Random(1)
    base = [text for text, *_ in data.load("chinese-reviews").items[:60]]
    base += [source for source, *_ in data.load("home-assistant").items[:60]]
    base += ["", "a", "好", "Hello!", "hello"]
    near = ["".join(c for c in text if chooser.random() > chooser.choice((0.02, 0.1, 0.2))) for text in base]
    for alike in (0.3, 0.5, 0.8):
        expected = [any(jaccard(a, b) >= alike for b in base) for a in near]
        assert list(splits.near_copies(near, base, alike)) == expected
        assert 0 < sum(expected) < len(near) or alike == 0.3


def test_a_growing_corpus_moves_no_test_text():
    items = data.load("headlines-zh").items
    before = splits.divide(items[: len(items) // 2], splits.RULES["headlines-zh"])
    after = splits.divide(items, splits.RULES["headlines-zh"])
    assert set(before.test) == set(after.test) & set(items[: len(items) // 2])
    assert len(after.test) > len(before.test)


def test_only_letters_and_digits_place_a_text():
    assert splits.place("Ｈello,  World!") == splits.place("hello world")
    assert splits.place("hello world") != splits.place("hello word")


def test_reviews_of_chapter_4_are_test_here():
    chapter = data.load("chinese-reviews").split(0.1)[1].items
    assert set(chapter) <= set(splits.split("chinese-reviews").test)
    texts = {text for text, _, _ in splits.split("review-domains").test}
    assert not {text for text, _ in chapter} & {text for text, *_ in splits.split("review-domains").train}
    assert len(texts & {text for text, _ in chapter}) > 1_600


def test_pretraining_text_holds_no_test_text_and_a_planted_one_is_found():
    train = splits.pretraining_texts("peoples-daily", "python-reference")
    assert len(train) > 17_000
    sample = random.Random(2).sample(train, 300)
    test = splits.split("headlines-zh").test[0][0]
    planted = [test, test + "（完）", "".join(sample[:3]) + test, test[:-5]]
    assert splits.contaminated([*sample, *planted]).tolist() == [False] * 300 + [True] * 4


def test_test_texts_are_those_of_all_splits():
    texts = set(splits.test_texts())
    for name, rule in splits.RULES.items():
        assert texts.issuperset(rule.texts(splits.split(name).test[0]))


def test_a_corpus_without_a_frozen_split_is_named():
    with pytest.raises(UserError, match="'dialogues-en' has no frozen split: choose from chinese-reviews, "):
        splits.split("dialogues-en")


def test_a_missing_wheel_gets_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"run `pip download --no-deps .* homeassistant==2026\.2\.3`"):
        corpora._wheel()
    (tmp_path / install.WHEEL).write_bytes(b"another file")
    with pytest.raises(UserError, match="is not the file that the course pins"):
        corpora._wheel()
