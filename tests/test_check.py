"""Exercise checks: each kind of wrong answer gets the message that fits it."""

import math
import time
from collections import OrderedDict, namedtuple
from fractions import Fraction

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

import labkit.check
from labkit.check import check

CASES = [(([0.5, 0.5],), 2.0), (([0.25, 0.25, 0.25],), 4.0)]


def perplexity(p):
    return math.exp(-sum(map(math.log, p)) / len(p))


def summed(p):
    return math.exp(-sum(map(math.log, p)))


def flipped(p):
    return 1 / perplexity(p)


MISTAKES = {"You summed; take the mean.": summed, "Mind the sign.": flipped}


def said(capsys, answer, cases=CASES, **options) -> str:
    check("ex00-test", answer, cases, **options)
    out = capsys.readouterr().out
    assert out.startswith("ex00-test: ") and out.count("\n") == 1
    return out.removeprefix("ex00-test: ").strip()


def test_right(capsys):
    assert said(capsys, perplexity, mistakes=MISTAKES) == "ok"


def test_stub(capsys):
    def stub(p):
        """Perplexity."""
        raise NotImplementedError

    assert said(capsys, stub, mistakes=MISTAKES).startswith("not attempted yet")


def test_not_implemented_inside_a_library_is_no_stub(capsys):
    def answer(p):
        return torch.nn.Module()(1)

    assert "raises NotImplementedError" in said(capsys, answer)


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_give_their_message(capsys, message):
    assert said(capsys, MISTAKES[message], mistakes=MISTAKES) == f"not yet. {message}"


def test_a_mistake_must_agree_on_every_case(capsys):
    def answer(p):  # equals `summed` on the first case alone
        return 4.0

    words = said(capsys, answer, mistakes=MISTAKES)
    assert "`answer([0.5, 0.5])` gives 4, expected 2" in words


def forgets_return(p):
    perplexity(p)


def divides(p):
    total = 0
    return 1 / total


def mutates(p):
    result = perplexity(p)
    p.append(1.0)
    return result


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (forgets_return, "did you forget `return`?"),
        (divides, "ZeroDivisionError: division by zero, in line"),
        (divides, "`return 1 / total`"),
        (mutates, "changes its argument in place"),
        (lambda p: "2", "returns text, '2', expected a number"),
        (lambda p: [perplexity(p)], "returns a list"),
        (lambda p: True, "returns True or False"),
        (lambda p: (x for x in p), "generator"),
        (lambda p: perplexity, "not called?"),
        (lambda p: math.nan, "gives nan"),
        (lambda p: -perplexity(p), "Every result is -1 times"),
        (lambda p: perplexity(p) + 1e-9, "not yet"),
        (lambda: 2, "takes 0 positional arguments"),
        (lambda p: exit(), "SystemExit"),
        (None, "should be a function, but it is None"),
        (2.0, "should be a function, but it is 2"),
    ],
)
def test_wrong(capsys, answer, words):
    reply = said(capsys, answer, rtol=0, atol=1e-12)
    assert reply.startswith("not yet. ") and words in reply


T = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (T.T, T, "returns shape (3, 2), expected (2, 3) (transposed?)"),
        (T.int(), T, "dtype torch.int32, expected torch.float32"),
        (T.numpy(), T, "returns a numpy array"),
        (T.numpy() + 1e-3, T.numpy(), "at [0][0] gives 0.001, expected 0"),
        ([1, 2], [1, 2, 3], "returns 2 items, expected 3"),
        ({"a": 1}, {"a": 1, "b": 2}, "lacks the key 'b'"),
        ({"a": 1, "c": 2}, {"a": 1}, "has a key 'c' that is not expected"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "at ['a'][1] gives 2, expected 3"),
        ("yes", "no", "gives 'yes', expected 'no'"),
        ({1, 2}, {1}, "gives {1, 2}"),
        (math.inf, -math.inf, "gives inf, expected -inf"),
        (False, True, "gives False, expected True"),
        (np.ones((2, 1)), [1.0, 1.0], "at [0] returns a numpy array, array([1.]), expected a number"),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0, 3.0], "returns 2 items, expected 3: [1.0, 2.0]"),
        (torch.tensor([True, True]), [1.0, 1.0], "at [0] returns True or False"),
        (np.array([1.0, 2.0]), [1.0, 2.5], "at [1] gives 2, expected 2.5"),
        (np.array([1.0]), 1.0, "returns a numpy array"),
        (np.array(1.0), [1.0], "returns a numpy array"),
        (0.1 + 0.2, 0.3, "gives 0.30000000000000004, expected 0.3"),
        ("a\nb\n" * 50, "b", "…"),
    ],
)
def test_values(capsys, got, expected, words):
    reply = said(capsys, lambda x: got, [((1,), expected)], rtol=0, atol=0)
    assert words in reply and len(reply) < 250


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (T.bfloat16(), T),
        (torch.tensor(2.0), 2.0),
        (np.float32(2), 2),
        ((1, 2), [1, 2]),
        (2, 2.0),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (np.bool_(True), True),
        (None, None),
        (torch.nn.Parameter(T), T),
        (np.array([1, 2]), [1.0, 2.0]),
        (torch.nn.Parameter(torch.tensor([1.0, 2.0])), [1, 2]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ([np.array([1, 2]), torch.tensor([3])], ([1, 2], [3])),
        (torch.stack([T, T]), [T, T]),
        (np.empty(0), []),
        (range(3), [0, 1, 2]),
        ({"a": torch.tensor([1.0])}, {"a": [1]}),
        (Fraction(1, 2), 0.5),
        (OrderedDict(a=1), {"a": 1}),
        (namedtuple("Pair", "x y")(1, 2), [1, 2]),
    ],
)
def test_equal_in_what_matters(capsys, got, expected):
    assert said(capsys, lambda x: got, [((1,), expected)]) == "ok"


def halves(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


def test_an_exception_can_be_what_is_asked_for(capsys):
    cases = [((4,), 2), ((3,), ValueError), ((8,), ...)]
    positive = {"It must be positive.": lambda result, x: result > 0}
    assert said(capsys, halves, cases, invariants=positive) == "ok"
    reply = said(capsys, lambda x: x // 2, cases, invariants=positive)
    assert "(3)` returns 1; it should raise ValueError" in reply
    reply = said(capsys, lambda x: halves(x) if x < 8 else -4, cases, invariants=positive)
    assert reply.startswith("not yet. It must be positive. (seen in ")

    def asserts(x):
        assert x % 2 == 0
        return x // 2

    reply = said(capsys, asserts, cases)
    assert "raises AssertionError" in reply and "it should raise ValueError" in reply


def test_a_mistake_may_raise_where_the_answer_does(capsys):
    cases = [(([0.5, 0.5],), 2.0), (([0.1] * 400,), 10.0)]
    product = {"A product of many is 0.": lambda p: math.prod(p) ** (-1 / len(p))}
    reply = said(capsys, lambda p: math.prod(p) ** (-1 / len(p)), cases, mistakes=product)
    assert reply == "not yet. A product of many is 0."
    assert "raises IndexError" in said(capsys, lambda p: 2.0 if len(p) < 3 else p[999], cases,
                                       mistakes=product)
    # in the first case nothing but the exception speaks for the diagnosis
    reply = said(capsys, lambda p: 1 / 0, cases[::-1], mistakes=product)
    assert "raises ZeroDivisionError" in reply


def test_invariants_alone_and_after_cases(capsys):
    sums_to_one = {"Probabilities must sum to one.": lambda result, x: abs(sum(result) - 1) < 1e-6}
    assert said(capsys, lambda x: [0.5, 0.5], [((1,), ...)], invariants=sums_to_one) == "ok"
    for expected in (..., [0.5, 0.4], [0.5, 0.5]):
        reply = said(capsys, lambda x: [0.5, 0.4], [((1,), expected)], invariants=sums_to_one)
        assert "must sum to one" in reply


@pytest.mark.parametrize("swallow", [False, True])
def test_an_endless_loop_is_reported(capsys, monkeypatch, swallow):
    monkeypatch.setattr(labkit.check, "TIME_LIMIT", 0.2)

    def answer(p):
        while True:
            try:
                while True:
                    pass
            except Exception:
                if not swallow:
                    raise

    assert "did not finish within 0.2 s" in said(capsys, answer)


def test_an_answer_that_others_keep_from_the_processor_is_given_time(capsys, monkeypatch):
    monkeypatch.setattr(labkit.check, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(labkit.check, "BUSY", 1000)

    def waits(p):
        time.sleep(1.5)  # computes nothing: at the first second's alarm, too
        return perplexity(p)

    assert said(capsys, waits) == "ok"
    monkeypatch.setattr(labkit.check, "BUSY", 3)
    assert "did not finish within 0.2 s" in said(capsys, waits)


def test_the_authors_mistakes_are_refused():
    with pytest.raises(ValueError, match="right answer on every case"):
        check("ex00-test", perplexity, CASES, mistakes={"same": lambda p: perplexity(p)})
    with pytest.raises(ValueError, match="raises ZeroDivisionError"):
        check("ex00-test", perplexity, CASES, mistakes={"broken": divides})
    with pytest.raises(ValueError, match="at least one case"):
        check("ex00-test", perplexity, [])


def test_in_a_notebook_the_line_of_the_cell_is_named():
    cells = [
        "from labkit.check import check",
        "def half(x):\n    y = x / 2\n    return z",
        "check('ex00-half', half, [((4,), 2.0)])",
        "import labkit.check as c\nc.TIME_LIMIT = 0.2\ndef loop(x):\n    while True: pass",
        "check('ex00-loop', loop, [((4,), 2.0)])",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=600).execute()
    words = book.cells[2].outputs[0].text
    assert "NameError: name 'z' is not defined, in line 3 of your cell: `return z`" in words
    assert "did not finish within 0.2 s" in book.cells[4].outputs[0].text
