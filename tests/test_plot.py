"""Figures: alt text is required, colours are told apart, files stay small."""

import base64
import io
import itertools
import warnings

import nbformat
import notebooks
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from PIL import Image

from labkit import plot


def curves(labels=("first", "second", "third")):
    fig, ax = plot.figure()
    for i, label in enumerate(labels):
        ax.plot(np.arange(50), 100 / (1 + np.arange(50)) + 0.1 * i, label=label)
    return fig, ax


def contrast(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 1.05 / (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05)


@pytest.mark.parametrize("alt", ["", "a figure", " " * 40])
def test_alt_text_is_required(alt):
    fig, _ = curves()
    with pytest.raises(ValueError, match="says too little"):
        plot.show(fig, alt)


def test_outside_a_notebook_the_alt_text_is_printed(capsys):
    fig, _ = curves()
    assert plot.show(fig, "Three curves fall and flatten.") is None
    assert capsys.readouterr().out == "Figure: Three curves fall and flatten.\n"


def test_a_figure_is_small_and_sharp():
    fig, ax = curves()
    plot.label_lines(ax)
    png, width = plot._png(fig)
    image = Image.open(io.BytesIO(png))
    assert len(png) <= 40_000
    assert image.width >= 1.2 * width and 500 <= width <= 700


def test_two_drawings_are_byte_identical():
    assert plot._png(curves()[0]) == plot._png(curves()[0])


def test_labels_do_not_overlap_and_can_be_read():
    fig, ax = curves([f"line {i}" for i in range(6)])
    plot.label_lines(ax)
    assert [t.get_text() for t in ax.texts] == [f"line {i}" for i in range(6)]
    fig.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))
    assert all(contrast(t.get_color()) >= 4.5 for t in ax.texts)
    assert all(b.x0 >= 0 and b.x1 <= fig.bbox.width for b in boxes)


def test_chinese_never_warns():
    fig, ax = curves(["语言模型", "second"])
    ax.set_title("困惑度")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.label_lines(ax)
        plot.show(fig, "Two curves with Chinese labels.")


def test_palette_keeps_apart_for_the_colour_blind():
    # Viénot, Brettel and Mollon (1999): what a protanope and a deuteranope see, in linear RGB.
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    colours = np.array([to_rgb(c) for c in plot.PALETTE]) ** 2.2
    for matrix in (np.eye(3), protan, deutan):
        seen = np.clip(colours @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
        assert apart[~np.eye(len(seen), dtype=bool)].min() > 0.12


def test_a_notebook_carries_picture_and_alt_text():
    code = (
        "from labkit import plot\n"
        "fig, ax = plot.figure(ncols=2)\n"
        "ax[0].imshow([[1, 2], [3, 4]])\n"
        "plot.show(fig, 'A heat map beside an empty plot.')"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(book, timeout=600).execute()
    (output,) = book.cells[0].outputs
    assert output.metadata["labkit_alt"] == "A heat map beside an empty plot."
    assert output.data["text/plain"].endswith("A heat map beside an empty plot.")
    assert Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).format == "PNG"


def test_sliders_have_a_live_and_a_still_side():
    code = (
        "from labkit import plot\n"
        "def draw(power, scale):\n"
        "    fig, ax = plot.figure()\n"
        "    ax.plot([scale * x**power for x in range(9)])\n"
        "    return fig\n"
        "plot.sliders(draw, 'A rising curve, bent upwards.',\n"
        "             power=[('line', 1), ('bowl', 2)], scale=([1, 5], 5))"
    )
    look = (
        "import warnings\n"
        "from ipywidgets import HTML, SelectionSlider, Widget\n"
        "warnings.simplefilter('ignore')  # Widget.widgets is deprecated\n"
        "sliders = [w for w in Widget.widgets.values() if isinstance(w, SelectionSlider)]\n"
        "(picture,) = [w for w in Widget.widgets.values() if isinstance(w, HTML)]\n"
        "before = picture.value\n"
        "sliders[0].value = 2\n"
        "print([s.description for s in sliders], picture.value != before, 'A rising' in before)"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (code, look)])
    NotebookClient(book, timeout=600).execute()
    (output,) = book.cells[0].outputs
    assert {"image/png", plot.WIDGET} <= set(output.data)
    assert output.metadata["labkit_alt"] == "A rising curve, bent upwards."
    assert book.cells[1].outputs[0].text == "['power', 'scale'] True True\n"
    stored = notebooks.normalise(book).cells[0]
    assert "image/png" in stored.outputs[0].data and plot.WIDGET not in stored.outputs[0].data
    assert stored.metadata["mystnb"]["image"]["alt"] == "A rising curve, bent upwards."


def test_sliders_need_alt_text_too():
    with pytest.raises(ValueError, match="says too little"):
        plot.sliders(lambda power: curves()[0], "a figure", power=[1, 2])
