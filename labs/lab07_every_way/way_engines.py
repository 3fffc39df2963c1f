"""Lab 7's ways: a JSON file says which, DeepSpeed's own objects do it.

Every file in ``ways/`` is laid over ``ds_config.json``. How many ranks share one copy of the model
is read from DeepSpeed's own keys; data parallel takes the rest of the ranks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import configs, env, measure
from labkit.models import GPT, Attention

WAYS = Path(__file__).resolve().parent / "ways"
BATCH = "train_batch_size"


def names() -> list[str]:
    """The ways in ``ways/``, in the order of the table."""
    order = ("zero", "offload", "pp", "tp", "sp")
    files = sorted(path.stem for path in WAYS.glob("*.json"))
    return sorted(files, key=lambda name: next((i for i, o in enumerate(order) if name.startswith(o)), 9))


def known(text: str) -> list[str]:
    """The ways in ``--ways``, each file of them read once. Raises what argparse turns into a sentence."""
    ways = names() if text == "all" else [way.strip() for way in text.split(",")]
    stems = [Path(way).stem for way in ways]
    if len(set(stems)) < len(stems):
        raise argparse.ArgumentTypeError(f"two of {', '.join(ways)} have the same name: give each its own")
    for way in ways:
        if way not in names() and not way.endswith(".json"):
            raise argparse.ArgumentTypeError(f"no way {way!r}: ways/ holds {', '.join(names())}; "
                                             "or give the path of a .json file")
        try:
            read(way, configs.load(WAYS.parent / "ds_config.json"))
        except env.UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return ways


def read(way: str, base: dict[str, Any]) -> dict[str, Any]:
    """A way's file (a name in ``ways/`` or a path) laid over ``base``. Raises UserError if it is wrong."""
    path = Path(way) if way.endswith(".json") else WAYS / f"{way}.json"
    config = overlay(base, configs.load(path))
    for key in (BATCH, "optimizer"):
        if key not in base:
            raise env.UserError(f"the file that all ways share has no {key}: add it (see ds_config.json)")
    if not {"type", "params"} <= set(base["optimizer"] or ()):
        raise env.UserError("the file that all ways share needs a type and params in its optimizer")
    for key in ("pipeline", "tensor_parallel"):
        if not isinstance(config.get(key, {}), dict):
            raise env.UserError(f"{path.name}: {key} must be an object {{…}}, not {config[key]!r}")
    if "train_micro_batch_size_per_gpu" in config:
        raise env.UserError(f"{path.name} sets train_micro_batch_size_per_gpu: leave it out, the lab "
                            f"computes it from {BATCH} and gradient_accumulation_steps")
    degrees = degrees_of(config)
    for key, degree in degrees.items():
        if not isinstance(degree, int) or degree < 1:
            raise env.UserError(f"{path.name}: the {key} degree must be a whole number of at least 1, "
                                f"not {degree!r}")
    if sum(degree > 1 for degree in degrees.values()) > 1:
        raise env.UserError(f"{path.name} splits the model in two ways at once: take one of tensor_parallel, "
                            "sequence_parallel_size and pipeline; data parallel uses the ranks that are left")
    accumulation, batch = config.get("gradient_accumulation_steps", 1), config[BATCH]
    if all(isinstance(number, int) and number > 0 for number in (accumulation, batch)):
        batch *= accumulation  # whether it divides is lay_out's question, which knows the ranks
    configs.check({**config, BATCH: batch}, 1, where=path.name)
    return config


def overlay(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """``top`` over ``base``: where both hold a section {…}, key by key."""
    inner = {key: overlay(base[key], value) for key, value in top.items()
             if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return {**base, **top, **inner}


@dataclass(frozen=True)
class Layout:
    """How ``world_size`` ranks are used: tensor, sequence, pipeline and data parallel degrees."""

    tp: int = 1
    sp: int = 1
    pp: int = 1
    dp: int = 1

    def __str__(self) -> str:
        used = [f"{name.upper()}{degree}" for name, degree in vars(self).items() if degree > 1]
        return "×".join(used) or "1 rank"

    def data_rank(self, rank: int) -> int:
        """Which share of the batch a rank gets: stages count slowest, tensor and sequence ranks fastest."""
        return rank % self.dp if self.pp > 1 else rank // (self.tp * self.sp)


def degrees_of(config: dict[str, Any]) -> dict[str, Any]:
    """Over how many ranks a file divides one copy of the model, in DeepSpeed's own keys."""
    return {"tp": config.get("tensor_parallel", {}).get("autotp_size") or 1,
            "sp": config.get("sequence_parallel_size", 1),
            "pp": config.get("pipeline", {}).get("stages", 1)}


def ranks_for_one(config: dict[str, Any]) -> int:
    """Number of ranks that share one copy of the model."""
    return max(degrees_of(config).values())


def lay_out(way: str, config: dict[str, Any], world_size: int) -> Layout:
    """How ``world_size`` ranks go this way. Raises UserError if they or the batch do not divide."""
    dp, left = divmod(world_size, ranks_for_one(config))
    if left:
        raise env.UserError(f"{way} divides the model over {ranks_for_one(config)} ranks: give --ranks a "
                            f"multiple of that, not {world_size}, or leave it out of --ways")
    accumulation = config.get("gradient_accumulation_steps", 1)
    if config[BATCH] % (dp * accumulation):
        raise env.UserError(f"{way}: {BATCH} {config[BATCH]} cannot be divided by {dp} data-parallel "
                            f"ranks × accumulation {accumulation}: change one of them")
    return Layout(**degrees_of(config), dp=dp)


# --- Models that can be split -------------------------------------------------------------------


def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention: (batch, time, heads, head size) -> the same."""
    heads_first = (part.transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)


class SplitAttention(nn.Module):
    """Our attention, for a rank with some of the heads (tensor parallel) or of the sequence (``group``)."""

    def __init__(self, dense: Attention, group: Any = None) -> None:
        super().__init__()
        self.qkv, self.out = dense.qkv, dense.out
        self.head_size = dense.qkv.in_features // dense.num_heads
        self.attend = causal
        if group is not None:
            from deepspeed.sequence.layer import DistributedAttention

            # heads (dimension 2) are scattered and the sequence (1) gathered, and back again
            self.attend = DistributedAttention(causal, group, scatter_idx=2, gather_idx=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        query, key, value = self.qkv(x).view(batch, time, 3, -1, self.head_size).unbind(2)
        batch_dim = () if self.attend is causal else (0,)
        return self.out(self.attend(query, key, value, *batch_dim).reshape(batch, time, -1))


class SplitPositions(nn.Module):
    """Position embedding of a rank whose part of the sequence is the ``part``-th."""

    def __init__(self, dense: nn.Embedding, part: int) -> None:
        super().__init__()
        self.table, self.part = dense, part

    def forward(self, positions: Tensor) -> Tensor:
        return self.table(positions + self.part * len(positions))


class Tokens(nn.Module):
    """The tied embedding: the first pipeline stage looks tokens up in it, the last one multiplies by it."""

    def __init__(self, dense: GPT) -> None:
        super().__init__()
        self.weight = dense.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.weight)


class AddPositions(nn.Module):
    def __init__(self, dense: GPT) -> None:
        super().__init__()
        self.positions = dense.positions

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions(torch.arange(x.shape[1], device=x.device))


def pipeline(model: GPT, stages: int, partition: str) -> nn.Module:
    """The model as a list of layers for DeepSpeed to cut; each rank keeps its stage's layers only."""
    from deepspeed.pipe import PipelineModule, TiedLayerSpec

    # A model too large for one rank is given as LayerSpec throughout, and each rank builds its own.
    layers = [TiedLayerSpec("tokens", Tokens, model), AddPositions(model), *model.blocks, model.norm,
              TiedLayerSpec("tokens", Tokens, model, forward_fn=lambda tied, x: F.linear(x, tied.weight))]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its layers
        return PipelineModule(layers, num_stages=stages, partition_method=partition,
                              loss_fn=lambda out, y: F.cross_entropy(out.flatten(0, 1), y.flatten()))


# --- Engines ------------------------------------------------------------------------------------


def lacks(config: dict[str, Any]) -> str | None:
    """Why this machine cannot go a way, if it cannot."""
    offload = config.get("zero_optimization", {}).get("offload_optimizer") or {}
    if offload.get("device") == "cpu" and not env.compiled_ops()["cpu_adam"] and env.compiler() is None:
        return "DeepSpeed's CPU Adam is not compiled and there is no C++ compiler"
    return None


def engine(way: str, config: dict[str, Any], model: GPT, layout: Layout) -> Any:
    """DeepSpeed's engine for one way. Raises UserError with DeepSpeed's own words if it refuses the file."""
    import deepspeed

    config = dict(config)
    accumulation = config.setdefault("gradient_accumulation_steps", 1)
    # DeepSpeed would count tensor-parallel ranks as data-parallel ones: give it the micro batch instead.
    config["train_micro_batch_size_per_gpu"] = config.pop(BATCH) // layout.dp // accumulation
    groups = {}
    try:
        if layout.sp > 1:
            from deepspeed.runtime.sequence_parallel import parallel_state_sp

            parallel_state_sp.initialize_sequence_parallel(layout.sp)
            groups["mpu"] = parallel_state_sp
            model.positions = SplitPositions(model.positions, dist.get_rank() % layout.sp)
        if layout.sp > 1 or layout.tp > 1:
            group = parallel_state_sp.get_sequence_parallel_group() if layout.sp > 1 else None
            for block in model.blocks:
                block.attention = SplitAttention(block.attention, group)
        if layout.pp > 1:
            model = pipeline(model, layout.pp, config["pipeline"].get("partition", "uniform"))
        built, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()),
                                         config=config, **groups)
    except (AssertionError, ValueError, RuntimeError, NotImplementedError, KeyError,
            AttributeError) as error:
        said = [*str(error).strip().splitlines(), type(error).__name__][0]
        raise env.UserError(f"DeepSpeed refuses {way} on {dist.get_world_size()} ranks: {said}") from error
    return built


def watch_states(built: Any) -> dict[str, int]:
    """Bytes of states that this rank holds when the optimizer starts, filled in at each step."""
    held, step = {}, built.optimizer.step

    def measured_step(*args: Any, **options: Any) -> Any:
        now = measure.states(built)
        on_host = 0
        if getattr(built.optimizer, "cpu_offload", False):  # the host has this rank's slice of the gradient
            on_host = sum(p.grad.nbytes for group in built.optimizer.optimizer.param_groups
                          for p in group["params"] if p.grad is not None)
        held.update(vars(now), gradients=now.gradients + on_host)
        return step(*args, **options)

    built.optimizer.step = measured_step
    return held


def train_step(built: Any, layout: Layout, inputs: Tensor, targets: Tensor) -> Tensor:
    """One optimizer step on this rank's share of the batch; returns this rank's loss."""
    accumulation = built.gradient_accumulation_steps()
    if layout.sp > 1:  # this rank's part of every sequence
        part = dist.get_rank() % layout.sp
        inputs, targets = inputs.chunk(layout.sp, dim=1)[part], targets.chunk(layout.sp, dim=1)[part]
    micro_batches = zip(inputs.chunk(accumulation), targets.chunk(accumulation), strict=True)
    if layout.pp > 1:
        return built.train_batch(micro_batches)
    total = torch.zeros((), device=inputs.device)
    for x, y in micro_batches:
        loss = built(x, y)
        built.backward(loss / layout.sp)  # gradients are averaged over data, but added over the sequence
        total += loss.detach() / accumulation
        built.step()
    return total


def leave() -> None:
    """End DeepSpeed's process groups, all of them, and join a fresh one: the next way starts from nothing."""
    from deepspeed import comm

    port = [env.free_port()]
    dist.broadcast_object_list(port)  # rank 0 listens at a new port: the old one may still be closing
    dist.barrier()
    comm.destroy_process_group()
    os.environ["MASTER_PORT"] = str(port[0])
    env.init_distributed()
