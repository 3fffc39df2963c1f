"""DeepSpeed's compiled ops: each is built once, in sight, before the ranks start; and the locks they leave.

torch keeps a file ``lock`` open in an op's folder while it builds there, and waits for ever while one
lies there. A build that was killed leaves it behind: a lock that no process has open is stale.
"""

import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from labkit import env, processes
from labkit.progress import Progress

COMPILER = re.compile(r"(.*-)?(ninja|cc|c\+\+|gcc|g\+\+|clang|clang\+\+|nvcc|hipcc|cc1|cc1plus|cicc|ptxas|"
                      r"cudafe\+\+|collect2|as|ld|ld\..+)(-[\d.]+)?")
"""Names of processes that compile."""
BELIEVED_SECONDS = 1800.0
"""For how long a lock is believed whose holder cannot be looked at."""
NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "fuse.sshfs")
SHORT_OF = {"async_io": "the library libaio with its headers (Debian: libaio-dev, Fedora: libaio-devel; "
                        "Linux only)"}
CURES = {"fused_adam": '`"torch_adam": true` in optimizer.params takes torch\'s Adam instead',
         "cpu_adam": '`"torch_adam": true` in optimizer.params takes torch\'s Adam instead'}


def compiles(process: psutil.Process) -> bool:
    """True if this process is a compiler, or one of its parts."""
    with suppress(psutil.Error):
        return COMPILER.fullmatch(process.name()) is not None
    return False


def locks() -> list[Path]:
    """The locks that lie in the cache of compiled ops, held or stale."""
    return sorted(Path(os.environ["TORCH_EXTENSIONS_DIR"]).glob("**/lock"))


def holder(lock: Path) -> str | None:
    """Who builds under this lock, in words; None if nobody does, or it is gone."""
    try:
        found = lock.stat()
    except OSError:
        return None
    hidden = False
    for process in psutil.process_iter():
        try:
            for file in process.open_files():
                with suppress(OSError):
                    if os.path.samestat(os.stat(file.path), found):
                        return f"process {process.pid}"
        except psutil.AccessDenied:  # not ours to look at; torch builds from a Python process
            with suppress(psutil.Error):
                hidden = hidden or (process.uids().real == found.st_uid
                                    and process.name().lower().startswith("python"))
        except psutil.Error:
            pass
    young = time.time() - found.st_mtime < BELIEVED_SECONDS
    if young and hidden:
        return "a process of another user"
    if young and _on_a_network(lock):
        return "maybe another machine"
    return None


def _on_a_network(path: Path) -> bool:
    """True if the file lies on a disk that other machines write to."""
    with suppress(OSError):
        mounts = [mount for mount in psutil.disk_partitions(all=True)
                  if path.resolve().is_relative_to(mount.mountpoint)]
        nearest = max(mounts, key=lambda mount: len(mount.mountpoint), default=None)
        return nearest is not None and nearest.fstype.lower().startswith(NETWORK)
    return False


def remove_stale_locks(say: Callable[[str], None] | None = None) -> list[Path]:
    """Remove every lock that nobody holds; those that were removed."""
    removed = []
    for lock in locks():
        with suppress(OSError):
            before = lock.stat()
            if holder(lock) is None and os.path.samestat(before, lock.stat()):
                lock.unlink()
                removed.append(lock)
    if removed and say:
        names = ", ".join(lock.parent.name for lock in removed)
        say(f"removed the lock of a compilation that was killed ({names})")
    return removed


def prepare(names: Iterable[str] = env.AT_SETUP, say: Callable[[str], None] = print) -> None:
    """Build ops for later. Where one cannot be built, say so and go on."""
    remove_stale_locks(say)
    for op in names:
        try:
            build([op], say=say)
        except env.UserError as error:
            say(f"{error}. Only what needs {op} will not run")


def build(names: Iterable[str], *, asked: str = "the course", on_gpus: bool = False,
          say: Callable[[str], None] = print) -> None:
    """Build those of ``names`` that are missing, with a line that shows that time passes.

    ``asked``: who wants them, as the beginning of a sentence. Raises UserError, before anything starts
    if no compiler is there, else with the compiler's own words. An interrupt leaves no process and no lock.
    """
    ready = env.compiled_ops()
    for op in names:
        if ready[op]:
            continue
        cure = CURES.get(op, "")
        if env.compiler() is None:
            raise env.UserError(
                f"{asked} needs DeepSpeed's {op}, which must be compiled, and there is no C++ "
                f"compiler: install g++ (Debian: build-essential, macOS: xcode-select --install)"
                + (f"; or {cure}" if cure else ""))
        _await_others(op, say)
        if env.compiled_ops()[op]:
            continue
        say(f"{asked} needs DeepSpeed's {op}: compiling it, once, one to five minutes"
            + (f" ({cure}) …" if cure and asked != "the course" else " …"))
        _compile(op, cure, on_gpus)


def _await_others(op: str, say: Callable[[str], None]) -> None:
    """Wait while another process builds the op. A lock that gets stale meanwhile is removed."""
    lock = Path(os.environ["TORCH_EXTENSIONS_DIR"]) / op / "lock"
    who = holder(lock)
    if who:
        say(f"{who} compiles {op} at the moment: waiting for it …")
        with Progress(f"waiting for {op}") as bar:
            began = time.monotonic()
            while holder(lock):
                time.sleep(1.0)
                bar.note(f"{time.monotonic() - began:.0f} s")
    remove_stale_locks()


def _compile(op: str, cure: str, on_gpus: bool) -> None:
    """One op, in a process of its own, which can be ended at any time."""
    cache = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    cache.mkdir(parents=True, exist_ok=True)
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (str(env.ROOT),
                                                                       os.environ.get("PYTHONPATH")))))
    jobs = min(env.cores(), int(env.memory_gb()[1] / 1.5))  # a compiler takes more than 1 GB
    environ.setdefault("MAX_JOBS", str(max(1, jobs)))
    environ |= {} if on_gpus else {"DS_ACCELERATOR": "cpu"}
    log = cache / f"{op}.log"
    began, before = time.monotonic(), 0
    with log.open("wb") as file, Progress(f"compiling {op}") as bar:
        child = subprocess.Popen([sys.executable, "-m", "labkit.ops", op, str(os.getpid())], env=environ,
                                 stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                 start_new_session=True)
        try:
            while child.poll() is None:
                time.sleep(0.2)
                if (seconds := int(time.monotonic() - began)) > before:
                    before = seconds
                    bar.note(f"{seconds} s")
        finally:
            processes.end(processes.family(child.pid))
            child.wait()
            while orphans := processes.session(child.pid):  # started while their parent was killed
                processes.end(orphans)
            remove_stale_locks()
    if child.returncode == 0:
        return
    text = log.read_text(encoding="utf-8", errors="replace")
    if op in SHORT_OF and "labkit: not compatible" in text:
        raise env.UserError(f"DeepSpeed's {op} needs {SHORT_OF[op]}: install it, or leave NVMe out of the "
                            "file")
    raise env.UserError(f"DeepSpeed's {op} could not be compiled: {telling_line(text)}; the whole output "
                        f"is in {log}" + (f"; {cure}" if cure else ""))


def telling_line(text: str) -> str:
    """The line of a failed build that says why: the first error, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it ended without a word"]
    wanted = (r"(fatal )?error: |command not found|: not found|cannot find|No space left|Killed",
              r"^\w*(Error|Exception)\b")
    for pattern in wanted:
        for line in lines:
            if re.search(pattern, line):
                return line[:300]
    return lines[-1][:300]


def _main(op: str, parent: str) -> None:
    """In the child: build one op. Ends, with its compiler and without a lock, when the parent is gone."""
    def watch() -> None:
        while processes.is_alive(int(parent)):
            time.sleep(1.0)
        processes.end(psutil.Process().children(recursive=True))
        for lock in locks():
            if holder(lock) == f"process {os.getpid()}":
                lock.unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import deepspeed.ops.op_builder as builders

    builder = getattr(builders, env.OPS[op])()
    if not builder.is_compatible():
        sys.exit("labkit: not compatible")
    builder.load(verbose=False)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        sys.exit(1)
