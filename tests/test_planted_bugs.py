"""A bug planted in what a chapter writes by hand makes one of its claims fail."""

import runpy
from pathlib import Path

import nbformat
import pytest

from labkit import ranks
from labkit.claims import ClaimFailed

ROOT = Path(__file__).resolve().parent.parent
BUGS = [(path.stem, number) for path in sorted((ROOT / "tests/planted_bugs").glob("ch*.py"))
        for number in range(len(runpy.run_path(str(path))["BUGS"]))]


@pytest.fixture(scope="module", autouse=True)
def end_the_ranks():
    yield
    ranks.stop()


def run(cells: dict[str, str], names: list[str]) -> None:
    """Run these cells in this order as a notebook would; ``%%px`` cells go to the ranks."""
    shared: dict = {}
    for name in names:
        first, _, rest = cells[name].partition("\n")
        if first.startswith("%%px"):
            assert first.strip() == "%%px", "only a bare %%px here"
            ranks._pool.execute(rest)
        else:
            exec(compile(cells[name], f"<cell {name}>", "exec"), shared)


@pytest.mark.parametrize(("chapter", "number"), BUGS)
def test_a_planted_bug_fails_its_claim(chapter, number):
    bug = runpy.run_path(str(ROOT / f"tests/planted_bugs/{chapter}.py"))["BUGS"][number]
    (path,) = (ROOT / "chapters").glob(f"{chapter[2:4]}_*.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}
    source = cells[bug["in"]]
    assert source.count(bug["old"]) == 1, f"{bug['old']!r} stands {source.count(bug['old'])} times"
    cells[bug["in"]] = source.replace(bug["old"], bug["new"])
    with pytest.raises(ClaimFailed) as failed:
        run(cells, bug["cells"])
    assert bug["claim"] in str(failed.value)
