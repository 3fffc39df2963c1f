"""Predict, then measure: every claim of the book is stated with a number and compared with one."""

import html
import json
import math
import re
import sys
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import BaseModel

ID = re.compile(r"[a-z]+[0-9]*(-[a-z0-9]+)+")
METADATA_KEY = "labkit_claim"


class ClaimFailed(AssertionError):
    """A measurement that lies outside its claim's tolerance or bound."""


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

    def text(self) -> str:
        """One line; what changes from run to run stands inside ``⟨this run: …⟩``."""
        verdict = "holds" if self.holds else "FAILS"
        found = f"measured {self.measured} | {self.difference}"
        found = f"⟨this run: {found}⟩" if self.noisy else found
        tolerance = f" ({self.tolerance})" if self.tolerance else ""
        said = f"claim {self.id} {verdict}: {self.statement} | predicted {self.predicted}"
        return f"{said} | {found}{tolerance}"

    def to_html(self) -> str:
        """The same as a box. Only its edge is coloured: text keeps the page's own colours."""
        c = self.model_copy(update={k: html.escape(v) for k, v in self if isinstance(v, str)})
        verdict, edge = ("✓ holds", "#009E73") if c.holds else ("✗ FAILS", "#D55E00")
        found = f"measured <b>{c.measured}</b> · {c.difference}"
        found = f"⟨this run: {found}⟩" if c.noisy else found
        tolerance = f" ({c.tolerance})" if c.tolerance else ""
        source = f"<br><small>prediction from: {c.source}</small>" if c.source else ""
        return (
            f'<div class="labkit-claim" id="{c.id}" style="border:1px solid {edge};'
            f'border-left-width:5px;border-radius:4px;padding:.4em .8em;margin:.3em 0;'
            f'line-height:1.5">'
            f"<b>{verdict}</b> · {c.statement} "
            f'<small style="font-family:monospace">{c.id}</small><br>'
            f"predicted <b>{c.predicted}</b> · {found}{tolerance}{source}</div>"
        )


def claim(id: str, statement: str, predicted: Any, measured: Any, *, unit: str = "",
          rtol: float = 0.0, atol: float = 0.0, at_most: float | None = None,
          at_least: float | None = None, source: str = "", noisy: bool = False,
          digits: int = 4) -> None:
    """Compare a measurement with its prediction, show both, and raise if they disagree.

    Holds when ``|measured − predicted| ≤ atol + rtol·|predicted|`` for every element; with
    ``predicted=None``, when every element keeps ``at_most`` and ``at_least``. NaN never holds.

    Args:
        id: ``chNN-words``, unique in the book.
        predicted, measured: numbers, booleans, or (nested) lists, numpy arrays or torch tensors.
        unit: printed after the numbers, for example ``"bytes"``.
        source: where the prediction comes from: paper and equation, or the section deriving it.
        noisy: the measurement differs from run to run (time, memory); its verdict must not.
        digits: significant digits for floats. Integers are always printed in full.

    Raises:
        ClaimFailed: after showing the claim, when it does not hold.
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
    got, shape = _numbers(id, "measured", measured)
    tolerance = ""
    if bounds:
        low, high = bounds.get("at least", -math.inf), bounds.get("at most", math.inf)
        said = " and ".join(f"{k} {_show([b], (), unit, digits)}" for k, b in bounds.items())
        holds = all(low <= g <= high for g in got)
        difference = "inside the bound" if holds else "outside the bound"
    else:
        want, expected_shape = _numbers(id, "predicted", predicted)
        said = _show(want, expected_shape, unit, digits)
        if shape == expected_shape:
            holds = all(g == w or abs(g - w) <= atol + rtol * abs(w) < math.inf
                        for w, g in zip(want, got, strict=True))
            difference, tolerance = _difference(want, got, rtol, atol, unit, noisy)
        else:
            holds, difference = False, f"shapes {expected_shape} and {shape} differ"
    record = Claim(id=id, statement=statement, predicted=said,
                   measured=_show(got, shape, unit, digits), difference=difference,
                   tolerance=tolerance, holds=holds, noisy=noisy, source=source)
    if in_notebook():
        from IPython.display import display

        display({"text/plain": record.text(), "text/html": record.to_html()}, raw=True,
                metadata={METADATA_KEY: record.model_dump()})
    else:
        print(record.text(), flush=True)
    if not holds:
        raise ClaimFailed(record.text())


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _numbers(id: str, name: str, value: Any) -> tuple[list, tuple[int, ...]]:
    """Flat Python numbers (integers of any size stay exact) and the shape they had."""
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
    if 0 < worst < limit / 10 and not noisy:  # rounding differs between machines: print its bound
        return f"{word} below {limit / 10:.1g}{suffix}", tolerance
    return f"{word} {_show([worst], (), '', 2)}{suffix}", tolerance


def _show(flat: list, shape: tuple[int, ...], unit: str, digits: int) -> str:
    def one(value: int | float) -> str:
        if isinstance(value, int):
            return str(value) if isinstance(value, bool) else f"{value:,}"
        text = f"{value:.{digits}g}"
        return f"{float(text):,.15g}" if 1e-3 <= abs(value) < 1e9 else text

    if not shape:
        text = one(flat[0])
    elif len(flat) <= 8:
        text = f"[{', '.join(map(one, flat))}]"
    else:
        text = f"[{', '.join(map(one, flat[:6]))}, … {len(flat):,} values]"
    return f"{text} {unit}".rstrip()


def read_notebook(path: str | PathLike) -> list[Claim]:
    """The claims in a notebook's stored outputs, in order."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    stored = [output.get("metadata", {}) for cell in cells for output in cell.get("outputs", [])]
    return [Claim.model_validate(m[METADATA_KEY]) for m in stored if METADATA_KEY in m]
