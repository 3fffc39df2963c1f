"""The reading form: how a chapter is cut, how its minutes are counted, and what breaks its rules."""

from pathlib import Path

import parts
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit import form

CHAPTERS = sorted((Path(__file__).resolve().parent.parent / "chapters").glob("[0-9][0-9]_*.ipynb"))
FOLLOW = [path for path in CHAPTERS if form.follows(path.name[:2])]


def text(source: str, **metadata) -> dict:
    return new_markdown_cell(source, metadata=metadata)


def code(source: str, *tags: str, outputs: tuple = (), id: str | None = None) -> dict:
    cell = new_code_cell(source, metadata={"tags": list(tags)}, outputs=list(outputs))
    return cell | {"id": id} if id else cell


PICTURE = new_output("display_data", metadata={"labkit_alt": "a picture"})
CLAIM = new_output("display_data", metadata={"labkit_claim": {"id": "ch99-x"}})


def part(name: str = "1.1 a", *more: dict, exercise: bool = True) -> list[dict]:
    """The smallest part that keeps every rule, and what is added to it."""
    return [
        text(f"(part-1)=\n### {name} A title (题)\n\nA question?", tags=["hurry"]),
        code("import math", "setup", outputs=(PICTURE,)),
        *more,
        *([text("**Exercise `ex99-x`** (7 minutes). Do it.")] if exercise else []),
        text("**Remember.** One. Two. Three."),
    ]


def chapter(*cells: dict) -> form.Chapter:
    return form.cut([text("# 99 Title"), text("## 1.1 Section"), *cells, text("## Summary\n\nDone.")], "99")


def depth(title: str = "Why", result: str = "It is so, by a line.", level: str = "####") -> dict:
    return text(f"{level} Depth: {title}\n\n{result}", **{"jp-MarkdownHeadingCollapsed": True})


def test_a_chapter_is_cut_into_parts_and_depth():
    cut = chapter(*part("1.1 a", depth(), code("deep = 1"), text("#### Back\n\nOn the main line.")),
                  *part("Lab 9 b"))
    assert [p.name for p in cut.parts] == ["1.1 a", "Lab 9 b"]
    first, second = cut.parts
    assert (first.title, first.hurry) == ("A title (题)", True)
    assert [(d.title, d.result, len(d.cells)) for d in first.depth] == [("Why", "It is so, by a line.", 2)]
    assert [c["source"][:8] for c in first.main[2:4]] == ["#### Bac", "**Exerci"]
    assert len(first.cells) == 7 and second.depth == []
    assert [c["source"] for c in cut.around] == ["# 99 Title", "## 1.1 Section", "## Summary\n\nDone."]
    assert form.problems(cut) == []


def test_depth_ends_at_a_heading_of_its_level_or_above():
    cut = chapter(*part("1.1 a", depth(), text("##### Below it"), code("x = 1")), *part("1.1 b"))
    assert [len(d.cells) for d in cut.parts[0].depth] == [5]  # the rest of the part lies below it, too
    assert cut.parts[1].depth == []


def test_minutes_follow_the_rule():
    cells = [text("word " * 120), code("a = 1\n\nb = 2\n" * 15), code("hidden = 1\n" * 99, "hide-input"),
             code("claim()", "claim", outputs=(CLAIM, CLAIM)),
             code("plot()", "hide-input", outputs=(PICTURE,)), code("answer\n" * 50, "solution"),
             code("check\n" * 50, "check"), text("```mermaid\n```"),
             text("**Exercise `ex99-x`** (7 minutes). " + "word " * 99), code("stub\n" * 9, "exercise")]
    words, lines, claims, pictures = 122 / 120, 30 * 4 / 60, 2 * 15 / 60, 2 * 30 / 60
    assert form.minutes(form.cut(cells, "99").around) == pytest.approx(words + lines + claims + pictures)


def test_exercises_say_their_minutes():
    assert form.exercises(chapter(*part()).main) == {"ex99-x": 7}


def test_the_map_names_parts_and_minutes():
    cut = chapter(*part("1.1 a", text("word " * 600)), depth(), text("word " * 240))
    table = form.chapter_map(cut, {"1.1 a": 12}).splitlines()
    assert table[2] == "| [1.1 a A title (题)](part-1-1-a) | 6 min | 7 min | 12 s | 2 min | yes |"
    around = "| **All, and what stands around the parts** "
    assert table[3].startswith(around + "| **6 min** | **7 min** | **12 s** | **2 min** |")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (part("1.1 a", *[code("1")] * 40), "part 1.1 a: its main line has 44 cells, 4 more than 40"),
        (part("1.1 a", text("word " * 1800)), "words, "),
        (part()[:1] + part()[2:], "no picture"),
        ([part()[0], code("1"), code("2", outputs=(PICTURE,)), *part()[2:]], "not tagged `setup`"),
        (part(exercise=False), "no exercise"),
        (part()[:-1], "Remember"),
        (part("1.1 a", code("x = 1\n" * 16, id="long")), "cell long has 16 lines, more than 15"),
        (part("1.1 a", text("#### Depth: Open\n\nIt is so, yes."), text("#### Back")), "is not collapsed"),
        (part("1.1 a", depth(result=""), text("#### Back")), "no short result"),
        (part("1.1 a", depth(), code("deep = 1"), text("#### Back"), code("print(deep)", id="u")),
         "its main line uses `deep` in cell u"),
        (part("1.1 a", code("print(elsewhere)", id="u")), "uses `elsewhere` in cell u"),
        (part("1.1 a", code("y = 1"), code("%%px\nprint(y)", id="u")), "uses `y` in cell u"),
        ([*part("1.1 a", code("def f():\n    return 1")), *part("1.1 b", code("f()"))], "1.1 b: it uses `f`"),
        ([text("no part")], "no part"),
        (part("1.1 a", *[code("claim()", "claim", outputs=(CLAIM,) * 6)] * 3), "18 claims, 2 more than 16"),
    ],
)
def test_each_rule_names_the_part_and_the_excess(cells, words):
    assert any(words in problem for problem in form.problems(chapter(*cells))), form.problems(chapter(*cells))


@pytest.mark.parametrize(
    ("first", "second", "faulty"),
    [
        ("x = 1", "x = 2", True),
        ("x = 1", "x = 1", False),
        ("x = 1", "x += 1", True),
        ("def f(): return 1", "def f(): return 2", True),
        ("def f(): return 1", "def f(): return 1", False),
        ("f = 1", "def f(): return 2", True),
        ("import numpy as x", "import numpy as x", False),
        ("from a import x", "from b import x", True),
        ("for i in range(3): pass", "for i in 'abc': pass", False),
        ("i = 3", "for i in 'abc': pass", False),  # a loop's variable is anybody's
        ("a, b = 1, 2", "b, c = 3, 4", True),
        ("with open('a') as f: x = 1", "with open('b') as f: y = 1", True),
        ("fig, ax = plot.figure()", "fig, ax = plot.figure(height=2)", False),
        ("x = 1", "%%px\nx = 2", False),  # the ranks' names are their own
        ("%%px\nx = 1", "%%px\nx = 2", True),
        ("[x for x in 'ab']", "x = 2", False),
        ("if True:\n    x = 1", "x = 2", True),
        ("def f():\n    x = 1", "x = 2", False),
        ("x = 1\nx = 2", "y = x", False),
    ],
)
def test_a_name_means_one_thing(first, second, faulty):
    found = list(form.rebound(chapter(code(first, id="one"), code(second, id="two"))))
    assert bool(found) == faulty
    assert all("one" in problem and "two" in problem for problem in found)


def test_a_stub_and_its_solution_share_a_name():
    cells = [code("def f(): raise NotImplementedError", "exercise", "ex:ex99-x", id="one"),
             code("def f(): return 1", "solution", "ex:ex99-x", id="two")]
    assert not list(form.rebound(chapter(*cells)))
    assert list(form.rebound(chapter(*cells, code("def f(): return 2", id="three"))))


def test_chapters_that_are_not_in_the_form_yet_are_there():
    assert {path.name[:2] for path in CHAPTERS} >= form.NOT_YET


@pytest.mark.parametrize("path", FOLLOW, ids=lambda path: path.stem)
def test_chapters_keep_the_form(path):
    assert form.problems(form.read(path)) == []


def test_parts_become_notebooks(tmp_path):
    import nbformat

    source = tmp_path / "chapters"
    source.mkdir()
    new, old = [text("# 99 T"), *part("1.1 a"), *part("1.1 b")], [text("# 2 T"), *part("2.1 a")]
    nbformat.write(new_notebook(cells=new), source / "99_x.ipynb")
    nbformat.write(new_notebook(cells=old), source / "02_old.ipynb")
    parts.main(source, tmp_path / "out")
    made = {path.stem: nbformat.read(path, 4) for path in (tmp_path / "out").glob("*.ipynb")}
    assert set(made) == {"99_x_1.1_a", "99_x_1.1_b", "99_x_in_reverse"}
    assert [len(nb.cells) for nb in made.values()].count(4) == 2
    assert "1.1 b" in made["99_x_in_reverse"].cells[0].source
