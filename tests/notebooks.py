"""Execute chapters and store them in one normal form, so that a diff shows what changed.

    python tests/notebooks.py chapters/*.ipynb            execute, normalise, store
    python tests/notebooks.py --check chapters/*.ipynb    only name files not in normal form

A notebook whose cell raises is not stored. Two executions give the same bytes if they print the
same: execution times, widget states and memory addresses are taken out.
"""

import argparse
import hashlib
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm import tqdm

CELL_TIMEOUT_SECONDS = 300
KEPT_CELL_METADATA = ("tags", "jupyter", "mystnb", "slideshow")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(nb: NotebookNode, folder: Path, name: str) -> None:
    """Run all cells in ``folder`` in a fresh kernel of this Python; shows which cell is running.

    Raises CellExecutionError, CellTimeoutError or DeadKernelError.
    """
    # Found first: a kernel named python3 elsewhere may belong to another environment.
    os.environ["JUPYTER_PATH"] = os.path.join(sys.prefix, "share", "jupyter")
    code_cells = sum(cell.cell_type == "code" for cell in nb.cells)
    with tqdm(total=code_cells, unit="cell", desc=name, ncols=100) as bar:

        def starts(cell: NotebookNode, cell_index: int) -> None:
            bar.set_postfix_str(cell.source.partition("\n")[0][:40])

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
            on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
        ).execute()


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring an executed notebook into normal form, in place."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    taken: set[str] = set()
    for cell in nb.cells:
        cell.source = cell.source.rstrip("\n")
        cell.id = cell_id(cell, taken)
        cell.metadata = NotebookNode(
            {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        )
        if "solution" in cell.metadata.get("tags", []):
            prompts = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide it"}
            cell.metadata.setdefault("mystnb", NotebookNode()).update(prompts)
        if cell.cell_type == "code":
            cell.outputs = [normal for normal in map(normal_output, cell.outputs) if normal]
            lift_alt(cell)
    return nb


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
        execute(nb, path.parent, path.name)
    except CellExecutionError as error:
        return f"{path}: {error.ename}: {error.evalue}\n{error.traceback}"
    except CellTimeoutError as error:
        return f"{path}: a cell ran longer than {CELL_TIMEOUT_SECONDS} s. {str(error)[:500]}"
    except DeadKernelError:
        return f"{path}: the kernel died; it may have run out of memory"
    path.write_text(write(normalise(nb)), encoding="utf-8")
    return ""


def is_normal(path: Path) -> bool:
    """True if storing the notebook again, as it is, would not change the file."""
    text = path.read_text(encoding="utf-8")
    return write(normalise(nbformat.reads(text, as_version=4))) == text


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
