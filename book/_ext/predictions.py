"""The page of the reader's predictions: directive ``{predictions}`` lists every question that is asked
beforehand in any chapter. What the reader answered is in the browser alone: ``predictions.js`` fills it in.
"""

import html
import json
from collections.abc import Iterator
from pathlib import Path

from course import notebooks
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from labkit.claims import ASK_KEY, Claim, read_notebook

logger = logging.getLogger(__name__)

COLUMNS = ("Question", "Yours", "Predicted", "Measured", "How far off")


class PredictionsDirective(SphinxDirective):
    """The table of questions; without JavaScript it says where the answers would be."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for path in notebooks(self.env.app):
            self.env.note_dependency(str(path))
            claims = {claim.id: claim for claim in read_notebook(path)}
            for question in questions(path):
                claim = claims.get(question["id"])
                if claim and claim.numbers:
                    rows.append(row(path.stem, question, claim))
                else:
                    logger.warning("the question %s has no claim with one number that answers it",
                                   question["id"], location=self.get_location())
        head = "".join(f"<th>{name}</th>" for name in COLUMNS)
        return [nodes.raw("", format="html", text=(
            '<noscript><p>Your answers are kept and shown by JavaScript, which is switched off here. '
            "The questions below stand in the chapters, each with its answer.</p></noscript>"
            '<div class="pst-scrollable-table-container"><table class="table labkit-predictions">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        ))]


def questions(path: Path) -> Iterator[dict[str, str]]:
    """What ``labkit.claims.predict`` asks in a notebook's stored outputs: id, question, unit."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if ASK_KEY in output.get("metadata", {}):
                yield output["metadata"][ASK_KEY]


def row(chapter: str, question: dict[str, str], claim: Claim) -> str:
    """One question; its answer stays out of sight until the reader has given one."""
    said = {"id": claim.id, "unit": question["unit"], "number": repr(claim.numbers[0]),
            "predicted": claim.predicted, "measured": claim.measured}
    data = "".join(f' data-{key}="{html.escape(value)}"' for key, value in said.items())
    labels = "".join(f'<td data-label="{name}">–</td>' for name in COLUMNS[1:])
    link = f'<a href="../chapters/{chapter}.html#{claim.id}">{html.escape(question["question"])}</a>'
    return f"<tr{data}><td>{link}</td>{labels}</tr>"


def setup(app: Sphinx) -> dict:
    app.add_directive("predictions", PredictionsDirective)
    for script in ("make.js", "predictions.js", "predictions_page.js"):
        app.add_js_file(script, loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
