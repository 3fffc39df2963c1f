"""Lab 3's counts: bytes that a forward pass keeps and FLOPs of a step, predicted and measured."""

from __future__ import annotations

from dataclasses import replace

import deepspeed
import torch
from deepspeed.profiling.flops_profiler import FlopsProfiler
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from labkit import env, measure, plan
from labkit.models import GPT, GPTConfig, count_parameters

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Checkpointed(nn.Module):
    """A block that keeps its input only, and runs again in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return deepspeed.checkpointing.checkpoint(self.block, x)


def build(shape: GPTConfig, seed: int, *, dtype: str = "fp32", checkpointed: bool = False) -> GPT:
    """The model on this rank's device; a seed gives the same weights every time."""
    torch.manual_seed(seed)
    model = GPT(shape)
    if checkpointed:
        model.blocks = nn.ModuleList(map(Checkpointed, model.blocks))
    return model.to(env.device(), DTYPES[dtype])


def predicted_bytes(shape: GPTConfig, micro: int, dtype: str, checkpointed: bool) -> int:
    """Bytes kept between forward and backward, from the formulas for torch's CPU kernels."""
    width, dropout = DTYPES[dtype].itemsize, shape.dropout > 0
    sizes = (micro, shape.context, shape.hidden_size, shape.num_heads)
    kept = plan.gpt_activations(micro, shape.context, shape.num_layers, shape.hidden_size,
                                shape.num_heads, shape.vocab_size, width=width, dropout=dropout)
    if checkpointed:
        block = plan.block_activations(*sizes, width=width, dropout=dropout)
        block_input = width * micro * shape.context * shape.hidden_size
        kept, _ = plan.checkpointed_activations(kept, shape.num_layers, block, block_input)
    return int(kept)


def kept_bytes(model: GPT, inputs: Tensor, targets: Tensor) -> int:
    """Bytes made by the forward pass and still alive after it, the batch included, the loss not.

    Saved-tensor hooks would miss what DeepSpeed's checkpointing keeps: it bypasses autograd.
    """
    with measure.peak() as made:
        loss = model(inputs, targets)
    return made.live - loss.nbytes + inputs.nbytes + targets.nbytes


def activations(shape: GPTConfig, seed: int, dropout: float, inputs: Tensor, targets: Tensor) -> list[dict]:
    """Every combination of dtype, dropout and checkpointing: bytes predicted and measured."""
    rows = []
    for dtype in DTYPES:
        for rate in sorted({0.0, dropout}):
            for checkpointed in (False, True):
                case = replace(shape, dropout=rate)
                model = build(case, seed, dtype=dtype, checkpointed=checkpointed)
                rows.append({"dtype": dtype, "dropout": rate, "checkpointed": checkpointed,
                             "predicted": predicted_bytes(case, len(inputs), dtype, checkpointed),
                             "measured": kept_bytes(model, inputs, targets)})
    return rows


def elementwise_flops(shape: GPTConfig, micro: int) -> int:
    """What DeepSpeed's profiler adds for a forward pass: 5 FLOPs a number in LayerNorm, 1 in GELU."""
    norms = 5 * shape.hidden_size * (2 * shape.num_layers + 1)
    gelus = 4 * shape.hidden_size * shape.num_layers
    return micro * shape.context * (norms + gelus)


def flops(shape: GPTConfig, seed: int, inputs: Tensor, targets: Tensor) -> dict[str, float]:
    """FLOPs of one rank's step: by formula, by DeepSpeed's profiler (× 3) and by torch's counter."""
    model = build(shape, seed)
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(inputs, targets)
    profiled = 3 * profiler.get_total_flops()  # backward is taken as twice the forward pass
    profiler.end_profile()
    sizes = (len(inputs), shape.context, shape.num_layers, shape.hidden_size, shape.vocab_size)
    per_token = plan.flops_per_token(count_parameters(model), shape.num_layers, shape.hidden_size,
                                     shape.context)
    return {"rule": per_token * inputs.numel(), "matrix": plan.iteration_flops(*sizes),
            "matrix_recomputed": plan.iteration_flops(*sizes, recompute=True),
            "elementwise": 3 * elementwise_flops(shape, len(inputs)), "profiled": profiled,
            **{f"counted{'_recomputed' * again}": count(shape, seed, again, inputs, targets)
               for again in (False, True)}}


def count(shape: GPTConfig, seed: int, checkpointed: bool, inputs: Tensor, targets: Tensor) -> int:
    """FLOPs of the matrix products that torch sees in a forward and a backward pass."""
    model = build(shape, seed, checkpointed=checkpointed)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused ones go uncounted
        model(inputs, targets).backward()
    return counter.get_total_flops()
