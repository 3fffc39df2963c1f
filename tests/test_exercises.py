"""Every exercise's check: silent about the stub, content with the solution, clear about mistakes."""

import ast
import contextlib
import io
import re
import runpy
from functools import cache
from pathlib import Path

import nbformat
import pytest

from labkit import form

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9][0-9]_*.ipynb"))


@cache
def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


@cache
def exercises(path: Path) -> dict[str, dict[str, nbformat.NotebookNode]]:
    """{exercise id: {"exercise": cell, "check": cell, "solution": cell}}"""
    found: dict[str, dict] = {}
    for cell in cells(path):
        ids = [tag.removeprefix("ex:") for tag in tags(cell) if tag.startswith("ex:")]
        for kind in ("exercise", "check", "solution"):
            if kind in tags(cell):
                assert len(ids) == 1, f"a cell tagged {kind} needs exactly one ex:<id> tag"
                assert kind not in found.setdefault(ids[0], {}), f"{ids[0]} has two {kind} cells"
                found[ids[0]][kind] = cell
    return found


@cache
def imports(path: Path, id: str) -> dict:
    """What stands ready for an exercise: its part's imports; in a chapter without parts, the first cell's."""
    for part in form.read(path).parts:
        if id in form.exercises(part.cells):
            sources = [cell["source"] for cell in part.cells if "setup" in form.tags(cell)]
            break
    else:
        sources = [next(cell.source for cell in cells(path) if cell.cell_type == "code")]
    kept = [node for source in sources for node in ast.parse(source).body
            if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict = {}
    exec(compile(ast.Module(kept, type_ignores=[]), "<imports>", "exec"), names)
    return names


def verdict(path: Path, id: str, answer: str) -> str:
    """What the check of exercise `id` prints about `answer`, with nothing but imports before it."""
    names = dict(imports(path, id))
    exec(compile(answer, f"<answer to {id}>", "exec"), names)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(exercises(path)[id]["check"].source, names)
    lines = printed.getvalue().strip().splitlines()
    assert len(lines) == 1, f"a check prints one line, not {lines}"
    assert lines[0].startswith(f"{id}: ")
    return lines[0].removeprefix(f"{id}: ")


@cache
def answers(path: Path, kind: str) -> dict[str, list]:
    """{exercise id: its answers}; kind is WRONG, with what the check should say, or RIGHT."""
    files = sorted((ROOT / "tests/wrong_answers").glob(f"ch{path.name[:2]}*.py"))
    return {id: found for file in files for id, found in runpy.run_path(str(file)).get(kind, {}).items()}


ALL = [(path, id) for path in CHAPTERS for id in exercises(path)]
WRONG, RIGHT = ([(path, id, number) for path, id in ALL
                 for number in range(len(answers(path, kind).get(id, [])))] for kind in ("WRONG", "RIGHT"))


def name(value: object) -> str:
    return value.stem[:2] if isinstance(value, Path) else str(value)


def test_there_are_chapters():
    assert CHAPTERS


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_a_chapter_has_five_exercises_and_wrong_answers_to_each(path):
    assert len(exercises(path)) >= 5
    wrong, right = answers(path, "WRONG"), answers(path, "RIGHT")
    assert set(wrong) == set(exercises(path))
    assert not right or set(right) == set(exercises(path))
    for id in wrong:
        assert len(wrong[id]) >= (2 if path.name[:2] in form.NOT_YET else 7), id
        assert path.name[:2] in form.NOT_YET or len(right[id]) >= 3, id
        assert re.fullmatch(rf"ex{path.name[:2]}-[a-z0-9-]+", id)


@pytest.mark.parametrize(("path", "id"), ALL, ids=name)
def test_an_exercise_is_complete(path, id):
    parts = exercises(path)[id]
    assert set(parts) == {"exercise", "check", "solution"}
    order = [cells(path).index(parts[kind]) for kind in ("exercise", "check", "solution")]
    assert order == sorted(order)
    assert parts["solution"].metadata["jupyter"]["source_hidden"]
    assert "hide-cell" in tags(parts["solution"])
    text = cells(path)[order[0] - 1].source
    assert id in text
    assert "dropdown} Hint" in text
    stub = re.search(r"def (\w+)\(", parts["exercise"].source)[1]
    assert f"def {stub}(" in parts["solution"].source
    assert '"""' in parts["exercise"].source
    later = "\n".join(cell.source for cell in cells(path)[order[2] + 1 :] if cell.cell_type == "code")
    assert not re.search(rf"(?<![.\w]){stub}\(", later), f"a later cell calls the reader's {stub}"


@pytest.mark.parametrize(("path", "id"), ALL, ids=name)
def test_the_stub_is_not_attempted_and_stored_as_such(path, id):
    said = verdict(path, id, exercises(path)[id]["exercise"].source)
    assert said.startswith("not attempted yet")
    stored = exercises(path)[id]["check"].outputs
    assert [output.text.strip() for output in stored] == [f"{id}: {said}"]


@pytest.mark.parametrize(("path", "id"), ALL, ids=name)
def test_the_solution_is_accepted(path, id):
    assert verdict(path, id, exercises(path)[id]["solution"].source) == "ok"


@pytest.mark.parametrize(("path", "id", "number"), WRONG, ids=name)
def test_a_wrong_answer_is_told_what_is_wrong(path, id, number):
    answer, fragment = answers(path, "WRONG")[id][number]
    said = verdict(path, id, answer)
    assert said.startswith("not yet. ")
    assert fragment in said


@pytest.mark.parametrize(("path", "id", "number"), RIGHT, ids=name)
def test_a_right_answer_in_another_style_is_accepted(path, id, number):
    assert verdict(path, id, answers(path, "RIGHT")[id][number]) == "ok"
