"""Run a chapter's named cells, so that tests hold the very code that readers see."""

from pathlib import Path

import nbformat

from labkit import ranks

CHAPTERS = Path(__file__).resolve().parent.parent / "chapters"


def sources(chapter: str) -> dict[str, str]:
    """{cell id: source} of the chapter with this number, such as ``"07"``."""
    (path,) = CHAPTERS.glob(f"{chapter}_*.ipynb")
    return {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}


def run(cells: dict[str, str], names: list[str]) -> dict:
    """Run these cells in this order as a notebook would; returns the names they define.

    ``%%px`` cells go to the ranks.
    """
    shared: dict = {}
    for name in names:
        first, _, rest = cells[name].partition("\n")
        if first.startswith("%%px"):
            assert first.strip() == "%%px", "only a bare %%px here"
            ranks._pool.execute(rest)
        else:
            exec(compile(cells[name], f"<cell {name}>", "exec"), shared)
    return shared
