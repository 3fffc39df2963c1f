"""For tests/ and for chapters under nbval: how long to wait, what a time-out says, what is compared."""

import pytest

from labkit import data, env

OUTPUT_SECONDS = 120  # between a cell's end and its output; nbval's 5 do not last on a busy machine
EDITION = "da39bac0cfb6633ef98c"
"""Hash of the language reference that the chapters' stored outputs were made with: CPython 3.11.7's."""


def pytest_collection_modifyitems(items):
    cells = [item for item in items if hasattr(item, "output_timeout")]
    same = not cells or data.card("python-reference").sha256.startswith(EDITION)
    for cell in cells:
        cell.output_timeout = OUTPUT_SECONDS
        if not same:  # every release of Python has another text, so chapters print other numbers
            cell.options["check"] = False


def pytest_report_header():
    if not data.card("python-reference").sha256.startswith(EDITION):
        return ("chapters: this Python has another edition of its language reference than 3.11.7; cells must "
                "run and claims hold, but printed numbers are not compared")
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and any(sign in report.longreprtext.lower() for sign in ("timeout", "timed out")):
        report.sections.append(("a time-out: was the machine busy?", how_busy()))
    return report


def how_busy() -> str:
    """One sentence: how many programs wanted a core in the last minute, and what that means."""
    load, cores = env.load(), env.cores()
    if load is None:
        return "this system does not say; run the test alone, while nothing else runs"
    said = f"in the last minute {load:.1f} programs at a time wanted one of the {cores} cores"
    if load > cores + 1:
        return f"the machine was busy: {said}; end what else runs and try again"
    return f"the machine was not busy: {said}; look for what waits"
