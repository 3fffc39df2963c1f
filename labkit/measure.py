"""Measures what the formulas in :mod:`labkit.plan` predict: bytes of states, bytes and calls sent.

Process memory hides model states at toy sizes, so tensors are counted, each storage once.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.plan import States


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
    for name in ("averaged_gradients", "fp32_groups_gradients_flat",
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
    counts what is gathered, reduce-scatter what is reduced.
    """

    calls: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(self.bytes.values())

    def add(self, op: str, elements: int, nbytes: int) -> None:
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
                self.traffic.add(op, sum(t.numel() for t in largest), sum(t.nbytes for t in largest))
        return func(*args, **(kwargs or {}))


@contextmanager
def collectives() -> Iterator[Traffic]:
    """Count the collectives of this rank: ``with collectives() as traffic: engine.step()``."""
    counter = _Collectives()
    with counter:
        yield counter.traffic


def matmul_peak(size: int = 1024, repeats: int = 5, dtype: torch.dtype = torch.float32,
                device: str = "cpu") -> float:
    """FLOPs per second of a square matrix product: this machine's practical peak. Median of repeats."""
    import statistics
    import time

    a = torch.randn(size, size, device=device).to(dtype)
    rates = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        a @ a
        if device != "cpu":
            torch.cuda.synchronize()
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return statistics.median(rates[1:])  # the first one warms up


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
