"""Schematics in one style: inline SVG in the page's own text colour, for light, dark and print."""

import html
from itertools import pairwise
from typing import NamedTuple
from unicodedata import east_asian_width

from matplotlib import font_manager
from PIL import ImageFont

from labkit.claims import in_notebook
from labkit.plot import PALETTE

WIDTH, SIZE, LINE = 460, 14, 18  # at most, so that a phone shows text of SIZE in 10 pixels; line to line
COLOURS = dict(zip(("blue", "red", "green", "pink", "orange", "sky"), PALETTE, strict=False))
TINT, HELD = 0.25, 0.45  # how much of its colour a box has behind its text; a part that is held
DASHES = ' stroke-dasharray="5 4"'


class Box(NamedTuple):
    """What a thing covers, in units; a point has no size."""

    x: float
    y: float
    w: float = 0
    h: float = 0


class Sketch:
    """A drawing as large as what is in it; x runs to the right, y down, in units.

    A colour is a key of ``COLOURS``. Arrows join, and frames enclose, what the other methods return.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.covered: list[Box] = []

    def box(self, x: float, y: float, w: float, h: float, text: str = "", colour: str = "", *,
            bold: bool = False, dashed: bool = False, fill: float = TINT) -> Box:
        """A box with a text in its middle. Raises ValueError when the text is too large for it."""
        if text and (text_width(text, bold) + 8 > w or (text.count("\n") + 1) * LINE > h):
            raise ValueError(f"{text!r}, {text_width(text, bold):.0f} wide, is too large for {w:g} × {h:g}")
        paint, fill = (COLOURS[colour], fill) if colour else ("currentColor", 0)
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="3" fill="{paint}" '
                          f'fill-opacity="{fill:g}" stroke="{paint}"{DASHES * dashed}/>')
        self.covered.append(Box(x, y, w, h))
        if text:
            self.text(x + w / 2, y + h / 2, text, bold=bold)
        return Box(x, y, w, h)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", *, bold: bool = False) -> Box:
        """Text with its middle at height ``y``, and its "start", "middle" or "end" at ``x``."""
        lines, w, weight = text.split("\n"), text_width(text, bold), ' font-weight="bold"' * bold
        left, top = {"start": x, "middle": x - w / 2, "end": x - w}[anchor], y - len(lines) * LINE / 2
        self.parts += [f'<text x="{x:g}" y="{top + i * LINE + SIZE:g}" text-anchor="{anchor}"{weight}>'
                       f"<![CDATA[{line}]]></text>" for i, line in enumerate(lines)]
        self.covered.append(Box(left, top, w, len(lines) * LINE))
        return self.covered[-1]

    def row(self, texts: list[str], x: float, y: float, w: float, h: float = 28, colour: str = "", *,
            gap: float = 16) -> list[Box]:
        """Boxes of equal width, ``gap`` apart, ``w`` wide together."""
        step = (w + gap) / len(texts)
        return [self.box(x + i * step, y, step - gap, h, text, colour) for i, text in enumerate(texts)]

    def bar(self, texts: list[str], x: float, y: float, w: float, h: float = 28, colour: str = "blue", *,
            held: set[int] = frozenset()) -> list[Box]:
        """A tensor cut into equal parts; those whose numbers are in ``held`` are there, the others not."""
        w /= len(texts)
        return [self.box(x + i * w, y, w, h, t, colour, fill=HELD * (i in held)) for i, t in enumerate(texts)]

    def frame(self, title: str, *things: Box, colour: str = "") -> Box:
        """A dashed frame around things already drawn, such as what a rank holds, and its title in it."""
        x, y, w, h = _around(things)
        head = self.text(x, y - 15, title, "start", bold=True)
        return self.box(x - 10, y - 32, max(w, head.w) + 20, h + 42, "", colour, dashed=True, fill=0)

    def arrow(self, *stops: Box | tuple, label: str = "", side: int = 1, dashed: bool = False) -> None:
        """From box or point (x, y) to the next; level or upright where two of them face each other.

        The label is above the longest stretch, right of an upright one; ``side=-1``: below, or left.
        """
        ends = [_ends(Box(*a), Box(*b)) for a, b in pairwise(stops)]
        path = [ends[0][0], *(end for _, end in ends)]  # complex numbers: they turn when multiplied
        self.covered += [Box(p.real, p.imag) for p in path]
        tip, way = path[-1], (path[-1] - path[-2]) / abs(path[-1] - path[-2])
        line, head = [*path[:-1], tip - 7 * way], [tip, tip - (9 - 4j) * way, tip - (9 + 4j) * way]
        self.parts += [f'<path d="M{_points(line)}" fill="none" stroke="currentColor"{DASHES * dashed}/>',
                       f'<path d="M{_points(head)}Z"/>']
        a, b = max(pairwise(path), key=lambda stretch: abs(stretch[1] - stretch[0]))
        x, y, lines = (a + b).real / 2, (a + b).imag / 2, label.count("\n") + 1
        if label and abs((b - a).imag) > abs((b - a).real):
            self.text(x + 8 * side, y, label, "start" if side > 0 else "end")
        elif label:
            self.text(x, y - side * (4 + LINE / 2 * lines), label)

    def svg(self, alt: str) -> str:
        """The drawing as HTML. Raises ValueError when it is too wide or ``alt`` says too little."""
        if len(alt.strip()) < 20:
            raise ValueError(f"alt={alt!r} says too little: tell in a sentence what the figure shows")
        x, y, w, h = _around(self.covered)
        if w > WIDTH - 4:
            raise ValueError(f"the drawing is {w:g} units wide, more than {WIDTH - 4}: stack its parts")
        alt = html.escape(alt)
        # JupyterLab takes tags and CDATA out of an untrusted notebook's SVG: the metadata remain, as text.
        return (f'<svg class="labkit-sketch" role="img" aria-label="{alt}" width="{w + 4:g}" '
                f'viewBox="{x - 2:g} {y - 2:g} {w + 4:g} {h + 4:g}" style="max-width:100%;height:auto" '
                f'font-size="{SIZE}" fill="currentColor" stroke-width="1.5">'
                f'<metadata>Figure: {alt}</metadata>{"".join(self.parts)}</svg>')

    def show(self, alt: str) -> None:
        """Display the drawing with ``alt``, what a reader should see in it. ValueError as in ``svg``."""
        svg, plain = self.svg(alt), f"Figure: {alt}"
        if in_notebook():
            from IPython.display import display

            display({"text/html": svg, "text/plain": plain}, raw=True, metadata={"labkit_alt": alt})
        else:
            print(plain)


def text_width(text: str, bold: bool = False) -> float:
    """Units that the longest line takes in DejaVu Sans, which is wider than most fonts of a page."""
    face = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    font = ImageFont.truetype(font_manager.findfont(face), 1000, layout_engine=ImageFont.Layout.BASIC)
    return max(sum(SIZE if east_asian_width(c) in "WF" else SIZE * font.getlength(c) / 1000 for c in line)
               for line in text.split("\n"))


def _around(boxes: list[Box] | tuple[Box, ...]) -> Box:
    x, y = min(b.x for b in boxes), min(b.y for b in boxes)
    return Box(x, y, max(b.x + b.w for b in boxes) - x, max(b.y + b.h for b in boxes) - y)


def _ends(a: Box, b: Box) -> tuple[complex, complex]:
    """Where an arrow leaves ``a`` and meets ``b``: across the wider gap, in the middle of what they share."""
    shared = [(max(a[i], b[i]), min(a[i] + a[i + 2], b[i] + b[i + 2])) for i in (0, 1)]
    along = int(shared[1][0] - shared[1][1] > shared[0][0] - shared[0][1])  # 0: sideways, 1: up or down
    ends, (low, high) = [], shared[1 - along]
    for one, other in ((a, b), (b, a)):
        edge = one[along] + one[along + 2] * (one[along] < other[along])
        middle = (low + high) / 2 if low <= high else one[1 - along] + one[3 - along] / 2
        ends.append(complex(middle, edge) if along else complex(edge, middle))
    return ends[0], ends[1]


def _points(path: list[complex]) -> str:
    return " ".join(f"{p.real:.4g},{p.imag:.4g}" for p in path)
