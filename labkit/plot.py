"""One look for all figures: readable in colour blindness, in dark mode, and by a screen reader."""

import base64
import html
import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from labkit.claims import in_notebook

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), those that read on white first.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_CJK = ["Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
        "WenQuanYi Zen Hei", "PingFang SC", "Heiti SC", "Microsoft YaHei", "SimHei"]
_STYLE = {
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.grid": True, "grid.color": "#E0E0E0", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "font.size": 10, "lines.linewidth": 1.8, "legend.frameon": False,
    "figure.facecolor": "white", "savefig.facecolor": "white", "image.cmap": "cividis",
}
DPI = 120
WIDGET = "application/vnd.jupyter.widget-view+json"


def figure(width: float = 6.4, height: float = 3.6, **subplots: Any) -> tuple[Figure, Any]:
    """A figure in the book's style and its axes (an array of them with ``nrows`` or ``ncols``).

    ``width`` and ``height`` in inches; the rest goes to ``Figure.subplots``.
    """
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *[name for name in _CJK if name in installed][:1]]
    mpl.rcParams.update(_STYLE | {"font.family": fonts})
    fig = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return fig, fig.subplots(**subplots)


def label_lines(ax: Axes) -> None:
    """Write each line's label at its right end, in its colour, instead of a legend."""
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
    _draw_layout(ax.figure)
    points = [ax.transData.transform((ln.get_xdata()[-1], ln.get_ydata()[-1])) for ln in lines]
    gap = 1.25 * mpl.rcParams["font.size"] * ax.figure.dpi / 72  # pixels between two labels
    below = float("-inf")
    for (_, y), line in sorted(zip(points, lines, strict=True), key=lambda pair: pair[0][1]):
        below = max(y, below + gap)
        shift = (below - y) * 72 / ax.figure.dpi
        end = (line.get_xdata()[-1], line.get_ydata()[-1])
        ax.annotate(line.get_label(), end, xytext=(6, shift), textcoords="offset points",
                    color=_readable(line.get_color()), va="center", annotation_clip=False)


def show(fig: Figure, alt: str) -> None:
    """Display the figure as a PNG with its alternative text: what a reader should see in it.

    Raises:
        ValueError: when ``alt`` has fewer than 20 characters.
    """
    for ax in fig.axes:
        if ax.images:
            ax.grid(False)  # a grid over a heat map hides it
    png, width = _png(fig)
    fig.clear()
    _display(png, width, alt)


def sliders(draw: Callable[..., Figure], alt: str, **choices: list | tuple[list, Any]) -> None:
    """Display the figure that ``draw(**values)`` returns, with a slider for each of its arguments.

    ``choices`` lists what an argument may be, as values or as pairs (label, value); a tuple
    ``(list, start)`` begins elsewhere than with the first. JupyterLab shows the sliders; a stored
    notebook and the book keep the still picture of the start, which ``alt`` describes.
    """
    from ipywidgets import HTML, SelectionSlider, VBox

    controls = {}
    for name, choice in choices.items():
        options, *start = choice if isinstance(choice, tuple) else (choice,)
        controls[name] = SelectionSlider(options=options, continuous_update=False,
                                         description=name.replace("_", " "),
                                         style={"description_width": "8em"})
        if start:
            controls[name].value = start[0]
    png, width = _png(draw(**{name: control.value for name, control in controls.items()}))
    picture = HTML()

    def redraw(change: Any = None) -> None:
        data, now = png, alt
        if change is not None:
            data, _ = _png(draw(**{name: control.value for name, control in controls.items()}))
            now = ", ".join(f"{c.description} {c.label}" for c in controls.values())
        picture.value = (f'<img width="{width}" alt="{html.escape(now)}" '
                         f'src="data:image/png;base64,{base64.b64encode(data).decode()}">')

    redraw()
    for control in controls.values():
        control.observe(redraw, "value")
    _display(png, width, alt, VBox([*controls.values(), picture]))


def _display(png: bytes, width: int, alt: str, live: Any = None) -> None:
    """One output: the picture, and the widget that takes its place where widgets can live."""
    if len(alt.strip()) < 20:
        raise ValueError(f"alt={alt!r} says too little: tell in a sentence what the figure shows")
    if not in_notebook():
        print(f"Figure: {alt}")
        return
    from IPython.display import display

    data = {"image/png": base64.b64encode(png).decode(), "text/plain": f"Figure: {alt}"}
    if live is not None:
        data[WIDGET] = {"model_id": live.model_id, "version_major": 2, "version_minor": 0}
    display(data, raw=True, metadata={"labkit_alt": alt, "image/png": {"width": width}})


def _readable(color: Any) -> tuple[float, ...]:
    """The colour, darkened until text in it has a contrast of 4.5 to 1 on white (WCAG 2, AA)."""
    rgb = mpl.colors.to_rgb(color)

    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    while 1.05 / (luminance(rgb) + 0.05) < 4.5:
        rgb = tuple(0.97 * c for c in rgb)
    return rgb


def _draw_layout(fig: Figure) -> None:
    with warnings.catch_warnings():
        # Without a Chinese font a box stands for a character; a warning for each helps no one.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fig.draw_without_rendering()


def _png(fig: Figure) -> tuple[bytes, int]:
    """(PNG with at most 64 colours, which makes it small; its width in CSS pixels)."""
    full, small = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fig.savefig(full, format="png", dpi=DPI)
    image = Image.open(full).convert("RGB")
    image = image.quantize(64, method=Image.Quantize.MAXCOVERAGE, kmeans=3)  # keeps rare colours
    image.save(small, format="png", optimize=True)
    return small.getvalue(), round(image.width * 96 / DPI)
