"""What this machine has, what DeepSpeed can do on it, and the cure for each gap."""

import importlib.util
import os
import platform
import random
import runpy
import shutil
import socket
import sys
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
"""The course's root folder: chapters/, labs/, book/ lie here."""

NEEDS_MEMORY_GB = 4.0
NEEDS_SHM_MB = 64
OPS = {"cpu_adam": "CPUAdamBuilder", "fused_adam": "FusedAdamBuilder", "cpu_adagrad": "CPUAdagradBuilder",
       "cpu_lion": "CPULionBuilder", "fused_lion": "FusedLionBuilder", "fused_lamb": "FusedLambBuilder",
       "async_io": "AsyncIOBuilder", "pin_memory": "PinMemoryBuilder"}
"""DeepSpeed's compiled ops that a configuration can ask for, and who builds each of them."""
AT_SETUP = ("cpu_adam",)
"""Those that the course compiles at set-up, for Chapter 7's offload; the others on first use."""


class UserError(ValueError):
    """Bad input: one sentence that says what is wrong, with which value, and what to do."""


def has_gpu() -> bool:
    """True if an NVIDIA or AMD GPU driver is loaded. Cheap: does not import torch."""
    return any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))


def quiet() -> None:
    """Set defaults that DeepSpeed reads from the environment; never overrides the reader's own."""
    # torch 2.13 renames two collectives that DeepSpeed 0.19.8 still calls by their old names.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Compiled ops belong to one environment: a cache shared between two is rebuilt again and again.
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", os.path.join(sys.prefix, "torch_extensions"))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # ninja and deepspeed lie beside this Python, which a Jupyter kernel need not have on its PATH.
    bin_dir = os.path.join(sys.prefix, "bin")
    paths = os.environ.get("PATH", "").split(os.pathsep)
    if bin_dir not in paths:
        os.environ["PATH"] = os.pathsep.join([bin_dir, *paths])


def use_gpu() -> bool:
    """True if this process computes on a GPU: there is one, and DS_ACCELERATOR does not say cpu."""
    import torch

    return os.environ.get("DS_ACCELERATOR") != "cpu" and torch.cuda.is_available()


def device() -> str:
    """The torch device of this rank: ``cuda:LOCAL_RANK`` when it uses a GPU, else ``cpu``."""
    import torch

    if use_gpu():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return "cpu"


def accelerators() -> int:
    """Number of GPUs torch can use; 0 on a CPU machine."""
    if not has_gpu() or not use_gpu():
        return 0
    import torch

    return torch.cuda.device_count()


def set_threads() -> None:
    """Let torch compute with OMP_NUM_THREADS threads, here and in ranks started from here; with 1 if unset.

    The course's matrices are small: a second thread brings nothing, and on a busy machine torch's threads
    wait for one another up to a hundred times as long as they compute.
    """
    import torch

    threads = os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(threads.partition(",")[0]))  # OpenMP takes a list: one number a level


def init_distributed(timeout_seconds: float = 600.0, *, meet_seconds: float = 600.0) -> None:
    """Join this process to the group that RANK, WORLD_SIZE and MASTER_* describe.

    ``deepspeed.init_distributed`` with NCCL on GPUs and gloo otherwise. Ranks wait ``meet_seconds`` for each
    other: on a busy machine, or where one host compiles first, some come minutes later. After that a
    collective that waits longer than ``timeout_seconds`` for a peer raises instead of hanging; a peer that
    has died is noticed at once. DeepSpeed's shared-memory op is left out: it serves CPU inference only, yet
    would have to be compiled first.
    """
    import deepspeed
    import torch
    from torch.distributed import distributed_c10d

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if use_gpu() else "gloo"
    # Without this NCCL's collectives return at once, and a peer's absence aborts the process later.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    if backend == "gloo":
        set_threads()
    else:
        torch.cuda.set_device(device())
    deepspeed.init_distributed(
        dist_backend=backend, timeout=timedelta(seconds=meet_seconds), verbose=False
    )
    distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds))


def free_port() -> int:
    """A TCP port that nothing listens on, below those that the system gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as s, suppress(OSError):
            s.bind(("", port))
            return port


def memory_gb() -> tuple[float, float]:
    """(total, available) memory of this machine in GB (1e9 bytes)."""
    import psutil

    memory = psutil.virtual_memory()
    return memory.total / 1e9, memory.available / 1e9


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """How many processes want a core, over the last minute; None where the system does not say."""
    with suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None


def busy() -> float:
    """How many times as long as on a quiet machine work may take here now: from 1 to 10, by the load."""
    return min(10.0, max(1.0, (load() or 0.0) / cores()))


def compiler() -> str | None:
    """Path of the C++ compiler that torch will call, or None. Where only g++ is there, torch is told so."""
    chosen = os.environ.get("CXX", "c++").split() or ["c++"]
    path = shutil.which(chosen[0])
    if path is None and (path := shutil.which("g++")):
        os.environ["CXX"] = "g++"
    return path


def compiled_ops() -> dict[str, bool]:
    """Which of OPS are ready: in the extension cache, or built when DeepSpeed was installed."""
    cache, built = Path(os.environ["TORCH_EXTENSIONS_DIR"]), {}
    deepspeed = importlib.util.find_spec("deepspeed")
    facts = deepspeed and Path(deepspeed.origin).with_name("git_version_info_installed.py")
    if facts and facts.is_file():
        built = runpy.run_path(str(facts)).get("installed_ops", {})
    return {op: bool(built.get(op)) or any(cache.glob(f"**/{op}/{op}.so")) for op in OPS}


def needed_ops(config: dict[str, Any]) -> tuple[str, ...]:
    """The compiled ops that DeepSpeed will load for a configuration, as its engine chooses them."""
    zero, optimizer = config.get("zero_optimization"), config.get("optimizer")
    zero, optimizer = (part if isinstance(part, dict) else {} for part in (zero, optimizer))
    devices = [part.get("device") for key in ("offload_optimizer", "offload_param")
               if isinstance(part := zero.get(key), dict)]
    offloaded = zero.get("offload_optimizer") or {}
    on_cpu = zero.get("cpu_offload") is True or (
        isinstance(offloaded, dict) and offloaded.get("device") in ("cpu", "nvme"))
    params = optimizer.get("params")
    kind, op = str(optimizer.get("type")).lower(), None
    if kind in ("adam", "adamw", "muon"):  # Muon's second half is an Adam
        if not (isinstance(params, dict) and params.get("torch_adam")):
            op = "cpu_adam" if on_cpu else "fused_adam"
    elif kind == "adagrad":
        op = "cpu_adagrad" if on_cpu else None
    elif kind == "lion":
        op = "cpu_lion" if on_cpu else "fused_lion"
    elif kind == "lamb":
        op = "fused_lamb"
    return (*([op] if op else []), *(["async_io", "pin_memory"] if "nvme" in devices else []))


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. ``ok`` None means: works, with a limit worth knowing."""

    topic: str
    ok: bool | None
    says: str
    cure: str = ""


def doctor() -> list[Finding]:
    """Look this machine over. Each gap comes with its cure; ``ok=False`` stops the course."""
    findings = [_python(), *_packages(), _cores(), _memory(), _disk(), _scratch(), _shared_memory()]
    return [*findings, _network(), _gpus(), *_compiler(), _node()]


def _python() -> Finding:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return Finding("Python", ok, version, "" if ok else "install Python 3.11 or newer")


def _packages() -> list[Finding]:
    found = []
    for name in ("torch", "deepspeed", "transformers", "jupyterlab", "jupyter-book"):
        try:
            found.append(Finding(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, False, "not installed", "run `make env` in the course's folder"))
    return found


def _cores() -> Finding:
    n = cores()
    if n >= 2:
        return Finding("cores", True, f"{n}: labs on 2 ranks run at full speed")
    return Finding("cores", None, f"{n}: ranks take turns, labs take about twice as long")


def _memory() -> Finding:
    total, available = memory_gb()
    says = f"{available:.1f} GB free of {total:.1f} GB"
    if available >= NEEDS_MEMORY_GB:
        return Finding("memory", True, says)
    return Finding("memory", None, says, f"close programs: labs on 4 ranks need {NEEDS_MEMORY_GB:g} GB")


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free >= 0.5:
        return Finding("disk", True, f"{free:.0f} GB free")
    return Finding("disk", False, f"{free:.2f} GB free", "free at least 0.5 GB for runs and the book")


def _scratch() -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()):
            return Finding("scratch folder", True, tempfile.gettempdir())
    except OSError as error:
        return Finding("scratch folder", False, str(error), "set TMPDIR to a folder you can write to")


def _shared_memory() -> Finding:
    if not os.path.isdir("/dev/shm"):
        return Finding("shared memory", True, "not used on this system")
    free = shutil.disk_usage("/dev/shm").free / 1e6
    if free >= NEEDS_SHM_MB:
        return Finding("shared memory", True, f"{free:.0f} MB in /dev/shm")
    return Finding("shared memory", None, f"{free:.0f} MB in /dev/shm",
                   "in a container, start it with --shm-size=1g")


def _network() -> Finding:
    try:
        free_port()
        return Finding("loopback", True, "ranks can talk over 127.0.0.1")
    except OSError as error:
        return Finding("loopback", False, str(error), "allow TCP on 127.0.0.1: ranks meet there")


def _gpus() -> Finding:
    n = accelerators()
    if n:
        import torch

        names = sorted({torch.cuda.get_device_name(i) for i in range(n)})
        return Finding("GPUs", True, f"{n} × {', '.join(names)}: labs use them with --ranks auto")
    if has_gpu():
        return Finding("GPUs", None, "a driver is loaded, but this torch cannot use it",
                       "install the torch build for your driver; until then ranks run on the CPU")
    return Finding("GPUs", None, "none: ranks run on the CPU over gloo; every lab is sized for that")


def _compiler() -> list[Finding]:
    from labkit import ops

    found = []
    removed, held = ops.remove_stale_locks(), ops.locks()
    if removed:
        names = ", ".join(sorted(lock.parent.name for lock in removed))
        found.append(Finding("locks", True, f"removed what a killed compilation left ({names}): it would "
                                            "have made every later run wait for ever"))
    for lock in held:
        found.append(Finding("locks", None, f"{ops.holder(lock)} compiles {lock.parent.name} now",
                             "runs that need it wait until it is done"))
    path, ready = compiler(), [op for op, done in compiled_ops().items() if done]
    says = f"{', '.join(ready) or 'none'} ready"
    if path is None:
        needs = {"fused_adam": "optimizers Adam and AdamW without `\"torch_adam\": true`",
                 "cpu_adam": "offload to the CPU"}
        lost = " and ".join(what for op, what in needs.items() if op not in ready)
        if lost:
            return [*found, Finding("compiled ops", None, f"{says}; no C++ compiler: {lost} will not run",
                                    "install g++ (Debian: build-essential, macOS: xcode-select --install)")]
        return [*found, Finding("compiled ops", True, f"{says}; no C++ compiler for others")]
    says += f"; others are compiled on first use (fused_adam: by a plain \"Adam\"), with {path}"
    if all(op in ready for op in AT_SETUP):
        return [*found, Finding("compiled ops", True, says)]
    return [*found, Finding("compiled ops", None, says,
                            f"`labkit doctor --compile` prepares {', '.join(AT_SETUP)} now, for offload")]


def _node() -> Finding:
    if shutil.which("npm"):
        return Finding("npm", True, "brings MathJax and mermaid into the offline book")
    return Finding("npm", None, "missing: the book builds, with diagrams as text",
                   "install Node.js for drawn diagrams")
