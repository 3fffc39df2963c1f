"""The reading form: a chapter's parts, its depth, its minutes, and the rules it is held to.

A **part** begins with a heading such as ``### 1.1 a Predict the next token`` or ``### Lab 1 a Ranks`` and
ends at the next part or at a heading of level 1 or 2. Its first code cell, tagged ``setup``, makes it stand
alone. **Depth** is what a first reader can skip: a heading ``#### Depth: …``, its result in one paragraph of
the same cell, and all cells to the next heading of the same or a higher level. The rest of a part is its
**main line**.
"""

import ast
import builtins
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

NOT_YET = frozenset({"02", "03", "04", "05", "07"})
"""Chapters written before the form. None of its rules (parts, names, budgets, controls, boxes) binds them."""

WORDS_A_MINUTE, SECONDS_A_LINE, SECONDS_A_CLAIM, SECONDS_A_PICTURE = 120, 4, 15, 30
PART_CELLS, PART_WORDS, CELL_LINES = 40, 1800, 15
CHAPTER_CELLS, CHAPTER_CLAIMS = {"07": 220}, {"07": 24}
USUAL_CELLS, USUAL_CLAIMS = 150, 16

_TARGET = r"\A(?:\([\w-]+\)=\s*\n)*"
_HEADING = re.compile(_TARGET + r"(#{1,6}) (.+)")
_PART = re.compile(r"((?:\d+\.\d+|Lab \d+) [a-z]) (.+)")
_EXERCISE = re.compile(r"\*\*Exercise `(ex\d\d-[a-z0-9-]+)`\*\* \((\d+) minutes?\)")
_ASIDE = {"solution", "check", "hide-cell", "remove-cell", "ask"}
_LOOSE = {"fig", "ax", "axes", "_"}  # each figure's own; what is not wanted


@dataclass
class Depth:
    """One folded section: ``result`` is what stands outside the fold."""

    title: str
    result: str
    cells: list[dict] = field(default_factory=list)


@dataclass
class Part:
    """One part: ``name`` such as "1.1 a"; ``hurry`` when a reader in a hurry takes it."""

    name: str
    title: str
    hurry: bool
    main: list[dict] = field(default_factory=list)
    depth: list[Depth] = field(default_factory=list)

    @property
    def cells(self) -> list[dict]:
        """All cells, in the notebook's order."""
        cells = self.main + [cell for depth in self.depth for cell in depth.cells]
        return sorted(cells, key=lambda cell: cell["place"])


@dataclass
class Chapter:
    """``number`` is two digits; ``around`` holds what stands before, between and after the parts."""

    number: str
    title: str
    parts: list[Part]
    around: list[dict]

    @property
    def main(self) -> list[dict]:
        """The main line: everything but depth, in order."""
        cells = self.around + [cell for part in self.parts for cell in part.main]
        return sorted(cells, key=lambda cell: cell["place"])

    @property
    def depth(self) -> list[dict]:
        """The cells of all depths."""
        return [cell for part in self.parts for depth in part.depth for cell in depth.cells]


def follows(chapter: str) -> bool:
    """True if the chapter with this number ("01") is held to the form."""
    return chapter not in NOT_YET


def read(path: str | PathLike) -> Chapter:
    """The chapter stored at ``path``, cut into parts."""
    path = Path(path)
    return cut(json.loads(path.read_text(encoding="utf-8"))["cells"], path.name[:2])


def cut(cells: list[dict], number: str) -> Chapter:
    """The cells of a notebook (nbformat 4) as a Chapter; each gets its ``place`` and its source as text."""
    chapter, part, depth, depth_level = Chapter(number, "", [], []), None, None, 7
    for place, cell in enumerate(cells):
        cell = {**cell, "place": place, "source": "".join(cell["source"])}
        heading = _HEADING.match(cell["source"]) if cell["cell_type"] == "markdown" else None
        if heading:
            level, title = len(heading[1]), heading[2].strip()
            begins = _PART.fullmatch(title) if level in (2, 3) else None
            chapter.title = chapter.title or title
            if begins:
                part = Part(begins[1], begins[2], "hurry" in tags(cell))
                chapter.parts.append(part)
            elif level <= 2:
                part = None
            if level <= depth_level:
                depth, depth_level = None, 7
            if part and title.startswith("Depth: "):
                after = cell["source"][heading.end():].strip()
                depth, depth_level = Depth(title.removeprefix("Depth: "), after), level
                part.depth.append(depth)
        home = depth.cells if depth else part.main if part else chapter.around
        home.append(cell)
    return chapter


def tags(cell: dict) -> set[str]:
    """The cell's tags."""
    return set(cell["metadata"].get("tags", []))


# ------------------------------------------------------------------- minutes


def minutes(cells: list[dict]) -> float:
    """Minutes to read these cells: words, visible lines of code, claims and pictures, at fixed rates.

    Exercises do not count, since they state minutes of their own; neither does the code of claims and
    figures, which is folded.
    """
    cells = [cell for cell in cells if not tags(cell) & (_ASIDE | {"exercise"})
             and cell.get("id") != "map" and not _EXERCISE.search(cell["source"])]
    return (words(cells) / WORDS_A_MINUTE + sum(map(_lines, cells)) * SECONDS_A_LINE / 60
            + len(claims(cells)) * SECONDS_A_CLAIM / 60 + sum(map(_pictures, cells)) * SECONDS_A_PICTURE / 60)


def exercises(cells: list[dict]) -> dict[str, int]:
    """{exercise id: minutes that its text allows}"""
    found = [_EXERCISE.search(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return {match[1]: int(match[2]) for match in found if match}


def words(cells: list[dict]) -> int:
    """Words of the Markdown cells, as they are written."""
    return sum(len(cell["source"].split()) for cell in cells if cell["cell_type"] == "markdown")


def claims(cells: list[dict]) -> list[dict]:
    """The claims in the cells' stored outputs, as ``labkit.claims`` recorded them."""
    stored = [output.get("metadata", {}) for cell in cells for output in cell.get("outputs", [])]
    return [metadata["labkit_claim"] for metadata in stored if "labkit_claim" in metadata]


def _lines(cell: dict) -> int:
    if cell["cell_type"] != "code" or tags(cell) & {"hide-input", "hide-cell", "remove-input", "claim"}:
        return 0
    return sum(bool(line.strip()) for line in cell["source"].splitlines())


def _pictures(cell: dict) -> int:
    if cell["cell_type"] == "markdown":
        return "```mermaid" in cell["source"] or "{figure}" in cell["source"]
    return sum("labkit_alt" in output.get("metadata", {}) for output in cell.get("outputs", []))


def chapter_map(chapter: Chapter, seconds: dict[str, int]) -> str:
    """The Markdown table on top of a chapter; ``seconds`` says how long a part's cells ran.

    Depth is counted with the exercises in it.
    """
    rows, hurried = [], [part for part in chapter.parts if part.hurry]
    for part in chapter.parts:
        deep = sum(minutes(depth.cells) + sum(exercises(depth.cells).values()) for depth in part.depth)
        label = "part-" + re.sub(r"[ .]", "-", part.name.lower())
        rows.append([f"[{part.name} {part.title}]({label})", f"{minutes(part.main):.0f} min",
                     f"{sum(exercises(part.main).values())} min", f"{seconds.get(part.name, 0)} s",
                     f"{deep:.0f} min" if deep else "–", "yes" if part.hurry else "–"])
    reading, doing = minutes(chapter.main), sum(exercises(chapter.main).values())
    deep = minutes(chapter.depth) + sum(exercises(chapter.depth).values())
    short = sum(minutes(part.main) for part in hurried)
    rows.append(["**All, and what stands around the parts**", f"**{reading:.0f} min**", f"**{doing} min**",
                 f"**{sum(seconds.values())} s**", f"**{deep:.0f} min**", f"**{short:.0f} min to read**"])
    head = ["Part", "Read", "Exercises", "Run", "Depth, folded", "In a hurry"]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


# ------------------------------------------------------------------- the rules


def problems(chapter: Chapter) -> list[str]:
    """What breaks the form, each in one sentence that names the part and the excess."""
    found = [] if chapter.parts else ["no part: a heading such as `### 1.1 a Title` begins one"]
    for part in chapter.parts:
        found += [f"part {part.name}: {fault}" for fault in _part_problems(part)]
    seen = [cell for cell in chapter.main if not tags(cell) & _ASIDE]
    most_cells = CHAPTER_CELLS.get(chapter.number, USUAL_CELLS)
    most_claims = CHAPTER_CLAIMS.get(chapter.number, USUAL_CLAIMS)
    for what, count, most in [("cells", len(seen), most_cells), ("claims", len(claims(seen)), most_claims)]:
        if count > most:
            found.append(f"the main line has {count} {what}, {count - most} more than {most}")
    return found + list(rebound(chapter))


def _part_problems(part: Part) -> Iterator[str]:
    seen = [cell for cell in part.main if not tags(cell) & _ASIDE]
    for what, count, most in [("cells", len(seen), PART_CELLS), ("words", words(seen), PART_WORDS)]:
        if count > most:
            yield f"its main line has {count} {what}, {count - most} more than {most}"
    code = [cell for cell in part.cells if cell["cell_type"] == "code"]
    first_drawn = code[:2]  # a picture may stand before the set-up, which it does not need
    if not any("setup" in tags(cell) for cell in first_drawn):
        yield "its first code cell (after the picture) is not tagged `setup`"
    if not any(map(_pictures, part.main)):
        yield "no picture on its main line"
    if not exercises(part.main):
        yield "no exercise on its main line"
    if not any("**Remember.**" in cell["source"] for cell in part.main):
        yield "no paragraph that begins with **Remember.**"
    for cell in part.main:
        if _lines(cell) > CELL_LINES and "setup" not in tags(cell):
            yield f"cell {cell.get('id')} has {_lines(cell)} lines, more than {CELL_LINES}"
    for depth in part.depth:
        if not depth.cells[0]["metadata"].get("jp-MarkdownHeadingCollapsed"):
            yield f"depth {depth.title!r} is not collapsed in JupyterLab"
        if not 3 <= len(depth.result.split()) <= 60:
            yield f"depth {depth.title!r} has no short result in its heading's cell"
    yield from _missing(part.main, "its main line")
    yield from _missing(part.cells, "it")


def _missing(cells: list[dict], where: str) -> Iterator[str]:
    """Names that a part uses and does not bind itself: it would not run alone, or needs its depth."""
    bound: dict[bool, set[str]] = {True: set(dir(builtins)), False: set(dir(builtins))}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        tree, on_ranks = _parse(cell)
        names = bound[on_ranks]
        names |= {name for name, _, _ in _bindings(tree)} | {"__file__", "get_ipython", "display"}
        local = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        local |= {arg.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for arg in ast.walk(n)
                  if isinstance(arg, ast.arg)}
        local |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        local |= {a.asname or a.name.partition(".")[0] for n in ast.walk(tree)
                  if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}
        local |= {n.name for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.name}
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for name in sorted(used - names - local):
            yield f"{where} uses `{name}` in cell {cell.get('id')} and does not define it"


def rebound(chapter: Chapter) -> Iterator[str]:
    """Names that mean more than one thing in the notebook.

    A name may be bound again in another cell by the very same statement (a set-up cell repeats an import or
    loads a corpus anew), as a loop's variable everywhere, and by an exercise's stub and its solution.
    """
    bound: dict[tuple[bool, str], list[tuple[str, str, frozenset]]] = {}
    cells = sorted([*chapter.main, *chapter.depth], key=lambda cell: cell["place"])
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        tree, on_ranks = _parse(cell)
        exercise = frozenset(tag for tag in tags(cell) if tag.startswith("ex:"))
        for name, kind, text in _bindings(tree):
            if name not in _LOOSE and kind != "loop":
                place = cell.get("id", str(cell["place"]))
                bound.setdefault((on_ranks, name), []).append((place, text, exercise))
    for (_, name), places in bound.items():
        first_cell, first_text, first_exercise = places[0]
        for cell, text, exercise in places[1:]:
            if cell != first_cell and text != first_text and not exercise & first_exercise:
                yield (f"`{name}` is bound in cell {first_cell} (`{first_text[:60]}`) and to something "
                       f"else in cell {cell} (`{text[:60]}`)")
                break


def _parse(cell: dict) -> tuple[ast.Module, bool]:
    """(the cell's syntax tree, True if it runs on the ranks)"""
    source, on_ranks = cell["source"], cell["source"].startswith("%%px")
    if source.startswith("%%"):
        source = source.partition("\n")[2] if on_ranks else ""
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)), on_ranks


def _bindings(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(name, "loop" or "value", the statement) for each name that the cell's top level binds."""
    todo: list[tuple[ast.AST, str, str]] = [(node, "value", ast.unparse(node)) for node in tree.body]
    while todo:
        node, kind, text = todo.pop(0)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, "value", text
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{getattr(node, 'module', '')}."
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], "value", f"import {module}{alias.name}"
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, kind, text
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
            continue
        elif isinstance(node, ast.For):
            todo += [(node.target, "loop", text)]
            todo += [(inner, "value", ast.unparse(inner)) for inner in node.body + node.orelse]
        elif isinstance(node, ast.If | ast.With | ast.Try | ast.While):
            todo += [(inner, "value", ast.unparse(inner) if isinstance(inner, ast.stmt) else text)
                     for inner in ast.iter_child_nodes(node)]
        else:
            todo += [(inner, kind, text) for inner in ast.iter_child_nodes(node)]
