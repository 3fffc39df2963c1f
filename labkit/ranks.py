"""The rank pool: real ranks that a notebook can talk to, and that never hang.

Each rank is a Jupyter kernel of its own on this machine, with RANK, WORLD_SIZE and MASTER_* set,
one process group (gloo, or NCCL when there is a GPU for every rank) and DeepSpeed imported. What a
``%%px`` cell defines on a rank stays there for the next cell, as in any notebook.

A pool never waits for ever. A cell ends with a sentence that says which rank does what when

* a rank raises and another still waits for it ``grace`` seconds later,
* a rank dies,
* no rank has computed anything for ``stall`` seconds (they wait for each other), or
* ``timeout`` seconds are over (where none are given: 300, and more on a busy machine).

In the last resort the ranks are ended; the next cell starts fresh ones. The ranks end by themselves
when the notebook's kernel ends.
"""

import argparse
import atexit
import faulthandler
import functools
import inspect
import linecache
import os
import pickle
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import zmq
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

from labkit import env, processes
from labkit.check import AnswerFailed, is_stub, tell_error

START_SECONDS = 90.0  # until every rank has joined the others, on a machine with a core for each
ANSWER_SECONDS = 60.0  # until a kernel that was just started answers there; one that does not is replaced
CELL_SECONDS = 300.0  # for a cell there
ON_RANKS_SECONDS = 12.0  # for all calls of an exercise's answer there
_pool: "Pool | None" = None  # the one that %%px talks to
_pools: "dict[int, Pool]" = {}  # by number of ranks


class RankError(RuntimeError):
    """Something went wrong on a rank. The message holds the rank's own traceback.

    ``raised``: what ranks raised, ``{1: ("ValueError", "planted")}``. ``waiting``: where others
    were, ``{0: "in recv, line 4 of the cell"}``.
    """

    def __init__(self, message: str, raised: dict[int, tuple[str, str]] | None = None,
                 waiting: dict[int, str] | None = None) -> None:
        super().__init__(message)
        self.raised, self.waiting = raised or {}, waiting or {}

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class _SamePython(KernelSpecManager):
    """Ranks run under the Python of the notebook, whatever kernels are installed beside it."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
                "--IPKernelApp.capture_fd_output=False", "--HistoryManager.enabled=False"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class _Silent(RankError):
    """A kernel lives, or has died, without ever having answered."""


class _Rank:
    """One rank: its kernel, its client, and what it has said in the running cell.

    They talk over sockets that are files in ``folder``: another program may take a TCP port between
    its choice and its use.
    """

    def __init__(self, rank: int, environ: dict[str, str], folder: Path) -> None:
        self.rank = rank
        self.log = folder / f"rank{rank}.log"
        fits = len(os.fsencode(folder)) < 80  # a socket's path may have some 100 bytes
        self.manager = KernelManager(kernel_spec_manager=_SamePython(),
                                     transport="ipc" if fits else "tcp",
                                     connection_file=str(folder / f"rank{rank}.json"))
        with self.log.open("ab") as log:
            self.manager.start_kernel(env=environ, stdout=log, stderr=log)
        self.process = psutil.Process(self.manager.provisioner.process.pid)
        self.client = self.manager.client()
        self.client.start_channels(stdin=False, hb=False, control=False)
        self.begin(None)

    def begin(self, code: str | None) -> None:
        """Send a cell, or (None) only forget the last one."""
        self.outputs: list[dict] = []
        self.error: dict | None = None
        self.done = code is None
        if code is not None:
            self.msg_id = self.client.execute(code, store_history=False, allow_stdin=False)

    def collect(self) -> None:
        """Take in whatever the rank has published so far."""
        while not self.done and self.client.iopub_channel.socket.poll(0):
            message = self.client.get_iopub_msg(timeout=1)
            if message["parent_header"].get("msg_id") != self.msg_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                self.done = True
            elif kind == "error":
                self.error = content
            elif kind in ("stream", "display_data", "execute_result"):
                self.outputs.append(content)

    @property
    def exit_code(self) -> int | None:
        """None while the rank lives, else its exit status (negative: a signal's number)."""
        return self.manager.provisioner.process.poll()

    def cpu_seconds(self) -> float:
        try:
            times = self.process.cpu_times()
            return times.user + times.system
        except psutil.Error:
            return 0.0

    def helpers(self) -> bool:
        """True while processes that the rank started (a compiler, say) are at work."""
        try:
            return bool(self.process.children())
        except psutil.Error:
            return False

    def where(self, home: str = "") -> str:
        """What the rank is doing right now, from its own Python stack (``home``: see _read_stack)."""
        start = self.log.stat().st_size
        try:
            self.process.send_signal(signal.SIGUSR1)
        except psutil.Error:
            return "gone"
        stack, end = b"", time.monotonic() + 2.0
        while time.monotonic() < end:  # on a busy machine the answer may take its time
            time.sleep(0.15)
            before, stack = stack, self.log.read_bytes()[start:]
            if stack and stack == before:
                break
        stack = stack.decode(errors="replace")
        return _read_stack(stack, home)

    def end(self) -> None:
        """End the rank and whatever it has started. Returns when they are gone."""
        processes.end(processes.family(self.process.pid))
        with suppress(OSError):  # what a rank that is already dead had started
            os.killpg(self.process.pid, signal.SIGKILL)
        self.client.stop_channels()
        self.manager.provisioner.process.wait()
        self.manager.cleanup_connection_file()
        self.manager.cleanup_ipc_files()
        self.manager.context.destroy(linger=0)


def _read_stack(stack: str, home: str = "") -> str:
    """``in all_reduce, line 3 of the cell`` from a faulthandler dump, or what else it shows.

    A cell is a file that Jupyter made, or ``home``.
    """
    for thread in re.split(r"\n\s*\n", stack):
        frames = re.findall(r'File "(.+?)", line (\d+) in (.+)', thread)
        if any(name == _expect_nothing_left.__name__ for *_, name in frames):
            return "at the end of your function"
        cell = [i for i, (path, *_) in enumerate(frames) if path == home or re.search(r"ipykernel_\d+", path)]
        if not cell:
            continue
        line = frames[cell[0]][1]
        calls = [name for path, _, name in frames[: cell[0]]
                 if "distributed" in path or "deepspeed" in path or name == _wait.__name__]
        what = next((name for name in reversed(calls) if name not in ("wrapper", "log_wrapper")), "")
        what = "wait" if what == _wait.__name__ else what
        return f"in {what}, line {line} of the cell" if what else f"at line {line} of the cell"
    return "busy outside the cell's own code"


class Pool:
    """``num_ranks`` ranks on this machine. Use :func:`start`, which re-uses a pool that lives."""

    def __init__(self, num_ranks: int, *, timeout: float | None = None, grace: float = 10.0,
                 stall: float = 15.0) -> None:
        if not isinstance(num_ranks, int) or not 1 <= num_ranks <= 64:
            raise env.UserError(f"a pool needs 1 to 64 ranks, not {num_ranks!r}")
        self.num_ranks = num_ranks
        self.timeout, self.grace, self.stall = timeout, grace, stall
        self.folder = Path(tempfile.mkdtemp(prefix="labkit-ranks-"))
        self.ranks: list[_Rank] = []
        self._calls = 0
        self._home = ""
        try:
            self._start_ranks()
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        state = "ready" if self.alive else "stopped"
        return f"<{self.num_ranks} ranks, {state}>"

    @property
    def alive(self) -> bool:
        """True if every rank is there and none was ended after a failure."""
        return bool(self.ranks) and all(rank.exit_code is None for rank in self.ranks)

    def _start_ranks(self) -> None:
        for last in (False, True):
            try:
                return self._try_to_start()
            except BaseException as error:  # also when the reader presses stop
                self._end_ranks()  # leave no half-started rank
                if last or not isinstance(error, _Silent):
                    raise

    def _try_to_start(self) -> None:
        port = str(env.free_port())
        on_cpu = env.accelerators() < self.num_ranks
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, env.cores() // self.num_ranks))
        for rank in range(self.num_ranks):
            environ = dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank),
                           WORLD_SIZE=str(self.num_ranks), LOCAL_WORLD_SIZE=str(self.num_ranks),
                           MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OMP_NUM_THREADS=threads)
            if on_cpu:
                environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
            self.ranks.append(_Rank(rank, environ, self.folder))
        slow = max(env.busy(), self.num_ranks / env.cores())
        for rank in self.ranks:
            try:
                rank.client.wait_for_ready(timeout=ANSWER_SECONDS * slow)
            except RuntimeError as error:
                log = rank.log.read_text(errors="replace")[-2000:]
                raise _Silent(f"rank {rank.rank} did not start within {ANSWER_SECONDS:g} s, "
                              f"twice{_how_busy(slow)}: {error}\n{log}") from None
        limit = self.timeout or 10 * CELL_SECONDS
        join = f"import labkit.ranks; labkit.ranks._join({limit!r}, {str(self.folder)!r})"
        self._gather(range(self.num_ranks), join, START_SECONDS * slow, stall=START_SECONDS * slow)

    def _end_ranks(self) -> None:
        for rank in self.ranks:
            rank.end()
        self.ranks = []

    def stop(self) -> None:
        """End all ranks. Safe to call twice."""
        self._end_ranks()
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self) -> "Pool":
        """End all ranks and start fresh ones: what the old ones held is gone."""
        self._end_ranks()
        self.folder.mkdir(exist_ok=True)
        self._start_ranks()
        return self

    def execute(self, code: str, *, ranks: Sequence[int] | None = None,
                timeout: float | None = None, stall: float | None = None) -> None:
        """Run ``code`` on every rank (or those in ``ranks``) and show what each one printed.

        Raises RankError with the failing rank's traceback, or with what each rank was waiting for.
        """
        if not self.alive:
            print("the ranks were ended after a failure: fresh ones start, "
                  "what the old ones held is gone")
            self.restart()
        targets = range(self.num_ranks) if ranks is None else sorted(set(ranks))
        bad = [r for r in targets if not 0 <= r < self.num_ranks]
        if bad:
            raise env.UserError(f"no rank {bad[0]}: this pool has ranks 0 to {self.num_ranks - 1}")
        try:
            limit = timeout or self.timeout or CELL_SECONDS * env.busy()
            self._gather(targets, code, limit, stall or self.stall)
        finally:
            _show(self.ranks)

    def run(self, function: Callable, *args: Any, timeout: float | None = None,
            stall: float | None = None) -> list[Any]:
        """Call ``function(*args)`` on every rank; return the results in rank order.

        The function may be defined in the notebook. Arguments and results travel pickled.
        """
        self._home = _file(function)
        self._calls += 1
        call = self.folder / f"call{self._calls}"
        if not self.alive:
            self.restart()
        call.write_bytes(cloudpickle.dumps((function, args)))
        self.execute(f"labkit.ranks._call({str(call)!r})", timeout=timeout, stall=stall)
        results = [Path(f"{call}.{rank}") for rank in range(self.num_ranks)]
        values = [pickle.loads(path.read_bytes()) for path in results]
        for path in [call, *results]:
            path.unlink()
        return values

    def _gather(self, targets: Iterable[int], code: str, timeout: float, stall: float) -> None:
        """Send ``code`` and wait until each target rank has ended it, or the wait makes no sense."""
        for rank in self.ranks:
            rank.begin(code if rank.rank in targets else None)
        began = time.monotonic()
        failed_at: float | None = None
        computed, computed_at = 0.0, began
        poller = zmq.Poller()
        for rank in self.ranks:
            poller.register(rank.client.iopub_channel.socket, zmq.POLLIN)
        try:
            while not all(rank.done for rank in self.ranks):
                poller.poll(200)
                for rank in self.ranks:
                    rank.collect()
                now = time.monotonic()
                running = [rank for rank in self.ranks if not rank.done]
                if any(rank.exit_code is not None for rank in self.ranks):
                    self._wait_for_peers(3.0)
                    self._give_up("a rank died")
                if any(rank.error for rank in self.ranks):
                    failed_at = failed_at or now
                grace = min(self.grace, stall)
                if running and failed_at and now - failed_at > grace:
                    self._give_up(f"a rank failed and others still waited {grace:g} s later")
                cpu = sum(rank.cpu_seconds() for rank in running)
                if abs(cpu - computed) > 0.02 * (now - computed_at) + 0.05:
                    computed, computed_at = cpu, now
                if running and now - computed_at > stall and not any(r.helpers() for r in running):
                    computed_at = now
                    if any(r.where(self._home).startswith("in ") for r in running):  # not asleep
                        self._give_up(f"no rank has computed anything for {stall:g} s: "
                                      "they wait for what will not come")
                if running and now - began > timeout:
                    self._give_up(f"the cell ran longer than its time-out of {timeout:.4g} s"
                                  f"{_how_busy(env.busy())}")
        except KeyboardInterrupt:
            self._interrupt()
            raise
        if any(rank.error for rank in self.ranks):
            raise RankError(_tell_errors(self.ranks), _raised(self.ranks))

    def _wait_for_peers(self, seconds: float) -> None:
        """Give the living ranks a moment to notice that one of them is gone."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(r.exit_code is None and not r.done for r in self.ranks):
            for rank in self.ranks:
                rank.collect()
            time.sleep(0.05)

    def _interrupt(self) -> None:
        """The reader pressed stop: interrupt the ranks; end them if they do not listen."""
        for rank in self.ranks:
            if not rank.done:
                rank.process.send_signal(signal.SIGINT)
        self._wait_for_peers(2.0)
        if not all(rank.done for rank in self.ranks):
            self._end_ranks()
            print("the ranks were waiting inside a collective and have been ended")

    def _give_up(self, why: str) -> None:
        """Say what each rank was doing, end them all, raise."""
        lines, waiting = [why], {}
        for rank in self.ranks:
            code = rank.exit_code
            if code is not None:
                name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                lines.append(f"  rank {rank.rank} is dead ({name})")
            elif rank.error:
                lines.append(f"  rank {rank.rank} raised {_headline(rank.error)[:120]}")
            elif rank.done:
                lines.append(f"  rank {rank.rank} had finished the cell")
            else:
                waiting[rank.rank] = rank.where(self._home)
                lines.append(f"  rank {rank.rank} was {waiting[rank.rank]}")
        died = any(rank.exit_code is not None for rank in self.ranks)
        errors = "" if died else _tell_errors(self.ranks)  # its peers' errors are only the echo
        raised = _raised(self.ranks)
        _show(self.ranks)
        self._end_ranks()
        lines.append("All ranks have been ended; the next cell starts fresh ones. "
                     "Run again the cells that define what it needs.")
        raise RankError("\n".join(lines + ([errors] if errors else [])),
                        raised, waiting)


def _file(function: Callable) -> str:
    """The file or cell that defines a function, below its wrappers."""
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_filename", "")


def _how_busy(slow: float) -> str:
    """Words for a time-out on a machine that had other work."""
    load = env.load()
    return f" on a busy machine (load {load:.1f} on {env.cores()} cores)" if load and slow > 1.5 else ""


def _headline(error: dict) -> str:
    return f"{error['ename']}: {error['evalue']}".splitlines()[0]


def _raised(ranks: Iterable[_Rank]) -> dict[int, tuple[str, str]]:
    return {rank.rank: (rank.error["ename"], rank.error["evalue"]) for rank in ranks if rank.error}


def _tell_errors(ranks: Iterable[_Rank]) -> str:
    """One traceback for each different error, headed by the ranks that raised it."""
    raised: dict[str, list[int]] = {}
    tracebacks: dict[str, str] = {}
    for rank in ranks:
        if rank.error:
            headline = _headline(rank.error)
            raised.setdefault(headline, []).append(rank.rank)
            tracebacks[headline] = "\n".join(rank.error["traceback"])
    blocks = []
    for headline, who in raised.items():
        names = " and ".join(map(str, who))
        blocks.append(f"rank{'s' if len(who) > 1 else ''} {names} raised {headline}\n"
                      f"{tracebacks[headline]}")
    return "\n".join(blocks)


def _show(ranks: Sequence[_Rank]) -> None:
    """Print what the ranks printed, in rank order; one line for all when all said the same."""
    texts = {}
    for rank in ranks:
        texts[rank.rank] = "".join(
            o.get("text") or (o["data"].get("text/plain", "") + "\n") for o in rank.outputs
            if "image/png" not in o.get("data", {}))
    if len(ranks) > 1 and len(set(texts.values())) == 1:
        _print_labelled("all ranks", texts[ranks[0].rank])
    else:
        for rank, text in texts.items():
            _print_labelled(f"rank {rank}", text)
    for rank in ranks:
        for output in rank.outputs:
            if "image/png" in output.get("data", {}):
                from IPython.display import publish_display_data

                publish_display_data(output["data"], output.get("metadata"))
        rank.outputs = []


def _print_labelled(label: str, text: str) -> None:
    for line in text.splitlines():
        print(f"[{label}] {line}")


# What runs on a rank


def _join(timeout: float, folder: str) -> None:
    """First call on every rank: join the process group and be ready to say where we stand."""
    rank = os.environ["RANK"]
    log = open(Path(folder) / f"rank{rank}.log", "a")  # noqa: SIM115 - lives as long as the rank
    faulthandler.register(signal.SIGUSR1, file=log, all_threads=True)
    env.init_distributed(timeout)

    from torch.distributed import Work

    Work.wait, Work._labkit_wait = _wait, Work.wait


def _wait(work: Any, *args: Any, **kwargs: Any) -> Any:
    """``work.wait()``, as a Python function, so that a rank's stack shows that it waits there."""
    return work._labkit_wait(*args, **kwargs)


def _call(path: str) -> None:
    """Run a pickled ``(function, args)`` and leave the pickled result beside it."""
    function, args = pickle.loads(Path(path).read_bytes())
    result = function(*args)
    Path(f"{path}.{os.environ['RANK']}").write_bytes(cloudpickle.dumps(result))


def _answer(function: Callable, source: list[str], columns: Sequence[Sequence]) -> Any:
    """Call a reader's function with this rank's entries; tell an exception in one line."""
    from torch import Tensor, distributed

    rank, home = distributed.get_rank(), _file(function)
    linecache.cache.setdefault(home, (0, None, source, home))  # the cell's text is not here
    args = [column[rank] for column in columns]
    args = [arg.to(env.device()) if isinstance(arg, Tensor) else arg for arg in args]
    try:
        result = function(*args)
    except Exception as error:
        if isinstance(error, NotImplementedError) and is_stub(error, function):
            raise
        raise AnswerFailed(f"raises {tell_error(error, function)}") from None
    if distributed.get_backend() == "gloo":
        _expect_nothing_left()
    return result.cpu() if isinstance(result, Tensor) else result


def _expect_nothing_left() -> None:
    """Raise if a message waits that nobody received: it would be taken for the next one."""
    import torch
    import torch.distributed as dist

    rank = dist.get_rank()
    others = [other for other in range(dist.get_world_size()) if other != rank]
    mark = torch.full((4096,), -7.25)
    sending = [dist.isend(mark, other) for other in others]
    arrived = {other: torch.zeros_like(mark) for other in others}
    for other in others:
        dist.recv(arrived[other], other)
    dist.barrier()  # until all have looked: a send that is dropped does not arrive
    del sending
    for other in others:
        if not arrived[other].equal(mark):
            raise AnswerFailed(f"leaves a message from rank {other} to rank {rank} "
                               "that is never received")


# What the reader calls


def start(num_ranks: int = 2, **limits: float) -> Pool:
    """Start ``num_ranks`` ranks, or return the pool that already runs with as many.

    A pool of another size goes on, idle, until :func:`stop` or its own ``stop``. ``limits``:
    ``timeout``, ``grace`` and ``stall`` in seconds, see the module's text. Afterwards a cell that
    begins with ``%%px`` runs on every rank.
    """
    global _pool
    _pool = _get(num_ranks, **limits)
    _register_px()
    print(f"{num_ranks} rank{'s' if num_ranks > 1 else ''} ready")
    return _pool


def _get(num_ranks: int, **limits: float) -> Pool:
    pool = _pools.get(num_ranks)
    if pool is None or not pool.alive:
        if pool is not None:
            pool.stop()
        pool = _pools[num_ranks] = Pool(num_ranks, **limits)
    for name, value in limits.items():
        setattr(pool, name, value)
    return pool


def on_ranks(function: Callable, num_ranks: int, *, stall: float = 5.0,
             timeout: float | None = None) -> Callable:
    """An exercise's function, run on real ranks: for :func:`labkit.check.check`.

    The result takes, for each argument, a list with one entry a rank (tensors move to the rank's
    device) and returns the ranks' results as a list. Ranks that wait for each other are reported after
    ``stall`` seconds, and all calls together after ``timeout`` (12, and more on a busy machine): well before
    the check's own limit.

    Raises:
        AnswerFailed: what went wrong on which rank, in words. The next call finds fresh ranks.
    """
    if not callable(function):
        return function  # the check has words for it
    pool = _get(num_ranks)  # now: starting ranks must not count as the answer's time
    call = functools.partial(_answer, function, linecache.getlines(_file(function)))
    call.__wrapped__ = function  # whose lines a waiting rank's stack is searched for
    spent, timeout = 0.0, timeout or ON_RANKS_SECONDS * min(5.0, env.busy())

    @functools.wraps(function)
    def answer(*columns: Sequence) -> list[Any]:
        nonlocal spent
        began = time.monotonic()
        try:
            return pool.run(call, columns, stall=stall, timeout=max(1.0, timeout - spent))
        except RankError as error:
            if any(kind == "NotImplementedError" for kind, _ in error.raised.values()):
                raise NotImplementedError from None
            pool._end_ranks()  # messages may still be under way: fresh ranks know nothing of them
            raise AnswerFailed(_in_words(error, num_ranks, timeout)) from None
        except BaseException:  # the check's own limit, or the reader pressed stop
            pool._end_ranks()
            raise
        finally:
            spent += time.monotonic() - began

    return answer


def _in_words(error: RankError, num_ranks: int, timeout: float) -> str:
    """One sentence, its subject left out: what happened on the ranks while an answer ran."""
    waiting = "; ".join(f"rank {rank} {where}" for rank, where in error.waiting.items())
    if error.raised and " is dead " not in str(error):
        rank, (_, said) = next(iter(error.raised.items()))
        return f"{said}, on rank {rank}" + (f". Meanwhile {waiting}" if waiting else "")
    if any(where.startswith("in ") for where in error.waiting.values()):
        ended = [f"; rank {rank} had finished" for rank in range(num_ranks)
                 if rank not in error.waiting]
        return f"makes your ranks wait for each other: {waiting}{''.join(ended)}"
    if waiting:
        return f"did not finish within {timeout:g} s: {waiting}"
    dead = "; ".join(line.strip() for line in str(error).splitlines() if " is dead " in line)
    why = " (as when a message is longer than the tensor that receives it)" * ("SIGABRT" in dead)
    return f"ends a process: {dead}{why}"


def pools() -> list[Pool]:
    """The pools that are alive."""
    return [pool for pool in _pools.values() if pool.alive]


def stop() -> None:
    """End all pools."""
    global _pool
    _pool = None
    while _pools:
        _pools.popitem()[1].stop()


atexit.register(stop)

_px_options = argparse.ArgumentParser(prog="%%px", exit_on_error=False, add_help=False,
                                      allow_abbrev=False)
_px_options.add_argument("--ranks", help="only these, such as 0 or 0,2")
_px_options.add_argument("--timeout", type=float, help="seconds this cell may take")


def px(line: str, cell: str) -> None:
    """Cell magic ``%%px [--ranks 0,1] [--timeout SECONDS]``: run the cell on the ranks."""
    if _pool is None:
        raise env.UserError("no ranks yet: run `pool = labkit.ranks.start(2)` first")
    try:
        options = _px_options.parse_args(shlex.split(line))
        ranks = [int(r) for r in options.ranks.split(",")] if options.ranks else None
    except (argparse.ArgumentError, ValueError, SystemExit) as error:
        raise env.UserError(f"%%px {line}: {error}; write e.g. `%%px --ranks 0,1 --timeout 20`") from None
    _pool.execute(cell, ranks=ranks, timeout=options.timeout)


def _register_px() -> None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.register_magic_function(px, "cell", "px")
