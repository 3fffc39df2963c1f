"""Claims: what holds, what fails, what is shown, and what the ledger reads back."""

import math
import re

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from labkit import claims as module
from labkit import form
from labkit.claims import Claim, ClaimFailed, claim, predict, read_notebook


@pytest.fixture(autouse=True)
def before_the_form(monkeypatch):
    """Chapter 00 does not follow the form, Chapter 99 does."""
    monkeypatch.setattr(form, "NOT_YET", form.NOT_YET | {"00"})
    monkeypatch.setattr(module, "_ASKED", {})


def shown(capsys, *args, **kwargs) -> str:
    claim("ch00-test", "it is so", *args, **kwargs)
    return capsys.readouterr().out.strip()


def test_text_of_an_exact_claim(capsys):
    assert shown(capsys, 124439808, 124439808, unit="parameters") == (
        "claim ch00-test holds: it is so | predicted 124,439,808 parameters | "
        "measured 124,439,808 parameters | difference 0 % (tolerance 0)"
    )


@pytest.mark.parametrize(
    ("predicted", "measured", "options"),
    [
        (100.0, 101.0, {"rtol": 0.01}),
        (-100.0, -99.0, {"rtol": 0.01}),
        (0, 1e-7, {"atol": 1e-6}),
        (10, 11.05, {"rtol": 0.1, "atol": 0.1}),
        (2**80, 2**80, {}),
        (True, True, {}),
        (math.inf, math.inf, {}),
        ([1, 2, 3], np.array([1, 2, 3]), {}),
        ([[1.0, 2.0]], torch.tensor([[1.0, 2.0]], requires_grad=True), {}),
        (np.float32(0.5), torch.tensor(0.5, dtype=torch.bfloat16), {}),
        (None, 3, {"at_most": 3}),
        (None, [3, 4], {"at_least": 3, "at_most": 4}),
    ],
)
def test_holds(capsys, predicted, measured, options):
    assert " holds: " in shown(capsys, predicted, measured, **options)


@pytest.mark.parametrize(
    ("predicted", "measured", "options", "words"),
    [
        (100.0, 101.1, {"rtol": 0.01}, "difference 1.1 % (tolerance 1 %)"),
        (100.0, -100.0, {"rtol": 0.01}, "difference 200 %"),
        (2**80, 2**80 + 1, {}, "FAILS"),
        (0, 1, {"rtol": 0.5}, "difference 1 (tolerance 50 %)"),
        (math.nan, math.nan, {"rtol": 1.0}, "FAILS"),
        (1.0, math.nan, {"atol": 1e9}, "difference nan"),
        ([1, 2], [1, math.nan], {"rtol": 1.0}, "largest difference nan"),
        (math.inf, -math.inf, {"rtol": 1.0}, "FAILS"),
        ([1, 2], [1, 2, 3], {}, "shapes (2,) and (3,) differ"),
        ([1.0, 2.0], [1.0, 3.0], {"rtol": 0.1}, "largest difference 50 %"),
        (True, False, {}, "not equal"),
        (None, 3.01, {"at_most": 3}, "outside the bound"),
        (None, math.nan, {"at_least": 0}, "outside the bound"),
        (None, [1, 9], {"at_most": 3}, "outside the bound"),
    ],
)
def test_fails_after_showing(capsys, predicted, measured, options, words):
    with pytest.raises(ClaimFailed) as failure:
        claim("ch00-test", "it is so", predicted, measured, **options)
    assert words in str(failure.value)
    assert str(failure.value) == capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("id", "options", "words"),
    [
        ("", {"predicted": 1}, "lower-case words"),
        ("Ch01 x", {"predicted": 1}, "lower-case words"),
        ("ch00-x", {"predicted": 1, "at_most": 2}, "are the prediction"),
        ("ch00-x", {"predicted": None, "at_most": 2, "rtol": 0.1}, "are the prediction"),
        ("ch00-x", {"predicted": None}, "give predicted"),
        ("ch00-x", {"predicted": 1, "rtol": -1}, "at least 0"),
        ("ch00-x", {"predicted": 1, "atol": math.inf}, "finite"),
        ("ch00-x", {"predicted": "one"}, "predicted must be a number"),
        ("ch00-x", {"predicted": []}, "predicted must be a number"),
        ("ch00-x", {"predicted": [[1], [1, 2]]}, "rectangular"),
        ("ch00-x", {"predicted": 1, "statement": " "}, "statement is empty"),
        ("ch00-x", {"predicted": 1, "measured": None}, "measured must be a number"),
    ],
)
def test_ill_formed_claims_are_refused(capsys, id, options, words):
    arguments = {"statement": "it is so", "measured": 1} | options
    with pytest.raises(ValueError, match=words):
        claim(id, **arguments)
    assert capsys.readouterr().out == ""


def test_a_noisy_claim_repeats_outside_its_brackets(capsys):
    both = [shown(capsys, 10, m, rtol=0.5, unit="s", noisy=True) for m in (9.1, 11.7)]
    assert both[0] != both[1]
    stable = [re.sub(r"⟨this run: [^⟩]*⟩", "", text) for text in both]
    assert stable[0] == stable[1]
    assert "holds" in stable[0] and "predicted 10 s" in stable[0] and "50 %" in stable[0]


def test_rounding_far_inside_the_tolerance_prints_its_bound(capsys):
    texts = {shown(capsys, 1.0, 1 + e, rtol=1e-4) for e in (0, 3e-7, 4e-7)}
    assert len(texts) == 1 and "difference below 0.001 %" in texts.pop()


def test_html_escapes_and_keeps_the_pages_colours():
    record = Claim(id="ch00-x", statement="a < b", predicted="<1>", measured="2", difference="d",
                   tolerance="", holds=True, noisy=True, source="A & B")
    box = record.to_html()
    assert "a &lt; b" in box and "&lt;1&gt;" in box and "A &amp; B" in box
    assert "background" not in box and not re.search(r"[; ]color:", box)
    assert re.search(r"⟨this run: [^⟩]*2[^⟩]*⟩", box)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    cells = [
        "from labkit.claims import claim",
        "claim('ch00-one', 'a | b', 1.0, 1.0)",
        "claim('ch00-two', 'fast', None, 3.0, at_most=9, unit='s', noisy=True, source='§1',"
        " control={'slow': 12.0})",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=600).execute()
    path = tmp_path_factory.mktemp("book") / "00_test.ipynb"
    nbformat.write(book, path)
    return path


def test_a_notebook_stores_its_claims(notebook):
    claims = read_notebook(notebook)
    assert [c.id for c in claims] == ["ch00-one", "ch00-two"]
    assert claims[1].predicted == "at most 9 s" and claims[1].noisy and claims[1].holds
    output = nbformat.read(notebook, 4).cells[1].outputs[0]
    assert output.data["text/plain"] == claims[0].text()
    assert output.data["text/html"] == claims[0].to_html()



# ------------------------------------------------------------------- the reading form


def test_a_control_is_shown_and_must_fail(capsys):
    claim("ch99-x", "it learns", None, 2.0, at_most=3, control={"untrained": 8.0, "shuffled": 5})
    assert "control, which must fail: untrained 8 · shuffled 5" in capsys.readouterr().out
    with pytest.raises(ClaimFailed, match="the control 'untrained' holds too: this claim cannot fail"):
        claim("ch99-x", "it learns", None, 2.0, at_most=9, control={"untrained": 8.0})
    assert "FAILS" in capsys.readouterr().out


def test_a_control_of_a_prediction_lies_outside_its_tolerance(capsys):
    claim("ch99-x", "about ten", 10, 10.4, rtol=0.1, control={"a factor of 2 left out": 5.2})
    with pytest.raises(ClaimFailed, match="cannot fail"):
        claim("ch99-x", "about ten", 10, 10.4, rtol=0.1, control={"no factor": 9.5})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(predicted=None, measured=3, at_most=9), "needs a control"),
        (dict(predicted=10, measured=10, rtol=0.06), "needs a control"),
        (dict(predicted=10, measured=10, atol=0.6), "needs a control"),
        (dict(predicted=0, measured=0, atol=1e-9), "needs a control"),
        (dict(predicted=True, measured=True), "truth values"),
        (dict(predicted=[True, True], measured=[True, True]), "truth values"),
        (dict(predicted=[1] * 9, measured=[1] * 9), "would be cut off"),
        (dict(predicted={i: i for i in range(13)}, measured={i: i for i in range(13)}), "takes in"),
        (dict(predicted={"a": 1}, measured={"b": 1}), "the same cases"),
    ],
)
def test_what_the_form_refuses(capsys, arguments, words):
    with pytest.raises(ValueError, match=words):
        claim("ch99-x", "it is so", **arguments)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [
    dict(predicted=10, measured=10, rtol=0.05),
    dict(predicted=[1] * 8, measured=[1] * 8),
    dict(predicted=0, measured=0),
])
def test_what_the_form_allows(arguments):
    claim("ch99-x", "it is so", **arguments)


def test_several_cases_are_a_table(capsys):
    claim("ch99-x", "sizes", {"small": 100, "large": 200.0}, {"small": 100, "large": 201.0}, rtol=0.01)
    assert "predicted small 100 · large 200 | measured small 100 · large 201" in capsys.readouterr().out
    with pytest.raises(ClaimFailed):
        claim("ch99-x", "sizes", {"small": 100, "large": 200}, {"small": 100, "large": 250}, rtol=0.01)
    record = Claim(id="ch99-x", statement="s", predicted="p", measured="m", difference="d", tolerance="",
                   holds=True, cases=[dict(case="<a>", predicted="1", measured="2", difference="3")])
    assert "<td>&lt;a&gt;</td><td>1</td><td>2</td><td>3</td>" in record.to_html()


def test_a_predicted_number_is_asked_and_answered(capsys):
    predict("ch99-x", "how many?", unit="bytes")
    claim("ch99-x", "so many", 16, 16, unit="bytes")
    assert "you said" not in capsys.readouterr().out
    predict("ch99-x", "how many?", mine=12)
    assert "You said 12" in capsys.readouterr().out
    claim("ch99-x", "so many", 16, 16, unit="bytes")
    assert "you said 12 bytes" in capsys.readouterr().out
    for wrong in ("12", True):
        with pytest.raises(ValueError, match="give a number"):
            predict("ch99-x", "how many?", mine=wrong)


def test_an_asked_box_carries_its_numbers_and_no_noise(monkeypatch):
    shape = dict(id="ch99-x", statement="s", predicted="16", measured="17", difference="d", tolerance="",
                 holds=True, numbers=[16.0, 17.0])
    assert 'data-predicted="16.0" data-measured="17.0"' in Claim(**shape).to_html()
    assert "data-measured" not in Claim(**shape, noisy=True).to_html()


def test_an_asked_bound_carries_what_was_measured(capsys):
    predict("ch99-bound", "how many?")
    claim("ch99-bound", "so many", None, 40.5, at_least=30, control={"without": 15.0})
    record = Claim(id="ch99-bound", statement="s", predicted="at least 30", measured="40.5", difference="d",
                   tolerance="", holds=True, numbers=[40.5], noisy=True)
    assert 'data-measured="40.5"' in record.to_html()
    assert "data-predicted" not in record.to_html()
