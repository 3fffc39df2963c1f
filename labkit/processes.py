"""Ends processes for good, children and all."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def is_alive(pid: int) -> bool:
    """True if the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def signal_of(pid: int) -> int | None:
    """The signal that killed a process whose parent has not waited for it yet; None where nobody can tell.

    Linux only: the last field of /proc/PID/stat is the status that ``wait`` will return.
    """
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[49]) & 127 or None  # field 52, exit_code: see `man 5 proc`
    return None


def family(pid: int) -> list[psutil.Process]:
    """The process and everything it has started; empty if it is gone."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def session(leader: int) -> list[psutil.Process]:
    """All processes of the session that ``leader`` began, those whose parent is gone, too."""
    members = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == leader and is_alive(process.pid):
                members.append(process)
    return members


def end(processes: Iterable[psutil.Process], *, ask_first: float = 0.0) -> None:
    """Ask to end (SIGTERM), wait ``ask_first`` seconds, then kill. Returns when they are gone."""
    processes = list(processes)
    if ask_first:
        for process in processes:
            with suppress(psutil.Error):
                process.terminate()
        _, processes = psutil.wait_procs(processes, timeout=ask_first)
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
