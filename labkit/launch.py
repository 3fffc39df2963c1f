"""Runs a lab under the real `deepspeed` launcher and never leaves a process behind.

A lab is a folder ``labs/labNN_name/`` with a ``train.py`` that holds ``parser()`` (its own flags)
and a ``ds_config.json``. What a reader types in a terminal is what is started here:
``deepspeed --num_accelerators N train.py --run_dir … --config …``.
"""

import datetime
import difflib
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentError, ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from labkit import configs, env, ops, processes, rehearsal
from labkit import hosts as hosts_module
from labkit.hosts import read_hostfile
from labkit.progress import Progress
from labkit.records import PARENT, Record, Run, RunInfo, read_run

GRACE_SECONDS = 5.0
"""How long the other ranks may go on after one has failed."""
PATIENCE_SECONDS = 300.0
"""How long all ranks may be silent on a machine that is neither slow nor busy."""
START_SECONDS = 10.0
"""What a rank takes there to its first record."""
NEEDS_DISK_MB = 50


class LabFailed(RuntimeError):
    """A lab that started did not reach its end. The message names the rank and shows its traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


def labs() -> dict[str, Path]:
    """The labs by short name: ``{"lab01": …/labs/lab01_first_run}``."""
    return {path.parent.name.split("_")[0]: path.parent
            for path in sorted((env.ROOT / "labs").glob("lab*/train.py"))}


def find_lab(name: str) -> Path:
    """The folder of lab ``name`` (``lab01`` or ``lab01_first_run``). Raises UserError if unknown."""
    known = labs()
    for short, folder in known.items():
        if name in (short, folder.name):
            return folder
    near = difflib.get_close_matches(name, known, 1) or list(known)[:1]
    raise env.UserError(f"no lab {name!r}: there are {', '.join(known)}; did you mean {near[0]}?")


def num_ranks(ranks: int | str) -> int:
    """``"auto"`` means one rank for each GPU, or two on a CPU. Raises UserError if not 1 to 1024."""
    if ranks == "auto":
        return env.accelerators() or 2
    if not str(ranks).isdecimal() or not 1 <= int(ranks) <= 1024:
        raise env.UserError(f"--ranks must be 'auto' or a whole number from 1 to 1024, not {ranks!r}")
    return int(ranks)


def run(lab: str, *, ranks: int | str = "auto", args: Sequence[str] = (),
        config: str | Path | None = None, hostfile: str | Path | None = None,
        node_rank: int | None = None, master_addr: str | None = None,
        master_port: int | None = None, out: str | Path | None = None,
        timeout: float | None = None, meet: float = 600.0, fill_auto: bool = False) -> Run:
    """Run a lab on ``ranks`` ranks and return its records.

    ``args``: the lab's own flags. ``config``: DeepSpeed JSON instead of the lab's own; where the lab's own
    batch does not divide among the ranks, the nearest that does is taken. ``fill_auto``: where that file
    says "auto", put what transformers' Trainer would (config_autos). ``hostfile``: several machines,
    reached by ssh, or, with ``node_rank`` and ``master_addr``, started by hand on each; these wait
    ``meet`` seconds for each other. ``timeout``: seconds without any new record after which the run is
    ended (default: 300, and more on a machine that shows itself slow or busy; compiling does not count).
    Raises UserError for bad input before anything starts, LabFailed if a rank fails; the records written
    up to then stay in the run's folder.
    """
    folder = find_lab(lab)
    hosts = read_hostfile(hostfile, _say) if hostfile else None
    total = sum(hosts.values()) if hosts else num_ranks(ranks)
    for name, seconds in (("--timeout", timeout), ("--meet", meet)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise env.UserError(f"{name} must be a number of more than 0 seconds, not {seconds:g}")
    by_hand = _check_hosts(hosts, node_rank, master_addr, master_port)
    script = _script(folder)
    path = Path(config or folder / "ds_config.json").resolve()
    wanted = configs.load(path)
    on_gpus = env.accelerators() >= (max(hosts.values()) if hosts else total)
    with tempfile.TemporaryDirectory() as scratch:
        may_change = by_hand or not hosts or len(hosts) == 1  # ssh copies no file
        changed = None
        if config is None and may_change:
            near = _nearest_batch(script, _check_flags(folder, args, path), wanted, total)
            changed = near and wanted | {"train_batch_size": near}
        elif fill_auto and not may_change:
            raise env.UserError("--fill-auto does not reach hosts over ssh: write the numbers into a file "
                                "with `labkit config FILE --fill-auto --json`, and give that to --config")
        elif fill_auto:
            changed = _filled(wanted, total, _check_flags(folder, args, path))
        if changed:
            wanted = changed
            path = Path(scratch) / path.name
            path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        parsed = _check_flags(folder, args, path)
        _check_config(script, parsed, wanted, total, path.name)
        announce = getattr(script, "announce", None)  # a lab may say what is to come, or refuse
        if announce and (said := announce(parsed, total)):
            _say(said)
        port = _port(master_port) if not node_rank else master_port  # only host 0 listens there
        run_dir = _new_folder(out, folder.name, total)
        try:
            if getattr(parsed, "engine", None) != "torch":  # a plain loop needs none of DeepSpeed's ops
                _prepare_ops(wanted, path.name, on_gpus)
                if config is not None:
                    _say(f"trying {path.name} on one rank …")
                    rehearsal.rehearse(wanted, where=path.name, on_gpus=on_gpus)
            if by_hand:
                flags = re.sub(r"\S*/\S*", "…", " ".join(args)) or "no flags"  # paths may differ
                hosts_module.meet(
                    list(hosts), node_rank, master_addr, port, seconds=meet,
                    about=f"{folder.name} on {total} ranks, {path.name} ({_digest(wanted)}), {flags}")
        except BaseException:
            with suppress(OSError):
                run_dir.rmdir()  # nothing has run
            raise
        if path.parent == Path(scratch):
            path = Path(shutil.copy(path, run_dir))
    command = ["deepspeed", "--quiet", "--no_local_rank", "--master_port", str(port)]
    if hosts:
        command += ["--hostfile", str(Path(hostfile).resolve())]
        command += ["--master_addr", master_addr] if master_addr else []
        command += ["--no_ssh", "--node_rank", str(node_rank)] if node_rank is not None else []
    else:
        # DeepSpeed counts NUMA nodes as devices on a CPU, so the number is given; and with a number
        # it forgets which GPUs the reader chose, so these are named.
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES") if on_gpus else None
        command += (["--include", "localhost:" + ",".join(chosen.split(",")[:total])] if chosen
                    else ["--num_accelerators", str(total)])
    command += [str(folder / "train.py"), "--run_dir", str(run_dir), "--config", str(path), *args]
    info = RunInfo(lab=folder.name, command=command, ranks=total, device=_device(on_gpus),
                   started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                   versions={name: metadata.version(name) for name in ("torch", "deepspeed")})
    (run_dir / "run.json").write_text(info.model_dump_json(indent=1), encoding="utf-8")
    local = list(hosts.values())[node_rank] if hosts and node_rank is not None else total
    _Watch(info, run_dir, local, on_gpus, timeout).until_end()
    return read_run(run_dir)


def _say(text: str) -> None:
    print(text, flush=True)


def _filled(config: dict[str, Any], ranks: int, args: Namespace) -> dict[str, Any] | None:
    """The configuration with numbers for each "auto", sized for the lab, and says which; None without any."""
    from labkit import config_autos

    given = {name: getattr(args, flag) for name, flag in (("hidden_size", "hidden"), ("steps", "steps"))
             if hasattr(args, flag)}
    filled, values = config_autos.fill(config, ranks, **given)
    if values:
        _say("filled in: " + ", ".join(config_autos.sayings(values)))
    return filled if values else None


def _prepare_ops(config: dict[str, Any], where: str, on_gpus: bool) -> None:
    """Compile what the configuration needs and this machine lacks: ranks would do it in silence."""
    ops.remove_stale_locks(_say)
    kind = (config.get("optimizer") or {}).get("type")
    asked = f'{where} ("type": "{kind}")' if kind else where
    ops.build(env.needed_ops(config), asked=asked, on_gpus=on_gpus, say=_say)


def _digest(config: dict[str, Any]) -> str:
    """Eight letters that tell two configurations apart."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def _check_hosts(hosts: dict[str, int] | None, node_rank: int | None, master_addr: str | None,
                 master_port: int | None) -> bool:
    """True if several hosts are to be started by hand. Raises UserError for flags that do not go together."""
    if hosts and node_rank is not None and not 0 <= node_rank < len(hosts):
        raise env.UserError(f"--node-rank {node_rank}: the hostfile has hosts 0 to {len(hosts) - 1}")
    if not hosts and node_rank is not None:
        raise env.UserError("--node-rank needs --hostfile: it counts the hosts named there")
    if node_rank is not None and len(hosts) > 1 and None in (master_addr, master_port):
        raise env.UserError("--node-rank needs --master-addr and --master-port, the same on every host")
    if hosts and len(hosts) > 1 and node_rank is None and not shutil.which("pdsh"):
        raise env.UserError("several hosts need pdsh (Debian: apt install pdsh) and ssh; or start by hand on "
                            "each, with --node-rank, --master-addr and --master-port")
    return node_rank is not None and len(hosts) > 1


def batch_unit(script: ModuleType, args: Namespace, config: dict[str, Any], ranks: int) -> int:
    """What a lab's global batch must be a multiple of. A lab whose file does not say it all has a
    ``batch_unit(args, config, ranks)`` of its own."""
    if hasattr(script, "batch_unit"):
        return script.batch_unit(args, config, ranks)
    _, *parts = (config.get(key) for key in configs.BATCH_KEYS)
    return math.prod((ranks, *(part for part in parts if isinstance(part, int) and part > 0)))


def _nearest_batch(script: ModuleType, args: Namespace, config: dict[str, Any], ranks: int) -> int | None:
    """The nearest global batch that divides among the ranks, where the lab's own does not."""
    batch = config.get("train_batch_size")
    if not isinstance(batch, int) or batch < 1:  # what is wrong with it is configs.check's to say
        return None
    unit = batch_unit(script, args, config, ranks)
    if batch % unit == 0:
        return None
    near = max(1, (batch + (unit - 1) // 2) // unit) * unit  # of two that are equally near the smaller
    each = f", {near // ranks} a rank" if near % ranks == 0 else ""
    every = " in every way of this lab" if batch % ranks == 0 else ""
    _say(f"train_batch_size {batch} does not divide among {ranks} ranks{every}: taking {near}{each}")
    return near


def _check_config(script: ModuleType, args: Namespace, config: dict[str, Any], ranks: int,
                  where: str) -> None:
    """Refuse a file that DeepSpeed would not take, or this lab does not know, or not on so many ranks."""
    tensor = config.get("tensor_parallel")
    splits = {"sequence_parallel_size": config.get("sequence_parallel_size"),
              "tensor_parallel.autotp_size": tensor.get("autotp_size") if isinstance(tensor, dict) else None}
    for key, degree in splits.items():
        if isinstance(degree, int) and degree > 1 and not getattr(script, "SPLITS_THE_MODEL", False):
            raise env.UserError(f"{where}: {key} {degree} divides the model itself over ranks, and this lab "
                                f"cannot: take it out, or see `labkit run lab07 --ranks {degree}`")
    if not hasattr(script, "batch_unit"):
        return configs.check(config, ranks, where=where)
    configs.check(config, 1, where=where)  # a lab that knows better who shares the batch
    batch, unit = config.get("train_batch_size"), batch_unit(script, args, config, ranks)
    if batch is None or batch % unit == 0:
        return
    near = sorted({max(1, batch // unit) * unit, (batch // unit + 1) * unit})
    fitting = []
    for number in range(1, 65):
        with suppress(env.UserError):
            fitting += [number] if batch % batch_unit(script, args, config, number) == 0 else []
    closest = sorted(sorted(fitting, key=lambda number: abs(number - ranks))[:3])
    instead = f", or take --ranks {' or '.join(map(str, closest))}" if closest else ""
    raise env.UserError(f"{where}: train_batch_size {batch} does not divide as this lab needs it on {ranks} "
                        f"ranks: set it to {' or '.join(map(str, near))}{instead}")


def _check_flags(folder: Path, args: Sequence[str], config: Path | None = None) -> Namespace:
    """Let the lab's own parser read its flags before four processes trip over them."""
    parser: ArgumentParser = _script(folder).parser()

    def refuse(message: str) -> None:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        wrong = re.search(r"unrecognized arguments: (\S+)", message)
        near = difflib.get_close_matches(wrong[1].split("=")[0], flags, 1) if wrong else []
        hint = f"did you mean {near[0]}?" if near else f"see `labkit run {folder.name} --lab-help`"
        raise env.UserError(f"{folder.name}: {message}; {hint}")

    parser.error = refuse  # type: ignore[method-assign]
    for flag, own in (("--config", "config="), ("--run_dir", "out=")):
        if any(arg.split("=")[0] == flag for arg in args):
            raise env.UserError(f"{folder.name}: {flag} among the lab's own flags would not be checked: "
                                f"give it as {own}")
    try:
        return parser.parse_args([*args, *(["--config", str(config)] if config else [])])
    except ArgumentError as error:
        refuse(str(error))
        raise


def lab_help(lab: str) -> str:
    """The help text of a lab's own flags."""
    return _script(find_lab(lab)).parser().format_help()


def report(run: Run) -> str | None:
    """What the lab has to say about a run, if its train.py holds a function ``report(run)``."""
    say = getattr(_script(find_lab(run.info.lab)), "report", None)
    return say and say(run)


def _script(folder: Path) -> ModuleType:
    """A lab's train.py, imported."""
    spec = importlib.util.spec_from_file_location(folder.name, folder / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _port(port: int | None) -> int:
    """``port`` if it can be bound, or any free one. Raises UserError if it is taken."""
    if port is None:
        return env.free_port()
    if not 1024 <= port <= 65535:
        raise env.UserError(f"--master-port must lie between 1024 and 65535, not {port}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            raise env.UserError(f"port {port} is in use: leave --master-port out and a free one "
                                "is taken") from None
    return port


def _new_folder(out: str | Path | None, lab: str, ranks: int) -> Path:
    """An empty folder for this run, on a disk with room."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
    path = Path(out) if out else env.ROOT / "runs" / lab / f"{stamp}-{ranks}ranks"
    if out and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise env.UserError(f"--out {path} is already there and not an empty folder: give a new one")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / "probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise env.UserError(f"cannot write to {path}: {error.strerror}; give another --out") from None
    free = shutil.disk_usage(path).free / 1e6
    if free < NEEDS_DISK_MB:
        raise env.UserError(f"only {free:.0f} MB free on the disk of {path}: a run needs "
                            f"{NEEDS_DISK_MB} MB, free some space or give another --out")
    return path.resolve()


def _device(on_gpus: bool) -> str:
    if not on_gpus or not env.accelerators():
        return "cpu"
    import torch

    return torch.cuda.get_device_name(0)


class _Watch:
    """The launcher's process, and what its ranks have written so far."""

    def __init__(self, info: RunInfo, run_dir: Path, local: int, on_gpus: bool,
                 timeout: float | None) -> None:
        self.info, self.run_dir, self.local, self.timeout = info, run_dir, local, timeout
        self.environ = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore")
        self.environ[PARENT] = f"{socket.gethostname()}:{os.getpid()}"
        self.environ.setdefault("OMP_NUM_THREADS", str(max(1, env.cores() // local)))
        paths = [str(env.ROOT), os.environ.get("PYTHONPATH", "")]
        self.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if not on_gpus:
            self.environ |= {"DS_ACCELERATOR": "cpu"}
            self.environ.pop("CUDA_VISIBLE_DEVICES", None)
        self.offsets: dict[int, int] = {}
        self.last: dict[int, Record] = {}
        self.steps: dict[int, int] = {}
        self.started: dict[int, Record] = {}
        self.ranks: dict[int, psutil.Process] = {}
        self.errors: list[Record] = []
        self.suspects: set[int] = set()
        self.vanished: list[int] = []
        self.signals: dict[int, int | None] = {}  # the launcher tells only of the rank that it misses first
        self.first_record: float | None = None  # seconds from the launcher's start

    def until_end(self) -> None:
        """Start the launcher, show progress, and return when all ranks are at their end."""
        with (self.run_dir / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deepspeed.launcher.runner", *self.info.command[1:]],
                env=self.environ, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True)
        label = f"{self.info.lab} on {self.info.ranks} rank{'s' if self.info.ranks > 1 else ''}"
        with self._nothing_left(), Progress(label) as bar:
            began = heard = listened = time.monotonic()
            looked, failed_at = 0.0, None
            while self.process.poll() is None:
                time.sleep(0.1)
                now = time.monotonic()
                if len(self.ranks) < self.local and now - looked > 0.5:
                    looked = now
                    found = {rank: process for rank, process in self._members() if rank is not None}
                    self.ranks = found | self.ranks  # whoever came first is the rank, not its helpers
                if self._read():
                    heard = listened = now
                    self.first_record = self.first_record or now - began
                    self._show(bar)
                if now - listened > 3.0:
                    listened = now
                    if self._compiles():
                        heard = now
                        bar.note("a rank compiles what DeepSpeed needs")
                if (self.errors or self.vanished) and failed_at is None:
                    failed_at = now
                if failed_at and now - failed_at > GRACE_SECONDS:
                    break
                if now - heard > (limit := self._patience()):
                    raise LabFailed(f"no rank has written a record for {limit:.3g} s: the run was ended. "
                                    f"{_how_busy()} {self._last_seen()} {self._kept()}")
            self._read()
            self._read()
        ended = sum(record.event == "end" for record in self.last.values())
        whole = ended >= max(1, min(self.local, len(self.last))) and not self.errors
        if not whole or (self.process.returncode != 0 and not self._aborted_at_its_end()):
            first = min(self.errors, key=_written_at(self.started), default=None)
            if first and first.values["kind"] in ("UserError", "DataError"):
                raise env.UserError(f"rank {first.rank}: {first.values['message']}. {self._kept()}")
            raise LabFailed(self._why())

    def _aborted_at_its_end(self) -> bool:
        """True if gloo's threads aborted a rank that was leaving, which it does rarely.

        By then every rank has written its last record, so that nothing of the run is missing.
        """
        log = (self.run_dir / "log.txt").read_text(encoding="utf-8", errors="replace")
        return "terminate called without an active exception" in log

    def _patience(self) -> float:
        """Seconds of silence allowed: as the reader says, else more where the machine is slow or busy."""
        if self.timeout is not None:
            return self.timeout
        return PATIENCE_SECONDS * min(10.0, max((self.first_record or 0.0) / START_SECONDS, env.busy()))

    def _compiles(self) -> bool:
        """True while a rank compiles, or waits for another process that does."""
        ops.remove_stale_locks()  # of a build that was killed meanwhile: ranks would wait for ever
        helpers = (helper for rank in self.ranks.values() for helper in processes.family(rank.pid)[1:])
        return any(map(ops.compiles, helpers)) or bool(ops.locks())

    def _read(self) -> bool:
        """Take in new records, and notice ranks of this host that are gone without a word."""
        news = False
        for path in self.run_dir.glob("rank*.jsonl"):
            rank = int(path.stem[4:])
            with path.open("rb") as file:
                file.seek(self.offsets.get(rank, 0))
                chunk = file.read()
            whole = chunk[: chunk.rfind(b"\n") + 1]
            self.offsets[rank] = self.offsets.get(rank, 0) + len(whole)
            for line in whole.splitlines():
                news = True
                record = Record.model_validate_json(line)
                self.last[rank] = record
                if record.event == "start":
                    self.started[rank] = record
                elif record.event == "step":
                    self.steps[rank] = record.values["step"]
                elif record.event == "error":
                    self.errors.append(record)
        for rank, process in self.ranks.items():
            over = rank in self.vanished or (rank in self.last and self.last[rank].event in ("end", "error"))
            if not over and not processes.is_alive(process.pid):
                # It may have written its end just after we looked: believe it at the second look.
                self.signals.setdefault(rank, processes.signal_of(process.pid))
                (self.vanished.append if rank in self.suspects else self.suspects.add)(rank)
        return news

    def _show(self, bar: Progress) -> None:
        first = min(self.last)
        record = self.last[first]
        if record.event == "step":
            done, total = record.values["step"] + 1, self.started[first].values["total_steps"]
            bar.update(done, total, f"loss {record.values.get('loss', float('nan')):.3f}")

    @contextmanager
    def _nothing_left(self):
        """Whatever happens inside, no process of this run is alive afterwards."""
        try:
            yield
        finally:
            left = [member for _, process in self._members() for member in processes.family(process.pid)]
            processes.end(left, ask_first=2.0)
            with suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            while orphans := processes.session(self.process.pid):  # started while their parent was killed
                processes.end(orphans)
            ops.remove_stale_locks()  # a rank that compiled has left one

    def _members(self) -> list[tuple[int | None, psutil.Process]]:
        """This run's processes on this host: (rank, process), rank None for the launcher's own."""
        members = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = process.cmdline()
                if "--run_dir" in line and str(self.run_dir) in line:
                    launcher = any(word.startswith("deepspeed.launcher") for word in line)
                    rank = None
                    with suppress(psutil.Error):  # macOS does not show the environment of every Python
                        rank = None if launcher else process.environ().get("RANK")
                    members.append((None if rank is None else int(rank), process))
        return members

    def _why(self) -> str:
        """The cause, not its echoes: a rank that was killed, else the first rank that raised."""
        log = (self.run_dir / "log.txt").read_text(encoding="utf-8", errors="replace")
        first_error = min(self.errors, key=_written_at(self.started), default=None)
        echo = first_error is None or "Connection closed by peer" in first_error.values["message"] \
            or "Connection reset by peer" in first_error.values["message"]
        told = re.search(r"return code = -(\d+)", log)
        if self.vanished and echo and (told or self.last):  # else it ended before it could say anything
            rank = self.vanished[0]
            code = self.signals[rank] or (int(told[1]) if told else None)
            how = f"by {signal.Signals(code).name}" if code else "from outside"
            more = " (often the system, out of memory)" if code in (None, signal.SIGKILL) else ""
            return (f"rank {rank} (process {self.ranks[rank].pid}) was killed {how}{more}; "
                    f"the others were ended. {self._last_seen()} {self._kept()}")
        if first_error:
            values = first_error.values
            return (f"rank {first_error.rank} raised {values['kind']}: {values['message']}\n"
                    f"{values['traceback']}{self._meeting_failed(values['message'])}"
                    f"{self._last_seen()} {self._kept()}")
        if self.last and all(record.event == "end" for record in self.last.values()):
            return (f"every rank reached its end, then the launcher ended with code "
                    f"{self.process.returncode}: a rank broke while leaving the group; the script must end "
                    f"with torch.distributed.destroy_process_group(). {self._kept()}")
        if self.last:
            return (f"the launcher ended with code {self.process.returncode} before every rank had ended. "
                    f"{self._last_seen()} {self._kept()}")
        tail = "\n".join(log.strip().splitlines()[-25:])
        return (f"the launcher ended with code {self.process.returncode} before any rank began; "
                f"the end of {self.run_dir / 'log.txt'}:\n{tail}")

    def _meeting_failed(self, message: str) -> str:
        """What to look at where ranks of several hosts did not find each other."""
        lost = re.search(r"(?i)clients joined|connectFullMesh|store|connect|timed out|socket", message)
        return f"The ranks of several hosts did not find each other: {hosts_module.LOOK_AT} " \
            if "--hostfile" in self.info.command and lost and not self.steps else ""

    def _last_seen(self) -> str:
        steps = [f"rank {rank} at step {step}" for rank, step in sorted(self.steps.items())]
        return f"Last seen: {', '.join(steps)}." if steps else "No rank had made a step."

    def _kept(self) -> str:
        return f"Records up to then: {self.run_dir}"


def _how_busy() -> str:
    """Whether the machine had other work when a time-out came, and what to do."""
    load, cores = env.load(), env.cores()
    if load is None:
        return "If the machine is busy, give a longer --timeout."
    if load > 1.5 * cores:
        return (f"The machine is busy (load {load:.1f} on {cores} cores): end other programs, take fewer "
                "ranks, or give a longer --timeout.")
    return (f"The machine is not busy (load {load:.1f} on {cores} cores): a rank waits for what does not "
            "come; log.txt holds what the ranks printed.")


def _written_at(started: dict[int, Record]):
    """When a record was written, on one clock for all ranks of a host: process start + seconds."""
    def at(record: Record) -> float:
        return started[record.rank].values.get("time", 0.0) + record.seconds
    return at

