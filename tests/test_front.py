"""The front pages say what is so: the picture is the record's, and each figure is the same on every page."""

import re
import sys
from pathlib import Path

import pytest

from labkit import form, install, plot

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven"]

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import front  # noqa: E402


def page(name: str) -> str:
    """A page's words, with one space between them."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


PAGES = {name: page(name) for name in ("README.md", "book/index.md", "book/howto.md", "book/outline.md")}


@pytest.fixture(scope="module")
def hours() -> list[tuple[float, float]]:
    """(hours to read, hours for the exercises) of each chapter, depth included."""
    chapters = [form.read(path) for path in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))]
    return [((form.minutes(c.main) + form.minutes(c.depth)) / 60,
             sum(form.exercises(c.main + c.depth).values()) / 60) for c in chapters]


def test_the_picture_is_the_record_s():
    """``python book/_ext/front.py`` draws it anew."""
    drawn = front.PICTURE.read_text(encoding="utf-8")
    assert drawn == front.draw(front.rows())
    assert len(drawn) < 60_000 and front.BLUE in plot.PALETTE


def test_what_the_picture_says_is_so():
    rows = front.rows()
    assert all(row["states"] == row["predicted_states"] and len(row["states"]) == 4 for row in rows)
    assert len({f"{row['final_loss']:.4f}" for row in rows}) == 1


@pytest.mark.parametrize("name", ["README.md", "book/index.md"])
def test_the_pages_describe_the_picture(name):
    assert front.alt(front.rows()) in PAGES[name]


def test_every_page_asks_for_the_same_memory_and_disk():
    said = {name: set(re.findall(r"([\d.]+) GB of (?:free )?(\w+)", text)) for name, text in PAGES.items()}
    assert set().union(*said.values()) == {
        ("8", "memory"), (str(install.NEEDS_GB), "disk"), (str(install.NEEDS_GB_CUDA), "disk"),
        ("2.5", "download"),
    }
    assert all(("8", "memory") in said[name] for name in PAGES if name != "book/outline.md")


@pytest.mark.parametrize("name", ["README.md", "book/index.md"])
def test_the_hours_of_a_chapter(name, hours):
    reading, doing = ([max(1, round(h)) for h in kind] for kind in zip(*hours, strict=True))
    assert f"{NUMBERS[min(reading)]} to {NUMBERS[max(reading)]} hours to read" in PAGES[name]
    assert f"{NUMBERS[min(doing)]} or {NUMBERS[max(doing)]}" in PAGES[name].split("hours to read")[1][:40]


def test_the_hours_of_all_chapters(hours):
    (said,) = re.findall(r"the (\w+) that stand about (\d+) hours", PAGES["README.md"])
    assert said[0] == NUMBERS[len(hours)]
    assert float(said[1]) == pytest.approx(sum(map(sum, hours)), rel=0.1)


def test_chapters_that_do_not_have_the_form_are_named():
    names = re.findall(r"Chapters ([\d, and]+) were written before it", PAGES["book/howto.md"])
    named = {f"{int(number):02d}" for text in names for number in re.findall(r"\d+", text)}
    assert named == form.NOT_YET


def test_what_the_readme_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert not [link for pair in links for link in pair if link and not (ROOT / link).is_file()]
