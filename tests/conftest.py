"""Fixtures that several test files share."""

import psutil
import pytest


@pytest.fixture
def no_process_left():
    """Fails the test if a process that it started (directly or not) is still alive afterwards."""
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    left = [child for child in me.children(recursive=True)
            if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE]
    _, left = psutil.wait_procs(left, timeout=3)
    assert not left, f"left behind: {[child.cmdline() for child in left]}"
