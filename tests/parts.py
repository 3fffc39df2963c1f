"""Write each part of each chapter as a notebook of its own, and each chapter with its parts in reverse.

    python tests/parts.py chapters _build/parts

nbval then runs every part alone in a fresh kernel, and holds its outputs to those stored in the chapter: a
part that leans on another one fails. Chapters that do not follow the reading form yet have no parts.
"""

import shutil
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_notebook

from labkit import form


def split(path: Path) -> dict[str, NotebookNode]:
    """{name: notebook}: one a part, and one with all parts, the last one first."""
    nb = nbformat.read(path, as_version=4)
    chapter = form.cut(nb.cells, path.name[:2])
    parts = {part.name.replace(" ", "_"): [nb.cells[cell["place"]] for cell in part.cells]
             for part in chapter.parts}
    if parts:
        parts["in_reverse"] = [cell for cells in reversed(parts.values()) for cell in cells]
    return {name: new_notebook(cells=cells, metadata=nb.metadata) for name, cells in parts.items()}


def main(chapters: Path, out: Path) -> None:
    """Write them all anew."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(chapters.glob("[0-9][0-9]_*.ipynb")):
        if form.follows(path.name[:2]):
            for name, nb in split(path).items():
                nbformat.write(nb, out / f"{path.stem}_{name}.ipynb")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
