"""What a chapter's page shows differently from its notebook, so that the main line reads in one go.

Depth is folded, with the minutes it takes; a claim's box stands before the code that measures it; the code
of a question asked beforehand is left out; and under each check stands how many wrong answers it knows.
The role ``{chapter-minutes}`01` `` says how long a chapter takes.
"""

import html
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

from course import notebooks
from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole
from sphinx.writers.html5 import HTML5Translator

from labkit import form

logger = logging.getLogger(__name__)


class Folded(nodes.General, nodes.Element):
    """Depth in the page: a ``<details>``; its attribute ``minutes`` is text, or empty if unknown."""


def visit_folded(self: HTML5Translator, node: Folded) -> None:
    minutes = f" · {node['minutes']}" if node["minutes"] else ""
    self.body.append(
        '<details class="depth">\n<summary><span class="when-closed">Show</span>'
        f'<span class="when-open">Hide</span> this depth{minutes}</summary>\n'
    )


def depart_folded(self: HTML5Translator, _node: Folded) -> None:
    self.body.append("</details>\n")


def visit_code_fold(self: HTML5Translator, node: HideCodeCellNode) -> None:
    """As MyST-NB writes folded code, but named by what it shows, not by one label for all."""
    self.body.append(
        f'<details class="admonition hide {" ".join(node["classes"])}">\n<summary>\n'
        f'<p class="collapsed admonition-title">{html.escape(node["prompt_show"])}</p>\n'
        f'<p class="expanded admonition-title">{html.escape(node["prompt_hide"])}</p>\n</summary>\n'
    )


class ReadingPage(SphinxPostTransform):
    """Bring a chapter's page into the reading form. Comes after MyST-NB has folded code (199)."""

    default_priority = 250
    formats = ("html",)

    def run(self, **_kwargs) -> None:
        path = Path(self.env.doc2path(self.env.docname))
        if path.suffix != ".ipynb":
            return
        minutes = depth_minutes(form.read(path))
        for section in list(self.document.findall(nodes.section)):
            fold_depth(section, minutes)
        for cell, tags in list(code_cells(self.document)):
            if {"claim", "hide-input"} <= tags:
                box_first(cell)
            if "ask" in tags:
                only_output(cell)
            if "check" in tags:
                note_wrong_answers(cell, tags, self.config.course_wrong_answers)


def code_cells(document: nodes.document) -> Iterator[tuple[nodes.container, set[str]]]:
    """Each code cell of the page, with its tags."""
    for cell in document.findall(nodes.container):
        if cell.get("nb_element") == "cell_code":
            yield cell, set(cell["cell_metadata"].get("tags", []))


def plain(title: str) -> str:
    """A title without its markup, so that Markdown and the page can be compared."""
    return re.sub(r"[\W_]+", "", title)


def depth_minutes(chapter: form.Chapter) -> dict[str, str]:
    """{plain title of a depth: its minutes, exercises apart}"""
    depths = [depth for part in chapter.parts for depth in part.depth]
    return {plain(depth.title): spent(depth.cells) for depth in depths}


def spent(cells: list[dict]) -> str:
    """The minutes that cells take, as a reader plans them: "4 min", "4 min and 10 min of exercises"."""
    doing = sum(form.exercises(cells).values())
    return f"{duration(form.minutes(cells))}{f' and {duration(doing)} of exercises' if doing else ''}"


def duration(minutes: float) -> str:
    """"1 min" at the least; from 100 minutes on in hours and minutes."""
    whole = max(1, round(minutes))
    return f"{whole} min" if whole < 100 else f"{whole // 60} h {whole % 60} min".removesuffix(" 0 min")


def fold_depth(section: nodes.section, minutes: dict[str, str]) -> None:
    """Fold a depth section behind its heading and the paragraph with its result."""
    title = section.next_node(nodes.title, descend=True).astext()
    if not title.startswith("Depth: "):
        return
    said = next((i for i, node in enumerate(section) if isinstance(node, nodes.paragraph)), None)
    if said is None:
        logger.warning("%s has no paragraph with its result", title, location=section)
        return
    known = minutes.get(plain(title.removeprefix("Depth: ")), "")
    if not known:
        logger.warning("%s stands outside the chapter's parts: no minutes", title, location=section)
    fold = Folded("", *section.children[said + 1 :], minutes=known)
    section.children[said + 1 :] = []
    section += fold


def box_first(cell: nodes.container) -> None:
    """Show what a claim's cell put out before its folded code."""
    if cell[-1].get("nb_element") == "cell_code_output":
        cell.insert(0, cell.pop())


def only_output(cell: nodes.container) -> None:
    """Leave out the cell's code."""
    for child in list(cell):
        if child.get("nb_element") != "cell_code_output":
            cell.remove(child)


def note_wrong_answers(cell: nodes.container, tags: set[str], known: dict[str, int]) -> None:
    """Say under a check how many wrong answers the tests hold it to."""
    ids = [tag.removeprefix("ex:") for tag in tags if tag.startswith("ex:")]
    count = sum(known.get(id, 0) for id in ids)
    if count:
        said = f"{count} known wrong answers" if count > 1 else "one known wrong answer"
        note = nodes.paragraph("", f"This check tells apart {said}.", classes=["check-note"])
        cell.parent.insert(cell.parent.index(cell) + 1, note)


def count_wrong_answers(app: Sphinx, config: Config) -> None:
    """Before the build: {exercise id: wrong answers that the tests try}."""
    files = sorted(Path(app.srcdir).glob("tests/wrong_answers/ch[0-9][0-9]*.py"))
    wrong = [runpy.run_path(str(file))["WRONG"] for file in files]
    config.course_wrong_answers = {id: len(answers) for each in wrong for id, answers in each.items()}


class ChapterMinutes(SphinxRole):
    """How long the chapter with this number takes, by the rule of ``labkit.form``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        paths = [path for path in notebooks(self.env.app) if path.name.startswith(f"{self.text}_")]
        if not paths:
            logger.warning("no chapter has the number %s", self.text, location=self.get_location())
            return [], []
        self.env.note_dependency(str(paths[0]))
        return [nodes.inline("", chapter_minutes(form.read(paths[0])), classes=["minutes"])], []


def chapter_minutes(chapter: form.Chapter) -> str:
    """The minutes of the main line, of its exercises and of depth; a chapter without parts has one line."""
    doing = sum(form.exercises(chapter.main).values())
    deep = form.minutes(chapter.depth) + sum(form.exercises(chapter.depth).values())
    said = [f"{'main line' if chapter.parts else 'reading'} {duration(form.minutes(chapter.main))}"]
    said += [f"exercises {duration(doing)}"] * bool(doing) + [f"depth {duration(deep)}"] * bool(deep)
    return " · ".join(said)


def setup(app: Sphinx) -> dict:
    # A configuration value, so that pages are written anew when the wrong answers change.
    app.add_config_value("course_wrong_answers", {}, "html")
    app.add_node(Folded, html=(visit_folded, depart_folded))
    app.setup_extension("myst_nb")  # before its node gets another visitor
    app.add_node(HideCodeCellNode, override=True, html=(visit_code_fold, depart_HideCellInput))
    app.add_post_transform(ReadingPage)
    app.add_role("chapter-minutes", ChapterMinutes())
    app.connect("config-inited", count_wrong_answers)
    app.add_css_file("reading.css")
    app.add_js_file("reading.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
