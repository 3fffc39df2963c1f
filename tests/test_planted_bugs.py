"""A bug planted in what a chapter writes by hand makes one of its claims fail."""

import runpy
from pathlib import Path

import pytest
from cells import run, sources

from labkit import ranks
from labkit.claims import ClaimFailed

ROOT = Path(__file__).resolve().parent.parent
BUGS = [(path.stem, number) for path in sorted((ROOT / "tests/planted_bugs").glob("ch*.py"))
        for number in range(len(runpy.run_path(str(path))["BUGS"]))]


@pytest.fixture(scope="module", autouse=True)
def end_the_ranks():
    yield
    ranks.stop()


@pytest.mark.parametrize(("chapter", "number"), BUGS)
def test_a_planted_bug_fails_its_claim(chapter, number):
    bug = runpy.run_path(str(ROOT / f"tests/planted_bugs/{chapter}.py"))["BUGS"][number]
    cells = sources(chapter[2:4])
    source = cells[bug["in"]]
    assert source.count(bug["old"]) == 1, f"{bug['old']!r} stands {source.count(bug['old'])} times"
    cells[bug["in"]] = source.replace(bug["old"], bug["new"])
    with pytest.raises(ClaimFailed) as failed:
        run(cells, bug["cells"])
    assert bug["claim"] in str(failed.value)
