"""Execute chapters and store them in one normal form, so that a diff shows what changed.

    python tests/notebooks.py chapters/*.ipynb            execute, normalise, store
    python tests/notebooks.py --check chapters/*.ipynb    only name files not in normal form

A notebook whose cell raises is not stored. Two executions give the same bytes if they print the
same: execution times, widget states and memory addresses are taken out. The normal form also writes the map
of a chapter's parts, and folds what a reader opens at will: claims' code, checks, solutions, depth.
"""

import argparse
import hashlib
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

from labkit import env, form

CELL_TIMEOUT_SECONDS = 1200  # as in the Makefile: for a busy machine
COLLAPSED = "jp-MarkdownHeadingCollapsed"
KEPT_CELL_METADATA = ("tags", "jupyter", "mystnb", "slideshow", COLLAPSED)
MAP_CELL = "map"
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(nb: NotebookNode, folder: Path, name: str) -> dict[int, float]:
    """Run all cells in ``folder`` in a fresh kernel of this Python; shows which cell is running.

    Returns {index of a code cell: seconds}. Raises CellExecutionError, CellTimeoutError or DeadKernelError.
    """
    # Found first: a kernel named python3 elsewhere may belong to another environment.
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    code_cells = sum(cell.cell_type == "code" for cell in nb.cells)
    seconds: dict[int, float] = {}
    with tqdm(total=code_cells, unit="cell", desc=name, ncols=100) as bar:

        def starts(cell: NotebookNode, cell_index: int) -> None:
            bar.set_postfix_str(cell.source.partition("\n")[0][:40])
            seconds[cell_index] = -time.perf_counter()

        def ends(cell: NotebookNode, cell_index: int, execute_reply: dict) -> None:
            bar.update()
            seconds[cell_index] += time.perf_counter()

        NotebookClient(
            nb,
            timeout=CELL_TIMEOUT_SECONDS,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            coalesce_streams=True,
            store_widget_state=False,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
            on_cell_execute=starts,
            on_cell_executed=ends,
        ).execute()
    return seconds


def normalise(nb: NotebookNode, number: str = "") -> NotebookNode:
    """Bring an executed notebook, of the chapter with this number, into normal form, in place."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    part_seconds = nb.metadata.get("labkit", {}).get("seconds", {})
    nb.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    if part_seconds:
        nb.metadata.labkit = NotebookNode(seconds=part_seconds)
    taken: set[str] = set()
    for cell in nb.cells:
        cell.source = cell.source.rstrip("\n")
        cell.id = cell_id(cell, taken)
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        fold(cell, form.follows(number))
        if cell.cell_type == "code":
            cell.outputs = [normal for normal in map(normal_output, cell.outputs) if normal]
            lift_alt(cell)
    for cell in nb.cells:
        if cell.id == MAP_CELL:
            intro = cell.source.partition("\n\n|")[0]
            cell.source = f"{intro}\n\n{form.chapter_map(form.cut(nb.cells, number), part_seconds)}"
    return nb


def fold(cell: NotebookNode, follows_form: bool) -> None:
    """Mark what the book folds, and JupyterLab too: solutions, checks, claims' code, questions, depth."""
    tags = cell.metadata.get("tags", [])
    prompts = {}
    if "solution" in tags:
        prompts = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide it"}
    if {"solution", "check", "picture"} & set(tags):
        cell.metadata.setdefault("jupyter", NotebookNode()).source_hidden = True
    if follows_form:
        if "claim" in tags:
            prompts = {"code_prompt_show": "Show how it is measured", "code_prompt_hide": "Hide it"}
        if "check" in tags:
            prompts = {"code_prompt_show": "Show the check", "code_prompt_hide": "Hide it"}
        for has, gets in (("claim", "hide-input"), ("ask", "remove-input")):
            if has in tags and gets not in tags:
                cell.metadata.tags = [*tags, gets]
        if cell.cell_type == "markdown" and re.match(r"#{3,6} Depth: ", cell.source):
            cell.metadata[COLLAPSED] = True
    if prompts:
        cell.metadata.setdefault("mystnb", NotebookNode()).update(prompts)


def part_times(nb: NotebookNode, number: str, seconds: dict[int, float]) -> dict[str, int]:
    """{part: whole seconds}; a time like the one already stored is kept, so that files repeat."""
    before, now = nb.metadata.get("labkit", {}).get("seconds", {}), {}
    for part in form.cut(nb.cells, number).parts:
        took = max(1, round(sum(seconds.get(cell["place"], 0) for cell in part.cells)))
        kept = before.get(part.name, 0)
        now[part.name] = kept if kept / 1.5 - 2 <= took <= kept * 1.5 + 2 else took
    return now


def cell_id(cell: NotebookNode, taken: set[str]) -> str:
    """The id the cell has; for a cell without one, or with another cell's, one from its source."""
    wanted = cell.get("id", "")
    number = 0
    while not wanted or wanted in taken:
        wanted = hashlib.sha256(f"{cell.source}{number}".encode()).hexdigest()[:8]
        number += 1
    taken.add(wanted)
    return wanted


def normal_output(output: NotebookNode) -> NotebookNode | None:
    """The output without what changes from run to run; None if nothing of it can be stored."""
    if output.output_type == "stream":
        output.text = ADDRESS.sub("0x…", output.text)
        return output if output.text else None
    for mime, content in list(output.get("data", {}).items()):
        if mime == WIDGET:  # lives in a live notebook only: a figure's still remains
            if "image/png" not in output.data:
                return None  # a progress bar
            del output.data[mime]
        if mime.startswith("text/"):
            output.data[mime] = ADDRESS.sub("0x…", "".join(content))
    return output


def lift_alt(cell: NotebookNode) -> None:
    """Put a figure's alternative text where the book's renderer looks for it."""
    alts = {o.metadata["labkit_alt"] for o in cell.outputs if "labkit_alt" in o.get("metadata", {})}
    if len(alts) > 1:
        raise ValueError(f"cell {cell.id} shows {len(alts)} figures: one a cell, for its alt text")
    if alts:
        cell.metadata.setdefault("mystnb", {})["image"] = {"alt": alts.pop()}


def write(nb: NotebookNode) -> str:
    """The file's text: sorted keys, one space of indent, as Jupyter writes it."""
    return nbformat.writes(nb) + "\n"


def store(path: Path) -> str:
    """Execute, normalise and write one notebook. Returns "" or what went wrong, in one line."""
    nb = nbformat.read(path, as_version=4)
    try:
        seconds = execute(nb, path.parent, path.name)
    except CellExecutionError as error:
        return f"{path}: {error.ename}: {error.evalue}\n{error.traceback}"
    except CellTimeoutError as error:
        busy = f"load {env.load() or 0:.1f} on {env.cores()} cores: more than the cores is a busy machine"
        return f"{path}: a cell ran longer than {CELL_TIMEOUT_SECONDS} s ({busy}). {str(error)[:500]}"
    except DeadKernelError:
        return f"{path}: the kernel died; it may have run out of memory"
    nb.metadata.labkit = NotebookNode(seconds=part_times(nb, path.name[:2], seconds))
    path.write_text(write(normalise(nb, path.name[:2])), encoding="utf-8")
    return ""


def is_normal(path: Path) -> bool:
    """True if storing the notebook again, as it is, would not change the file."""
    text = path.read_text(encoding="utf-8")
    return write(normalise(nbformat.reads(text, as_version=4), path.name[:2])) == text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="execute nothing, change nothing")
    parser.add_argument("notebooks", nargs="+", type=Path)
    options = parser.parse_args()
    failed = 0
    for path in options.notebooks:
        if options.check:
            problem = "" if is_normal(path) else f"{path}: not in normal form: run make notebooks"
        else:
            problem = store(path)
        if problem:
            print(problem, file=sys.stderr)
            failed += 1
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
