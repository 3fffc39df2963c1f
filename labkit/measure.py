"""Measures what the formulas in :mod:`labkit.plan` predict: bytes of states, bytes and calls sent.

Process memory hides model states at toy sizes, so tensors are counted, each storage once.
"""

import os
import socket
import stat
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from labkit.plan import States
from labkit.processes import family


def states(model: Any, optimizer: Any = None) -> States:
    """Bytes of parameters, gradients and optimizer states that this rank holds right now.

    ``model`` is a DeepSpeed engine, or a module with its torch ``optimizer``. Call it between the
    backward that ends an accumulation and the step: afterwards gradients are already freed.
    """
    module = getattr(model, "module", model)
    optimizer = optimizer or getattr(model, "optimizer", None)
    seen: set[int] = set()
    parameters = list(module.parameters())
    kept = [p.ds_tensor for p in parameters if hasattr(p, "ds_tensor")]
    in_parameters = _bytes([*parameters, *kept], seen)
    in_gradients = _bytes([p.grad for p in parameters if p.grad is not None], seen)
    in_gradients += _bytes(_partitioned_gradients(optimizer), seen)
    return States(in_parameters, in_gradients, _bytes(_optimizer_tensors(optimizer), seen))


def buckets(engine: Any) -> int:
    """Bytes of the buckets in which a DeepSpeed engine gathers gradients right now."""
    held = getattr(engine.optimizer, "ipg_buckets", {})
    return _bytes(_tensors([bucket.buffer for bucket in held.values()]), set())


def _bytes(tensors: Iterable[Tensor], seen: set[int]) -> int:
    """Bytes of the storages behind ``tensors`` that are not in ``seen`` yet."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def _partitioned_gradients(optimizer: Any) -> Iterator[Tensor]:
    """The gradients that DeepSpeed's ZeRO optimizers keep outside ``parameter.grad``."""
    for name in ("averaged_gradients", "all_grad_tensors", "fp32_groups_gradients_flat",
                 "_DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition"):
        yield from _tensors(getattr(optimizer, name, None))


def _optimizer_tensors(optimizer: Any) -> Iterator[Tensor]:
    """States of the torch optimizer inside, and master weights, wherever a wrapper keeps them."""
    while optimizer is not None:
        yield from _tensors(dict(getattr(optimizer, "state", {})))
        for group in getattr(optimizer, "param_groups", []):
            yield from _tensors(group["params"])
        for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat",
                     "fp32_groups_flat_partition", "fp32_groups_flat"):
            yield from _tensors(getattr(optimizer, name, None))
        inner = getattr(optimizer, "optimizer", None)
        optimizer = inner if inner is not optimizer else None


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


@dataclass
class Traffic:
    """What one rank handed to its collectives: ``calls[op]``, ``elements[op]`` and ``bytes[op]``.

    The size of a collective is that of its whole result or input, whichever is larger: all-gather
    counts what is gathered, reduce-scatter what is reduced. ``over[op, ranks]`` are the elements
    again, by the number of ranks that took part.
    """

    calls: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    over: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    def add(self, op: str, elements: int, nbytes: int, ranks: int) -> None:
        self.over[op, ranks] = self.over.get((op, ranks), 0) + elements
        for table, amount in ((self.calls, 1), (self.elements, elements), (self.bytes, nbytes)):
            table[op] = table.get(op, 0) + amount


_NAMES = {
    "allreduce_": "all_reduce", "allreduce_coalesced_": "all_reduce",
    "allgather_": "all_gather", "_allgather_base_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "reduce_scatter_": "reduce_scatter", "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "broadcast_": "broadcast", "reduce_": "reduce", "scatter_": "scatter", "gather_": "gather",
    "alltoall_": "all_to_all", "alltoall_base_": "all_to_all", "send": "send", "recv_": "recv",
}


def _group_size(args: tuple) -> int:
    """Number of ranks in the process group among a collective's arguments."""
    group = next(arg for arg in args if isinstance(arg, torch.ScriptObject))
    return torch.distributed.ProcessGroup.unbox(group).size()


class _Collectives(TorchDispatchMode):
    """Sees every call that reaches torch's communication layer, whoever makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            op = _NAMES.get(func._opname)
            if op is not None:
                sides = [list(_tensors(arg)) for arg in args if isinstance(arg, Tensor | list | tuple)]
                largest = max(sides, key=lambda side: sum(t.numel() for t in side), default=[])
                self.traffic.add(op, sum(t.numel() for t in largest), sum(t.nbytes for t in largest),
                                 _group_size(args))
        return func(*args, **(kwargs or {}))


@contextmanager
def collectives() -> Iterator[Traffic]:
    """Count the collectives of this rank: ``with collectives() as traffic: engine.step()``."""
    counter = _Collectives()
    with counter:
        yield counter.traffic


@dataclass
class Peak:
    """Bytes of the tensors made so far: those alive now, and the most that were alive at once."""

    live: int = 0
    bytes: int = 0

    def add(self, nbytes: int) -> None:
        self.live += nbytes
        self.bytes = max(self.bytes, self.live)


class _Allocations(TorchDispatchMode):
    """Sees every storage that an operation makes, and when the last tensor on it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self.known = Peak(), WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in _tensors([*args, *(kwargs or {}).values()]):
            self.known.setdefault(tensor.untyped_storage(), True)  # older than what we count
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage not in self.known:
                self.known[storage] = True
                self.peak.add(storage.nbytes())
                weakref.finalize(storage, self.peak.add, -storage.nbytes()).atexit = False
        return result


@contextmanager
def peak() -> Iterator[Peak]:
    """Count the bytes of the tensors made inside: ``with peak() as p: model(x).backward()``.

    ``p.bytes`` is the most that were alive at once. What existed before does not count, nor what
    an operation needs inside itself. Works on any device; slow, so time something else.
    """
    counter = _Allocations()
    with counter:
        yield counter.peak


class _Operations(TorchDispatchMode):
    """Sees every tensor operation, in the forward pass, the backward pass or an optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":
            self.calls[func._opname] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def operations() -> Iterator[Counter[str]]:
    """Count torch's own operations by name: ``with operations() as calls: optimizer.step()``."""
    counter = _Operations()
    with counter:
        yield counter.calls


_BYTES_RECEIVED = 128  # where struct tcp_info (linux/tcp.h) holds tcpi_bytes_received, 8 bytes


def _arrived() -> dict[tuple[int, int], int]:
    """Bytes that have arrived over each TCP connection of this process: {(my port, its port): n}."""
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # closed meanwhile, or not connected
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as s:
                if s.type == socket.SOCK_STREAM and s.family in (socket.AF_INET, socket.AF_INET6):
                    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    ports = s.getsockname()[1], s.getpeername()[1]
                    (found[ports],) = struct.unpack_from("Q", info, _BYTES_RECEIVED)
    return found


@contextmanager
def wire() -> Iterator[list[int]]:
    """Bytes that come over the wire from each rank: ``with wire() as received: engine.step()``.

    The list is filled at the end: ``received[r]`` came from rank r, a few hundred bytes of headers
    and of the barrier that ends the count included. All ranks of one machine must enter together.
    It asks the kernel about the sockets that gloo uses: on Linux only; NCCL mostly uses none. The
    list stays empty where nothing can be counted.
    """
    import torch.distributed as dist

    received: list[int] = []
    if dist.get_backend() != "gloo" or not hasattr(socket, "TCP_INFO"):
        yield received
        return
    before = _arrived()
    ports: list = [None] * dist.get_world_size()
    dist.all_gather_object(ports, sorted({here for here, _ in before}))
    dist.barrier()
    before = _arrived()
    yield received
    dist.barrier()
    came = {there: n - before.get((here, there), 0) for (here, there), n in _arrived().items()}
    received += [sum(came.get(port, 0) for port in peer) for peer in ports]


def matmul_peak(size: int = 1024, repeats: int = 5, dtype: torch.dtype = torch.float32,
                device: str = "cpu") -> float:
    """FLOPs per second of a square matrix product: this machine's practical peak, the best of the repeats.

    The best, since whatever else the machine does can only slow one down.
    """
    import time

    a = torch.randn(size, size, device=device).to(dtype)
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ a
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return max(rates)


@dataclass
class Memory:
    """Most memory seen so far, in bytes."""

    most: int = 0


@contextmanager
def memory(every: float = 0.5) -> Iterator[Memory]:
    """Watch this process and all that it started: ``with memory() as seen: …``, then ``seen.most``.

    Looks every ``every`` seconds; a page that several processes share counts once where the system
    can tell (PSS), else not at all (USS).
    """
    seen, ended = Memory(), threading.Event()

    def look() -> None:
        total = 0
        for process in family(os.getpid()):
            with suppress(psutil.Error):  # it may end while we look
                info = process.memory_full_info()
                total += getattr(info, "pss", info.uss)
        seen.most = max(seen.most, total)

    def watch() -> None:
        while not ended.wait(every):
            look()

    look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
        look()


@dataclass
class Saved:
    """Bytes that autograd keeps for the backward pass; grows while the forward pass runs."""

    bytes: int = 0


@contextmanager
def activations(module: torch.nn.Module) -> Iterator[Saved]:
    """Count what the forward pass saves: ``with activations(model) as saved: loss = model(x)``.

    Each storage counts once; parameters and buffers of ``module`` do not count. Inputs do.
    """
    saved, seen = Saved(), set()
    for tensor in [*module.parameters(), *module.buffers()]:
        seen.add(tensor.untyped_storage().data_ptr())
    kept = []  # alive until the end: a freed address must not come back as another tensor's

    def pack(tensor: Tensor) -> Tensor:
        saved.bytes += _bytes([tensor], seen)
        kept.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


class _Kept:
    """A tensor that autograd keeps; says so when autograd lets go of it."""

    def __init__(self, tensor: Tensor, release: Callable[[Tensor], None]) -> None:
        self.tensor, self.release = tensor, release

    def __del__(self) -> None:
        self.release(self.tensor)


@dataclass
class Live:
    """Bytes that autograd keeps for backward passes: ``now``, and the ``most`` so far."""

    now: int = 0
    most: int = 0


@contextmanager
def live_activations(module: torch.nn.Module) -> Iterator[Live]:
    """Follow what autograd keeps and frees, over many forward and backward passes.

    Each storage counts once while any graph keeps it; parameters and buffers of ``module`` do not
    count, inputs do.
    """
    live, holders = Live(), {}
    own = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}

    def release(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        holders[storage.data_ptr()] -= 1
        if not holders[storage.data_ptr()]:
            live.now -= storage.nbytes()

    def pack(tensor: Tensor) -> Tensor | _Kept:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in own:
            return tensor
        if not holders.get(storage.data_ptr()):
            live.now += storage.nbytes()
            live.most = max(live.most, live.now)
        holders[storage.data_ptr()] = holders.get(storage.data_ptr(), 0) + 1
        return _Kept(tensor.detach(), release)

    def unpack(kept: Tensor | _Kept) -> Tensor:
        return kept.tensor if isinstance(kept, _Kept) else kept

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield live
