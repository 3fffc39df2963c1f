"""What this book adds to Jupyter Book: claims from the notebooks, and pages that need no network.

Directives: ``{claims} id …`` shows chosen claims as the chapter shows them; ``{claims-ledger}``
lists every claim of every chapter. Both read the notebooks' stored outputs. What readers fold, answer and
move is in ``reading.py``, ``predictions.py`` and ``temperature.py``.
"""

import html
from pathlib import Path

import sphinx_thebe
import vendor
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext import mathjax
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib import mermaid

from labkit import form
from labkit.claims import Claim, read_notebook

logger = logging.getLogger(__name__)


def notebooks(app: Sphinx) -> list[Path]:
    """The chapters that are in the book's table of contents, in order."""
    found = sorted(Path(app.srcdir).glob("chapters/*.ipynb"))
    return [path for path in found if f"chapters/{path.stem}" in app.env.found_docs]


class ClaimsDirective(SphinxDirective):
    """Show the named claims in boxes; unknown ids are warnings."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        known = {}
        for path in notebooks(self.env.app):
            self.env.note_dependency(str(path))
            known |= {claim.id: claim for claim in read_notebook(path)}
        wanted = self.arguments[0].split()
        for missing in set(wanted) - known.keys():
            logger.warning("no chapter has the claim %s", missing, location=self.get_location())
        boxes = "".join(box(known[id]) for id in wanted if id in known)
        return [nodes.raw("", f'<div class="claims">{boxes}</div>', format="html")]


class LedgerDirective(SphinxDirective):
    """Every claim of every chapter, with a link to the place where it is measured."""

    def run(self) -> list[nodes.Node]:
        tables = []
        for path in notebooks(self.env.app):
            self.env.note_dependency(str(path))
            claims = read_notebook(path)
            for claim in claims:
                if not claim.holds:
                    logger.warning("claim %s fails", claim.id, location=self.get_location())
            tables.append(ledger_table(path, claims))
        return [nodes.raw("", "".join(tables), format="html")]


def box(claim: Claim) -> str:
    """The claim's own box, without its anchor: that belongs to the chapter."""
    return claim.to_html().replace(f' id="{claim.id}"', "", 1)


def ledger_table(path: Path, claims: list[Claim]) -> str:
    """One chapter's claims as an HTML table: those of the main line first, then those of depth."""
    chapter = form.read(path)
    deep = {claim["id"] for claim in form.claims(chapter.depth)}
    bodies = ""
    for title in ("Main line", "Depth"):
        group = [claim for claim in claims if (claim.id in deep) == (title == "Depth")]
        head = f'<tr><th colspan="4" scope="rowgroup">{title}</th></tr>' if deep and group else ""
        bodies += f"<tbody>{head}{''.join(ledger_row(path.stem, claim) for claim in group)}</tbody>"
    held = sum(claim.holds for claim in claims)
    return (
        f'<div class="pst-scrollable-table-container"><table class="table ledger">'
        f"<caption>Chapter {int(chapter.number)}: {held} of {len(claims)} claims hold</caption>"
        "<thead><tr><th>Claim</th><th>Predicted</th><th>Measured</th>"
        f"<th>Verdict</th></tr></thead>{bodies}</table></div>"
    )


def ledger_row(chapter: str, claim: Claim) -> str:
    """One claim; several cases take the place of the two numbers."""
    c = claim.model_copy(update={k: html.escape(v) for k, v in claim if isinstance(v, str)})
    control = f'<span class="source">Control, which must fail: {c.control}</span>' if c.control else ""
    source = f'<span class="source">Prediction from: {c.source}</span>' if c.source else ""
    tolerance = f" ({c.tolerance})" if c.tolerance else ""
    varies = " (varies from run to run)" if c.noisy else ""
    numbers = (
        f'<td colspan="2" data-label="Cases">{claim.table()}{varies}</td>' if c.cases else
        f'<td data-label="Predicted">{c.predicted}</td><td data-label="Measured">{c.measured}{varies}</td>'
    )
    return (
        f'<tr><td><a href="../chapters/{chapter}.html#{c.id}"><code>{c.id}</code></a><br>'
        f"{c.statement}{control}{source}</td>{numbers}"
        f'<td data-label="Verdict">{"holds" if c.holds else "FAILS"}, {c.difference}{tolerance}</td></tr>'
    )


def hide_dead_buttons(app: Sphinx, config: Config) -> None:
    """Launch buttons need a public repository: without one they would lead nowhere.

    Pages may use ``{only} published`` and ``{only} unpublished`` to say which it is.
    """
    options = config.html_theme_options
    if options.get("repository_url"):
        app.tags.add("published")
    else:
        app.tags.add("unpublished")
        options.pop("launch_buttons", None)


def fetch_vendor(_app: Sphinx, config: Config) -> None:
    """Before the build: make the pages' scripts local, or remember why a page goes without one."""
    config.course_missing = {asset.name: vendor.fetch(asset) for asset in vendor.ASSETS}
    for reason in filter(None, config.course_missing.values()):
        logger.info("%s Pages will say so.", reason)


def without_network(app: Sphinx) -> None:
    """Silence what other extensions would load from a network."""
    unwanted = [mermaid.install_js, sphinx_thebe.init_thebe_core]
    if app.config.course_missing["mathjax"]:
        unwanted.append(mathjax.install_mathjax)
    for listeners in app.events.listeners.values():
        listeners[:] = [listener for listener in listeners if listener.handler not in unwanted]


def local_scripts(app: Sphinx, _page: str, _template: str, context: dict, doctree) -> None:
    """Draw diagrams with the local classic script, or say why they are shown as text."""
    if doctree is None:
        return
    diagrams = doctree.next_node(mermaid.mermaid) is not None
    formulas = any(isinstance(n, nodes.math | nodes.math_block) for n in doctree.findall())
    if diagrams and not app.config.course_missing["mermaid"]:
        app.add_js_file("vendor/mermaid/mermaid.min.js", priority=600)
        app.add_js_file("diagrams.js", priority=610)
    elif diagrams:
        context["body"] = notice("Diagrams", app.config.course_missing["mermaid"]) + context["body"]
    if formulas and app.config.course_missing["mathjax"]:
        context["body"] = notice("Formulas", app.config.course_missing["mathjax"]) + context["body"]


def notice(what: str, reason: str) -> str:
    """What a page says when it has to show its diagrams or formulas as source text."""
    return (
        '<div class="admonition note as-text">'
        f'<p class="admonition-title">{what} as text</p><p>{what} on this page are shown as their '
        f"source. {html.escape(reason)} Nothing is loaded from a network in its place: install npm "
        "and build the book again.</p></div>"
    )


def setup(app: Sphinx) -> dict:
    # A configuration value, so that pages are written anew when what is missing changes.
    app.add_config_value("course_missing", {}, "html")
    for extension in ("reading", "predictions", "temperature"):
        app.setup_extension(extension)
    app.add_directive("claims", ClaimsDirective)
    app.add_directive("claims-ledger", LedgerDirective)
    app.connect("config-inited", hide_dead_buttons)
    app.connect("config-inited", fetch_vendor)
    app.connect("builder-inited", without_network)
    app.connect("html-page-context", local_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
