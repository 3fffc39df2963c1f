"""Fixtures that several test files share."""

import os

import psutil
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: a second thread mostly waits


@pytest.fixture
def no_process_left():
    """Fails the test if a process that it started (directly or not) is still alive afterwards."""
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    left = [child for child in me.children(recursive=True)
            if child.pid not in before and child.status() != psutil.STATUS_ZOMBIE]
    _, left = psutil.wait_procs(left, timeout=30)
    assert not left, f"left behind: {[child.cmdline() for child in left]}"
