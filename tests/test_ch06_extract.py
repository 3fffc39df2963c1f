"""Part 6.2 d: scores and spans equal other implementations; nothing leaks; the record is fresh."""

import json
import random
import re
import string
import sys
from functools import cache

import cells
import pytest
import torch

from labkit import corpora
from labkit.launch import find_lab

LAB = find_lab("lab06")
sys.path.insert(0, str(LAB))

import extract  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402


@cache
def chapter() -> dict:
    names = {}
    source = cells.sources("06")
    imports = "import re\nimport string\nfrom collections import Counter\n"
    for cell in ("x6-score", "x6-span", "x6-opponents"):
        kept = source[cell].split("\nfor given")[0].split("\nprint(")[0].split("\nmost_frequent")[0]
        exec(compile(imports + kept, cell, "exec"), names)
    return names


WORDS = ["int", "float", "the", "a", "None", "-1", "1", "array_like,", "optional", "(n,)", "Int",
         "An", "...", ""]


def a_text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.choice([0, 1, 1, 2, 3, 6])))


def squad_f1(given: str, wanted: str) -> float:
    """As SQuAD's evaluation defines it: harmonic mean of precision and recall of the normalized words."""
    def normalized(text: str) -> list[str]:
        kept = re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower())
        return [word for word in kept.split() if word not in ("a", "an", "the")]

    ours, theirs = normalized(given), normalized(wanted)
    shared = sum(min(ours.count(word), theirs.count(word)) for word in set(ours))
    if not ours or not theirs or not shared:
        return float(ours == theirs)
    precision, recall = shared / len(ours), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


def test_token_f1_is_the_benchmarks():
    """On 1,000 random pairs, the degenerate among them; exact match would differ on many."""
    chance, differs = random.Random(0), 0
    for _ in range(1000):
        given, wanted = a_text(chance), a_text(chance)
        ours = chapter()["answer_f1"](given, wanted)
        assert ours == pytest.approx(squad_f1(given, wanted), abs=1e-12)
        differs += ours != float(given == wanted)
    assert differs > 100


def test_token_f1_by_brute_force():
    chance = random.Random(1)
    for _ in range(300):
        given, wanted = a_text(chance), a_text(chance)
        ours, theirs = (chapter()["words_of_answer"](text) for text in (given, wanted))
        left, shared = list(theirs), 0
        for word in ours:
            if word in left:
                left.remove(word)
                shared += 1
        expected = 2 * shared / (len(ours) + len(theirs)) if ours or theirs else 1.0
        assert chapter()["answer_f1"](given, wanted) == pytest.approx(expected)


def test_the_best_span_is_brute_forces_and_the_labs():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 10, 70):
        for longest in (1, 2, 60):
            start, end = torch.randn(2, n, generator=generator)
            first, last = chapter()["best_span"](start.tolist(), end.tolist(), longest)
            assert (first, last) == extract.best_span(start, end, longest)
            assert 0 <= first <= last < min(n, first + longest)
            assert all(start[i] + end[j] <= start[first] + end[last]
                       for i in range(n) for j in range(i, min(n, i + longest)))


def test_a_span_never_lies_outside_the_page():
    """Whatever the head says: each recorded answer is a piece of its page."""
    for run in record()["answers"]:
        for form in run.keys() & extract.FORMS.keys():
            pages = [extract.FORMS[form](item[0]) for item in tasks.items("answer", "test")]
            assert len(run[form]) == len(pages)
            assert all(0 <= a < b <= len(page) for page, (a, b) in zip(pages, run[form], strict=True))


@cache
def record() -> dict:
    return json.loads((LAB / "recorded/extract.json").read_text(encoding="utf-8"))


def test_every_answer_stands_in_its_page():
    for part in ("train", "dev", "test"):
        assert all(item[2] in item[0] for item in tasks.items("answer", part))


def test_no_page_and_no_function_is_in_two_sets():
    """And a planted leak is found."""
    def shared(one, other, column):
        return {item[column] for item in one} & {item[column] for item in other}

    train, dev, test = (tasks.items("answer", part) for part in ("train", "dev", "test"))
    for column in (0, 3):
        assert not shared(train, test, column)
        assert not shared(train, dev, column)
        assert not shared(dev, test, column)
    assert shared([*train, test[0]], test, 0)


def test_the_rule_answers_types_and_no_default():
    for context, question, answer, _ in tasks.items("answer", "test"):
        assert (chapter()["by_rule"](context, question) == answer) == ("default" not in question)


def test_targets_are_the_answers():
    """All tokens that hold the answer, and hardly more: a token may be wider than the answer."""
    reader = extract.Reader("random vectors", 0)
    some = tasks.items("answer", "dev")
    exact = 0
    for context, question, answer, _ in some:
        _, places = extract.features(reader, context, question)
        first, last = extract.target(context, question, answer, places)
        text = context[places[first][0]:places[last][1]]
        assert answer in text
        exact += text.strip() == answer
    assert exact > 0.97 * len(some)


def test_the_other_forms_keep_the_answers():
    for context, question, answer, _ in tasks.items("answer", "test"):
        assert answer in extract.FORMS["sphinx"](context)
        assert answer in extract.FORMS["google"](context)
        ruled = chapter()["by_rule"](extract.FORMS["google"](context), question)
        assert "default" in question or ruled != answer


def test_the_record_is_of_this_code():
    held = record()
    assert held["settings"]["code"] == code_hash(*extract.CODE)
    assert held["command"].startswith("python labs/lab06_three_tasks/extract.py")
    assert {(run["way"], run["seed"]) for run in held["answers"]} == {
        (way, seed) for way in extract.WAYS for seed in (0, 1, 2)}
    assert len(held["summaries"]) == len(tasks.items("summarize", "test"))


def test_unusual_questions_and_pages_are_read():
    reader = extract.Reader("one block", 1)
    for page in ("x", "x : int\n" * 500, "😀 : 数\n", "`", "x : int"):
        for question in ("What is `x`?", "What is `😀`?", "What is ``?"):
            vectors, places = extract.features(reader, page, question)
            assert len(vectors) == len(places) > 0
            assert vectors.isfinite().all()
    assert extract.sentences("") == []
    assert extract.sentences("One. Two! three? `Four`.") == ["One.", "Two! three?", "`Four`."]


def test_the_smoke_setting_runs(tmp_path):
    extract.run(False, tmp_path / "short.json", "python labs/lab06_three_tasks/extract.py --out short.json")
    held = json.loads((tmp_path / "short.json").read_text(encoding="utf-8"))
    assert [run["way"] for run in held["answers"]] == list(extract.WAYS)
    assert len(held["answers"][0]["google"]) == len(held["summaries"]) == held["settings"]["test"]


def test_the_defaults_are_the_documentations():
    for context, question, answer, _ in tasks.items("answer", "test"):
        if "default" in question:
            assert corpora.DEFAULT.search(context)
            assert answer in context
