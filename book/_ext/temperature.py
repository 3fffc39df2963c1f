"""The page's temperature slider: directive ``{temperature}``, moved by ``temperature.js``.

A recorded model's logits for the next byte, after a few contexts, come from ``benchmarks/history.json``, key
``next_bytes``: a list of {"context": text, "tokens": [text, …], "logits": [number, …]}, with the whole
vocabulary: the shares at another temperature need all logits.
"""

import html
import json
import math
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

RECORD, KEY = "benchmarks/history.json", "next_bytes"
TEMPERATURES, ROWS = (0.5, 1.0, 2.0), 12


class TemperatureDirective(SphinxDirective):
    """The slider with its data; without JavaScript, a table of three temperatures."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.app.srcdir) / RECORD
        self.env.note_dependency(str(path))
        contexts = read(path)
        if not contexts:
            logger.warning("%s has no %r: no temperature slider", RECORD, KEY, location=self.get_location())
            return []
        data = json.dumps(contexts, ensure_ascii=False).replace("<", "\\u003c")
        return [nodes.raw("", format="html", text=(
            '<div class="labkit-temperature">'
            f'<script type="application/json">{data}</script>{table(contexts[0])}</div>'
        ))]


def read(path: Path) -> list[dict]:
    """The recorded contexts; [] if there are none, or their tokens and logits do not fit together."""
    contexts = json.loads(path.read_text(encoding="utf-8")).get(KEY, []) if path.is_file() else []
    fit = all(c["context"] and len(c["tokens"]) == len(c["logits"]) > ROWS for c in contexts)
    return contexts if fit else []


def softmax(logits: list[float], temperature: float) -> list[float]:
    """exp(logit / temperature), scaled to sum 1."""
    top = max(logits)
    weights = [math.exp((logit - top) / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def visible(token: str) -> str:
    """A token as it can be seen: spaces and line ends have signs of their own."""
    return token.translate({ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"})


def table(context: dict) -> str:
    """The likeliest tokens of one context and their shares at three temperatures."""
    shares = [softmax(context["logits"], temperature) for temperature in TEMPERATURES]
    order = sorted(range(len(context["logits"])), key=lambda i: -context["logits"][i])[:ROWS]
    head = "".join(f"<th>T = {temperature:g}</th>" for temperature in TEMPERATURES)
    rows = "".join(
        f"<tr><th><code>{html.escape(visible(context['tokens'][i]))}</code></th>"
        + "".join(f"<td>{100 * share[i]:.1f} %</td>" for share in shares) + "</tr>"
        for i in order
    )
    return (
        f"<table class='table'><caption>What follows “{html.escape(context['context'])}”, the likeliest "
        f"{ROWS} of {len(context['tokens'])} bytes</caption><thead><tr><th>Next byte</th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def setup(app: Sphinx) -> dict:
    app.add_directive("temperature", TemperatureDirective)
    app.add_js_file("temperature.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
