"""Predict, then measure: every claim of the book is stated with a number and compared with one."""

import html
import json
import math
import re
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from labkit import form

ID = re.compile(r"[a-z]+[0-9]*(-[a-z0-9]+)+")
METADATA_KEY, ASK_KEY = "labkit_claim", "labkit_ask"
WIDEST = 0.05  # a tolerance above this is a bound in disguise
LONGEST_LIST, LONGEST_TABLE = 8, 12
_ASKED: dict[str, float | None] = {}  # claim id: the reader's number


class ClaimFailed(AssertionError):
    """A measurement that lies outside its claim's tolerance or bound."""


class Case(BaseModel):
    """One row of a claim about several cases."""

    case: str
    predicted: str
    measured: str
    difference: str


class Claim(BaseModel):
    """One claim as it was shown: the ledger prints the very text that readers saw."""

    id: str
    statement: str
    predicted: str
    measured: str
    difference: str
    tolerance: str
    holds: bool
    noisy: bool = False
    source: str = ""
    control: str = ""
    cases: list[Case] = []
    guess: str = ""
    numbers: list[float] = []  # an asked claim's [predicted, measured], of a bound [measured]: for the page

    def text(self) -> str:
        """One line; what changes from run to run stands inside ``⟨this run: …⟩``."""
        verdict = "holds" if self.holds else "FAILS"
        control = f" | control, which must fail: {self.control}" if self.control else ""
        found = f"measured {self.measured} | {self.difference}"
        found = f"⟨this run: {found}{control}⟩" if self.noisy else found + control
        tolerance = f" ({self.tolerance})" if self.tolerance else ""
        said = f"claim {self.id} {verdict}: {self.statement} | predicted {self.predicted}"
        guess = f" | you said {self.guess}" if self.guess else ""
        return f"{said} | {found}{tolerance}{guess}"

    def to_html(self) -> str:
        """The same as a box. Only its edge is coloured: text keeps the page's own colours."""
        c = self.model_copy(update={k: html.escape(v) for k, v in self if isinstance(v, str)})
        verdict, edge = ("✓ holds", "#009E73") if c.holds else ("✗ FAILS", "#D55E00")
        tolerance = f" ({c.tolerance})" if c.tolerance else ""
        said = f"predicted <b>{c.predicted}</b> · "
        found = f"measured <b>{c.measured}</b> · {c.difference}"
        if c.cases:
            said, found = "", self.table()
        control = f"<br>control, which must fail: {c.control}" if c.control else ""
        found = f"⟨this run: {found}{control}⟩{tolerance}" if c.noisy else f"{found}{tolerance}{control}"
        guess = f"<br>you said <b>{c.guess}</b>" if c.guess else ""
        source = f"<br><small>prediction from: {c.source}</small>" if c.source else ""
        return (
            f'<div class="labkit-claim" id="{c.id}"{self._data()} style="border:1px solid {edge};'
            f'border-left-width:5px;border-radius:4px;padding:.4em .8em;margin:.3em 0;'
            f'line-height:1.5">'
            f"<b>{verdict}</b> · {c.statement} "
            f'<small style="font-family:monospace">{c.id}</small><br>'
            f"{said}{found}{guess}{source}</div>"
        )

    def table(self) -> str:
        """The cases as an HTML table; empty without cases."""
        rows = [["case", "predicted", "measured", "difference"],
                *([html.escape(v) for v in dict(case).values()] for case in self.cases)]
        lines = ["".join(f"<{tag}>{cell}</{tag}>" for cell in row)
                 for tag, row in zip(["th", *["td"] * len(self.cases)], rows, strict=True)]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>" if self.cases else ""

    def _data(self) -> str:
        """Attributes from which the page compares a reader's number; with a prediction, a noisy measurement
        is left out."""
        names = ("predicted", "measured")[-len(self.numbers):]
        numbers = zip(names, self.numbers[: 1 if self.noisy else 2], strict=False)
        return "".join(f' data-{name}="{number!r}"' for name, number in numbers)


def claim(id: str, statement: str, predicted: Any, measured: Any, *, unit: str = "",
          rtol: float = 0.0, atol: float = 0.0, at_most: float | None = None,
          at_least: float | None = None, control: dict[str, Any] | None = None, source: str = "",
          noisy: bool = False, digits: int = 4) -> None:
    """Compare a measurement with its prediction, show both, and raise if they disagree.

    Holds when ``|measured − predicted| ≤ atol + rtol·|predicted|`` for every element; with
    ``predicted=None``, when every element keeps ``at_most`` and ``at_least``. NaN never holds. A control is
    what is measured where the opposite is true: it must **not** hold, or the claim could not fail.

    Args:
        id: ``chNN-words``, unique in the book.
        predicted, measured: numbers, (nested) lists, numpy arrays or torch tensors; or two dictionaries
            {case: number} with the same keys, shown as a table.
        unit: printed after the numbers, for example ``"bytes"``.
        control: {what it is: its measurement}. A bound, and a tolerance above 5 %, must have one.
        source: where the prediction comes from: paper and equation, or the section deriving it.
        noisy: the measurement differs from run to run (time, memory); its verdict must not.
        digits: significant digits for floats. Integers are always printed in full.

    Raises:
        ClaimFailed: after showing the claim, when it does not hold or a control does.
        ValueError: when the claim is not well formed.
    """
    bounds = {k: b for k, b in (("at least", at_least), ("at most", at_most)) if b is not None}
    if not ID.fullmatch(id):
        raise ValueError(f"claim id {id!r}: use lower-case words such as 'ch01-gpt2-params'")
    if not statement.strip():
        raise ValueError(f"claim {id}: the statement is empty")
    if bounds and (predicted is not None or rtol or atol):
        raise ValueError(f"claim {id}: at_most and at_least are the prediction; "
                         "pass predicted=None and no rtol or atol")
    if not bounds and predicted is None:
        raise ValueError(f"claim {id}: give predicted, or at_most or at_least")
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
        raise ValueError(f"claim {id}: rtol and atol must be finite and at least 0")
    names = list(measured) if isinstance(measured, dict) else []
    if isinstance(predicted, dict) and list(predicted) != names:
        raise ValueError(f"claim {id}: predicted and measured must have the same cases in one order")
    got, shape = _numbers(id, "measured", measured)
    want, expected_shape = ([], shape) if bounds else _numbers(id, "predicted", predicted)
    if form.follows(re.sub(r"\D", "", id.partition("-")[0])):
        _check_form(id, [*want, *got], names, bool(bounds), rtol, atol, want, control)

    def holds(numbers: list, its_shape: tuple[int, ...]) -> bool:
        if bounds:
            return all(bounds.get("at least", -math.inf) <= n <= bounds.get("at most", math.inf)
                       for n in numbers)
        return its_shape == expected_shape and all(
            n == w or abs(n - w) <= atol + rtol * abs(w) < math.inf
            for w, n in zip(want, numbers, strict=True))

    controls = {name: _numbers(id, f"control {name!r}", value) for name, value in (control or {}).items()}
    idle = [name for name, (numbers, its_shape) in controls.items() if holds(numbers, its_shape)]
    tolerance = ""
    if bounds:
        said = " and ".join(f"{k} {_show([b], (), unit, digits)}" for k, b in bounds.items())
        difference = "inside the bound" if holds(got, shape) else "outside the bound"
    else:
        said = _show(want, expected_shape, unit, digits, names)
        if shape == expected_shape:
            difference, tolerance = _difference(want, got, rtol, atol, unit, noisy)
        else:
            difference = f"shapes {expected_shape} and {shape} differ"
    record = Claim(
        id=id, statement=statement, predicted=said, measured=_show(got, shape, unit, digits, names),
        difference=difference, tolerance=tolerance, holds=holds(got, shape) and not idle, noisy=noisy,
        source=source, guess=_guess(id, unit, digits), cases=_cases(
            names, want, got, lambda n: _show([n], (), unit, digits),
            lambda w, g: _difference([w], [g], rtol, atol, unit, noisy)[0], said),
        numbers=[*want, *got] if id in _ASKED and not shape else [],
        control=" · ".join(f"{name} {_show(*value, unit, digits)}" for name, value in controls.items()))
    if in_notebook():
        from IPython.display import display

        display({"text/plain": record.text(), "text/html": record.to_html()}, raw=True,
                metadata={METADATA_KEY: record.model_dump(exclude_defaults=True)})
    else:
        print(record.text(), flush=True)
    if idle:
        raise ClaimFailed(f"{record.text()} | the control {idle[0]!r} holds too: this claim cannot fail")
    if not record.holds:
        raise ClaimFailed(record.text())


def _check_form(id: str, numbers: list, names: list, bounded: bool, rtol: float, atol: float, want: list,
                control: dict | None) -> None:
    """What a claim must be in a chapter that follows the reading form."""
    if any(isinstance(n, bool) for n in numbers):
        raise ValueError(f"claim {id}: a box of truth values tells a reader nothing: give numbers, such as "
                         "how many of how many")
    per_side = len(numbers) // (1 if bounded else 2)
    if per_side > LONGEST_LIST and not names:
        raise ValueError(f"claim {id}: {per_side} numbers would be cut off: give {{case: number}} for a few "
                         "cases, or the largest difference")
    if len(names) > LONGEST_TABLE:
        raise ValueError(f"claim {id}: {len(names)} cases are more than a reader takes in: at most "
                         f"{LONGEST_TABLE}")
    wide = rtol > WIDEST or any(atol > WIDEST * abs(w) for w in want)
    if (bounded or wide) and not control:
        raise ValueError(f"claim {id}: a bound, and a tolerance above {WIDEST:.0%}, needs a control: "
                         "control={what it is: what is measured where the opposite is true}")


# ------------------------------------------------------------------- predict first


def predict(id: str, question: str, *, unit: str = "", mine: float | None = None) -> None:
    """Ask for the reader's number before claim ``id`` shows ours. With ``mine=None`` the notebook runs on.

    Raises ValueError when ``mine`` is not a number.
    """
    if not ID.fullmatch(id) or not question.strip():
        raise ValueError(f"predict {id!r}: give the id of a claim and a question")
    if mine is not None and (isinstance(mine, bool) or not isinstance(mine, int | float)):
        raise ValueError(f"predict {id}: mine is {mine!r}, give a number such as 1.5e9, or None")
    _ASKED[id] = mine
    tail = "Your number goes in place of None." if mine is None else f"You said {mine:,}."
    page = (f'<div class="labkit-ask" data-claim="{id}" data-unit="{html.escape(unit)}">'
            f"<b>Predict first.</b> {html.escape(question)}</div>")
    if in_notebook():
        from IPython.display import display

        display({"text/plain": f"Predict first: {question} {tail}", "text/html": page}, raw=True,
                metadata={ASK_KEY: {"id": id, "question": question, "unit": unit}})
    else:
        print(f"Predict first: {question} {tail}")


def _guess(id: str, unit: str, digits: int) -> str:
    mine = _ASKED.get(id)
    return "" if mine is None else _show([mine], (), unit, digits)


def _cases(names: list, want: list, got: list, show: Callable, apart: Callable, bound: str) -> list[Case]:
    """The rows of a claim's table; without a prediction the bound is every case's."""
    rows = []
    for i, name in enumerate(names):
        said, difference = bound, "–"
        if want:
            said, difference = show(want[i]), apart(want[i], got[i]).removeprefix("difference ")
        rows.append(Case(case=str(name), predicted=said, measured=show(got[i]), difference=difference))
    return rows


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _numbers(id: str, name: str, value: Any) -> tuple[list, tuple[int, ...]]:
    """Flat Python numbers (integers of any size stay exact) and the shape they had."""
    value = list(value.values()) if isinstance(value, dict) else value
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, int | float):
        return [value], ()
    if isinstance(value, list | tuple) and value:
        parts = [_numbers(id, name, v) for v in value]
        if len({shape for _, shape in parts}) == 1:
            return [n for flat, _ in parts for n in flat], (len(parts), *parts[0][1])
    raise ValueError(f"claim {id}: {name} must be a number or a rectangular array of numbers, "
                     f"not {type(value).__name__} {str(value)[:40]!r}")


def _difference(want: list, got: list, rtol: float, atol: float, unit: str,
                noisy: bool) -> tuple[str, str]:
    """(largest difference, tolerance) as they are printed: relative unless only atol is given."""
    pairs = list(zip(want, got, strict=True))
    limits = [f"{100 * rtol:.4g} %"] * bool(rtol) + [f"{atol:.4g} {unit}".rstrip()] * bool(atol)
    tolerance = "tolerance " + (" + ".join(limits) or "0")
    if all(isinstance(n, bool) for n in [*want, *got]):
        return ("equal" if want == got else "not equal"), tolerance
    if (atol and not rtol) or any(w == 0 != g for w, g in pairs):
        apart, limit, suffix = [abs(g - w) for w, g in pairs], atol, f" {unit}".rstrip()
    else:
        apart = [0 if g == w else 100 * abs((g - w) / w) for w, g in pairs]
        limit, suffix = 100 * rtol, " %"
    worst = max(apart, key=lambda a: math.inf if math.isnan(a) else a)
    word = "largest difference" if len(pairs) > 1 else "difference"
    rounded = worst > 0 or any(isinstance(n, float) for n in [*want, *got])
    if rounded and worst < limit / 10 and not noisy:
        # rounding differs between machines, and may be none on one of them: print its bound
        return f"{word} below {limit / 10:.1g}{suffix}", tolerance
    return f"{word} {_show([worst], (), '', 2)}{suffix}", tolerance


def _show(flat: list, shape: tuple[int, ...], unit: str, digits: int, names: list | None = None) -> str:
    def one(value: int | float) -> str:
        if isinstance(value, int):
            return str(value) if isinstance(value, bool) else f"{value:,}"
        text = f"{value:.{digits}g}"
        return f"{float(text):,.15g}" if 1e-3 <= abs(value) < 1e9 else text

    if names:
        text = " · ".join(f"{name} {one(n)}" for name, n in zip(names, flat, strict=True))
    elif not shape:
        text = one(flat[0])
    elif len(flat) <= LONGEST_LIST:
        text = f"[{', '.join(map(one, flat))}]"
    else:
        text = f"[{', '.join(map(one, flat[:6]))}, … {len(flat):,} values]"
    return f"{text} {unit}".rstrip()


def read_notebook(path: str | PathLike) -> list[Claim]:
    """The claims in a notebook's stored outputs, in order."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    stored = [output.get("metadata", {}) for cell in cells for output in cell.get("outputs", [])]
    return [Claim.model_validate(m[METADATA_KEY]) for m in stored if METADATA_KEY in m]
