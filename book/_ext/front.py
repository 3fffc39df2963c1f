"""The picture of the front pages, drawn from Lab 7's record of a run on four processes.

``python book/_ext/front.py`` writes ``book/_static/front.svg``: GitHub and the landing page show the same
file. It is drawn without a plotting library, so that its bytes are the same on every machine.
"""

import html
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RECORD = ROOT / "labs" / "lab07_every_way" / "recorded" / "cpu-4ranks.json"
PICTURE = ROOT / "book" / "_static" / "front.svg"
WAYS = {
    "zero0": ("Data parallel", "each process holds all"), "zero1": ("ZeRO stage 1", "divides the optimizer"),
    "zero2": ("ZeRO stage 2", "and gradients sooner"), "zero3": ("ZeRO stage 3", "and the weights"),
    "pp4": ("Pipeline", "divides the layers"), "tp4": ("Tensor parallel", "divides each matrix"),
}
BLUE = "#0072B2"  # labkit.plot.PALETTE's first
WIDTH, TOP, ROW, BAR = 460, 70, 41, 8  # units: the picture's width, the first row, a row's height, a bar's
LEFT, RIGHT, LOSS = 158, 306, 446  # units: the bars' two ends, the right end of the losses


def rows() -> list[dict[str, Any]]:
    """The rows of ``WAYS``, as Lab 7 recorded them: states in bytes, one number a process."""
    recorded = {row["way"]: row for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]}
    return [recorded[way] for way in WAYS]


def megabytes(row: dict[str, Any]) -> str:
    """What the fullest process holds."""
    return f"{max(row['states']) / 1e6:.2f} MB"


def alt(found: list[dict[str, Any]]) -> str:
    """What a reader should see in the picture."""
    names = [name for name, _ in WAYS.values()]
    held = ", ".join(f"{name} {megabytes(row)}" for name, row in zip(names, found, strict=True))
    return (f"Memory of the fullest of four processes, measured: {held}. Every prediction lies at the end of "
            "its bar, and all six runs end with the same loss.")


def text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{html.escape(words)}</text>'


def bars(row: dict[str, Any], y: float, scale: float) -> list[str]:
    """One bar a process, as long as its bytes; a tick where the prediction is."""
    drawn = []
    for i, (held, predicted) in enumerate(zip(row["states"], row["predicted_states"], strict=True)):
        top, end = y + i * BAR, LEFT + predicted * scale
        drawn += [f'<rect x="{LEFT}" y="{top}" width="{held * scale:.1f}" height="{BAR - 2}" fill="{BLUE}" '
                  'fill-opacity="0.75"/>',
                  f'<rect x="{end - 1:.1f}" y="{top - 1}" width="2" height="{BAR}"/>']
    return drawn


def draw(found: list[dict[str, Any]]) -> str:
    """The picture as SVG, on a white card that reads in dark mode, too."""
    most, height, small = max(max(row["states"]) for row in found), TOP + len(found) * ROW, 'font-size="11"'
    scale = (RIGHT - LEFT) / most
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="DejaVu Sans, Verdana, Helvetica, sans-serif" font-size="12">',
        f"<title>{html.escape(alt(found))}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff"/>',
        text(12, 25, "One model, trained in six ways by four processes", 'font-size="15" font-weight="bold"'),
        text(LEFT, 53, "bars: memory of each, ticks: predicted", small),
        text(LOSS, 53, "last loss", f'{small} text-anchor="end"'),
    ]
    for i, (row, (name, does)) in enumerate(zip(found, WAYS.values(), strict=True)):
        y = TOP + i * ROW
        lines += [text(12, y + 11, name, 'font-weight="bold"'), text(12, y + 26, does, small),
                  *bars(row, y, scale),
                  text(LEFT + max(row["states"]) * scale + 7, y + 2 * BAR + 3, megabytes(row)),
                  text(LOSS, y + 2 * BAR + 3, f"{row['final_loss']:.4f}", 'text-anchor="end"')]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(rows()), encoding="utf-8")
