"""A book of one small chapter in the reading form, and one of the older kind, built like the real one.

``python tests/reading_book.py FOLDER`` builds it to look at.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.claims import ASK_KEY, METADATA_KEY, Claim

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "How many numbers does a <rank> send in one step?"
TOC = """format: jb-book
root: book/index
chapters:
  - file: book/predictions
  - file: book/ledger
  - file: chapters/91_form
  - file: chapters/02_older
"""
INDEX = """# A small book

Chapter 91: {chapter-minutes}`91`. Chapter 2: {chapter-minutes}`02`.

```{temperature}
```

{ref}`Into depth <inside-depth>`
"""
NEXT_BYTES = [
    {"context": "for x i", "tokens": [*"nabcdefghij ", "\n"], "logits": [4, *[0.25 * i for i in range(12)]]},
    {"context": "a </script> b", "tokens": [*"nabcdefghijkl"], "logits": [float(-i) for i in range(13)]},
]
WRONG = 'WRONG = {"ex91-double": [("a", "b"), ("c", "d"), ("e", "f")], "ex91-other": [("a", "b")]}\n'


def claim(id: str, **fields) -> Claim:
    """A claim that holds, with what matters here set by ``fields``."""
    usual = {"statement": f"what {id} says", "predicted": "437,760", "measured": "437,760",
             "difference": "difference 0 %", "tolerance": "tolerance 0", "holds": True}
    return Claim(id=id, **{**usual, **fields})


def shown(html: str, metadata: dict | None = None) -> list:
    data = {"text/plain": "as text", "text/html": html}
    return [new_output("display_data", data=data, metadata=metadata or {})]


def code(source: str, *tags: str, outputs: list = (), **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=1,
                         metadata={"tags": list(tags), **metadata})


def claim_cell(of: Claim, *tags: str):
    """A claim's cell as the chapters store it."""
    prompts = {"code_prompt_show": "Show how it is measured", "code_prompt_hide": "Hide it"}
    outputs = shown(of.to_html(), {METADATA_KEY: of.model_dump()})
    return code(f"claim({of.id!r})", "claim", *tags, outputs=outputs, mystnb=prompts)


def ask_cell(id: str, question: str, unit: str):
    """A question's cell as ``labkit.claims.predict`` leaves it."""
    box = (f'<div class="labkit-ask" data-claim="{id}" data-unit="{unit}"><b>Predict first.</b> '
           f'{question.replace("<", "&lt;").replace(">", "&gt;")}</div>')
    return code(f"predict({id!r})  # the question's code", "ask",
                outputs=shown(box, {ASK_KEY: {"id": id, "question": question, "unit": unit}}))


def chapter() -> list:
    """The cells of the chapter in the reading form: a part, two depths, claims, an exercise."""
    depth = {"jp-MarkdownHeadingCollapsed": True}
    cases = [{"case": name, "predicted": "1", "measured": "1", "difference": "0 %"} for name in "ab"]
    return [
        new_markdown_cell("# 91 A chapter in the form\n\nThe first words."),
        new_markdown_cell("## 91.1 A section\n\nIts words."),
        new_markdown_cell("(part-91-1-a)=\n### 91.1 a One part\n\nWhy is it so? See [inside](inside-depth)."),
        code("x = 1", "setup"),
        ask_cell("ch91-asked", QUESTION, "numbers"),
        claim_cell(claim("ch91-asked", numbers=[437760.0, 437760.0]), "hide-input"),
        new_markdown_cell("A sentence between."),
        ask_cell("ch91-zero", "How many bytes are left over?", "bytes"),
        code("print('between')", outputs=[new_output("stream", name="stdout", text="between")]),
        claim_cell(claim("ch91-zero", predicted="0", measured="0", numbers=[0.0, 0.0]), "hide-input"),
        ask_cell("ch91-bound", "How large is it at the least?", "%"),
        claim_cell(claim("ch91-bound", predicted="at least 30 %", measured="40 %", numbers=[40.0]),
                   "hide-input"),
        claim_cell(claim("ch91-unasked", control="of noise 7", cases=cases), "hide-input"),
        new_markdown_cell("**Exercise `ex91-double`** (3 minutes). Double it."),
        code("def double(x):\n    raise NotImplementedError", "exercise", "ex:ex91-double"),
        code("check('ex91-double')", "check", "ex:ex91-double", "hide-input", jupyter={"source_hidden": True},
             outputs=[new_output("stream", name="stdout", text="ex91-double: not attempted yet")]),
        code("def double(x):\n    return 2 * x", "solution", "ex:ex91-double", "hide-cell"),
        new_markdown_cell("#### Depth: Why $x$ is `x`\n\nIn a line: it is.", metadata=depth),
        new_markdown_cell("(inside-depth)=\n##### A derivation\n\nThe word quicksilver. " + "word " * 300),
        claim_cell(claim("ch91-deep"), "hide-input"),
        new_markdown_cell("#### Depth: A second look\n\nThe same once more.", metadata=depth),
        new_markdown_cell("Nothing but this."),
        new_markdown_cell("#### Remember\n\nThe main line goes on."),
        new_markdown_cell("(after-depth)=\n## 91.2 After the part\n\nThe last words."),
    ]


def older_chapter() -> list:
    return [new_markdown_cell("# 2 An older chapter\n\n" + "word " * 240),
            claim_cell(claim("ch02-older", noisy=True))]


def write(folder: Path) -> None:
    """The sources of the book; the extension and its scripts are the real ones."""
    for name in ("book", "chapters", "benchmarks", "tests/wrong_answers"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copy(ROOT / "book" / "predictions.md", folder / "book")
    (folder / "book" / "references.bib").touch()
    for name in ("_ext", "_static"):
        (folder / "book" / name).symlink_to(ROOT / "book" / name)
    (folder / "_toc.yml").write_text(TOC)
    (folder / "book" / "index.md").write_text(INDEX)
    (folder / "book" / "ledger.md").write_text("# Ledger\n\n```{claims-ledger}\n```\n")
    (folder / "benchmarks" / "history.json").write_text(json.dumps({"next_bytes": NEXT_BYTES}))
    (folder / "tests" / "wrong_answers" / "ch91.py").write_text(WRONG)
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, cells in (("91_form", chapter()), ("02_older", older_chapter())):
        nbformat.write(new_notebook(cells=cells, metadata=spec), folder / "chapters" / f"{name}.ipynb")


def build(source: Path, out: Path) -> Path:
    """Build the book that lies in ``source``; returns the folder of its pages."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source)]
    options = ["--path-output", str(out), "-W", "-n", "--keep-going"]
    built = subprocess.run([*command, *options], capture_output=True, text=True, timeout=1200)
    assert built.returncode == 0, (built.stdout + built.stderr)[-3000:]
    return out / "_build" / "html"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write(target)
    print(build(target, target / "out"))
