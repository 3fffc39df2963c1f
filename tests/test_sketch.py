"""Schematics: alt text is required, nothing collides or leaves the page, text can be read in every look."""

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import browser
import nbformat
import notebooks
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from nbclient import NotebookClient

from labkit import sketch
from labkit.sketch import Box, Sketch

ALT = "A batch goes into the model, <which> gives a loss & more."
PAGES = {"light": ("#ffffff", "#222832"), "dark": ("#121212", "#ced6dd")}  # background, text: the book's
CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "chapters").glob("*.ipynb"))


def everything() -> Sketch:
    """A drawing that uses all there is."""
    s = Sketch()
    batch, model = s.row(["a batch", "模型 model"], 0, 0, 260, 44, "green", gap=70)
    held = s.bar(["0", "1", "2"], 0, 90, 96, held={1})
    note = s.text(0, 132, "a shard", "start")
    rank = s.frame("rank 0", *held, note, colour="blue")
    result = s.box(320, 0, 120, 44, "loss,\none number", "red", bold=True, dashed=True)
    s.arrow(batch, model, label="forward")
    s.arrow(model, result)
    s.arrow(result, (380, 110), rank, label="backward,\nthen update", side=-1, dashed=True)
    return s


def stored() -> dict[str, str]:
    """The schematics that the chapters show: {"chapter cell": SVG}."""
    cells = [(path.stem, cell) for path in CHAPTERS for cell in nbformat.read(path, 4).cells]
    shown = {f"{name} {cell.id}": "".join(out.get("data", {}).get("text/html", "")
                                          for out in cell.get("outputs", [])) for name, cell in cells}
    return {name: html for name, html in shown.items() if html.startswith('<svg class="labkit-sketch"')}


PICTURES = {"everything": everything().svg(ALT)} | stored()


def covered(svg: str) -> tuple[Box, list[Box], list[tuple[str, Box]], list[np.ndarray]]:
    """(view, boxes, texts with the room they take, points along each arrow) of a drawing."""
    root = ElementTree.fromstring(svg)
    boxes = [Box(*(float(e.get(k)) for k in ("x", "y", "width", "height"))) for e in root.iter("rect")]
    texts = []
    for e in root.iter("text"):
        width = sketch.text_width(e.text, e.get("font-weight") == "bold")
        left = float(e.get("x")) - width * {"start": 0, "middle": 0.5, "end": 1}[e.get("text-anchor")]
        texts.append((e.text, Box(left, float(e.get("y")) - sketch.SIZE, width, sketch.LINE)))
    lines = []
    for e in root.iter("path"):
        points = np.array([p.split(",") for p in e.get("d").strip("MZ").split()], dtype=float)
        lines += [np.linspace(a, b, 60) for a, b in itertools.pairwise(points)]
    return Box(*map(float, root.get("viewBox").split())), boxes, texts, lines


def inside(a: Box, b: Box, room: float = 0.01) -> bool:
    return (b.x - room <= a.x and a.x + a.w <= b.x + b.w + room
            and b.y - room <= a.y and a.y + a.h <= b.y + b.h + room)


def apart(a: Box, b: Box, room: float = 0.01) -> bool:
    return (a.x + a.w <= b.x + room or b.x + b.w <= a.x + room
            or a.y + a.h <= b.y + room or b.y + b.h <= a.y + room)


def faults(svg: str) -> list[str]:
    """What collides in a drawing, or leaves it."""
    view, boxes, texts, lines = covered(svg)
    found = [f"{name} leaves the view" for name, box in [*texts, *(("a box", b) for b in boxes)]
             if not inside(box, view)]
    found += [f"{a} and {b} overlap" for a, b in itertools.combinations(boxes, 2)
              if not (apart(a, b) or inside(a, b) or inside(b, a))]
    found += [f"{name!r} crosses the edge of {box}" for name, text in texts for box in boxes
              if not (apart(text, box) or inside(text, box))]
    found += [f"{a!r} lies on {b!r}" for (a, one), (b, other) in itertools.combinations(texts, 2)
              if not apart(one, other)]
    found += [f"an arrow runs through {name!r}" for name, text in texts for line in lines
              if any(not apart(Box(x, y), text, room=1) for x, y in line)]
    return found


def contrast(one, other) -> float:
    light = [np.dot([0.2126, 0.7152, 0.0722], [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                                               for c in colour]) for colour in (one, other)]
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_collides_or_leaves_the_drawing(name):
    assert faults(PICTURES[name]) == []


@pytest.mark.parametrize("name", PICTURES)
def test_text_has_ten_pixels_on_a_phone(name):
    view, *_ = covered(PICTURES[name])
    assert sketch.SIZE * min(1, 340 / view.w) >= 10


def test_the_faults_are_found():
    s = Sketch()
    s.box(0, 0, 60, 30, "left")
    s.box(50, 10, 60, 30)
    s.text(30, 30, "over")
    s.arrow((-20, 15), (0, 15))
    s.arrow((0, 60), (80, 60), label="label")
    s.arrow((40, 40), (40, 58))
    cut = s.svg(ALT).replace('viewBox="-22 ', 'viewBox="20 ')
    said = "\n".join(faults(cut))
    for what in ("overlap", "'over' crosses", "'left' lies on 'over'", "a box leaves", "through 'label'"):
        assert what in said


@pytest.mark.parametrize("opacity", [sketch.TINT, sketch.HELD])
@pytest.mark.parametrize("page", PAGES)
def test_text_on_every_colour_can_be_read(page, opacity):
    background, text = map(to_rgb, PAGES[page])
    for colour in sketch.COLOURS.values():
        behind = opacity * np.array(to_rgb(colour)) + (1 - opacity) * np.array(background)
        assert contrast(behind, text) >= 4.5  # WCAG 2, AA


def test_the_page_gives_the_colour_of_text_and_lines():
    svg = everything().svg(ALT)
    root = ElementTree.fromstring(svg)
    assert root.get("fill") == "currentColor" and not root.get("font-family")
    assert not any(e.get("fill") or e.get("stroke") for e in root.iter("text"))
    colours = set(sketch.COLOURS.values()) | {"currentColor", None}
    assert {e.get("stroke") for e in root.iter()} <= colours
    assert "id=" not in svg  # several drawings may stand on a page


def test_a_box_refuses_a_text_that_is_too_large():
    s = Sketch()
    for text, bold, height in [("gradients", True, 30), ("one\ntwo", False, 30), ("梯度" * 4, False, 30)]:
        with pytest.raises(ValueError, match="too large for 80 × 30"):
            s.box(0, 0, 80, height, text, bold=bold)
    assert s.box(0, 0, 80, 30, "gradient") == (0, 0, 80, 30)


def test_a_drawing_must_fit_a_phone():
    s = Sketch()
    s.row(["a", "b"], 0, 0, 500)
    with pytest.raises(ValueError, match="500 units wide, more than 456"):
        s.show(ALT)


@pytest.mark.parametrize("alt", ["", "a figure", " " * 40])
def test_alt_text_is_required(alt):
    with pytest.raises(ValueError, match="says too little"):
        everything().show(alt)


@pytest.mark.parametrize("stops, ends", [
    ([(0, 0, 40, 20), (100, 0, 40, 20)], (40 + 10j, 100 + 10j)),  # side by side
    ([(100, 0, 40, 20), (0, 10, 40, 20)], (100 + 15j, 40 + 15j)),  # at the height they share
    ([(0, 80, 90, 20), (30, 0, 200, 20)], (60 + 80j, 60 + 20j)),  # upwards
    ([(0, 0, 40, 20), (60, 100, 40, 20)], (20 + 20j, 80 + 100j)),  # across the wider gap
    ([(0, 0, 40, 20), (20, 90)], (20 + 20j, 20 + 90j)),  # to a point
])
def test_arrows_leave_and_arrive_at_edges(stops, ends):
    assert sketch._ends(*(Box(*stop) for stop in stops)) == ends


def test_two_drawings_are_byte_identical():
    assert everything().svg(ALT) == everything().svg(ALT)


def test_outside_a_notebook_the_alt_text_is_printed(capsys):
    assert everything().show(ALT) is None
    assert capsys.readouterr().out == f"Figure: {ALT}\n"


def test_without_trust_a_notebook_shows_the_alt_text():
    """JupyterLab's sanitizer drops SVG tags and CDATA, and keeps other text."""
    left = re.sub(r"<!\[CDATA\[.*?\]\]>|<[^>]*>", "", everything().svg("What a batch goes through."))
    assert left == "Figure: What a batch goes through."


def test_a_notebook_carries_drawing_and_alt_text():
    code = ("from labkit.sketch import Sketch\n"
            "s = Sketch()\n"
            "s.box(0, 0, 80, 30, 'model')\n"
            "s.show('One box that says \"model\".')")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(book, timeout=600).execute()
    (output,) = notebooks.normalise(book).cells[0].outputs
    assert output.metadata == {"labkit_alt": 'One box that says "model".'}
    assert output.data["text/plain"] == 'Figure: One box that says "model".'
    root = ElementTree.fromstring(output.data["text/html"])
    assert (root.get("role"), root.get("aria-label")) == ("img", 'One box that says "model".')
    assert book.cells[0].metadata["mystnb"]["image"]["alt"] == 'One box that says "model".'


@pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())
def test_no_text_is_wider_in_a_browser_than_reckoned():
    texts = [(e.text, e.get("font-weight") == "bold") for svg in PICTURES.values()
             for e in ElementTree.fromstring(svg).iter("text")]
    with browser.browser() as chromium, browser.page(chromium) as tab:
        tab.set_content('<body style="font-family: system-ui, sans-serif">' + "".join(PICTURES.values()))
        found = tab.eval_on_selector_all("svg text", "all => all.map(text => text.getBBox().width)")
    assert len(found) == len(texts)
    for (text, bold), width in zip(texts, found, strict=True):
        assert width <= 1.02 * sketch.text_width(text, bold) + 1, text
