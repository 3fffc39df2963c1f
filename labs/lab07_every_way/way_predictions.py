"""What Lab 7 must find on each rank, from the model's shape and a way's file: bytes held, numbers sent."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import way_engines as engines

from labkit import configs, env, plan
from labkit.models import GPTConfig
from labkit.plan import States

Sent = dict[tuple[str, int], int]


@dataclass(frozen=True)
class Way:
    """A way's file, how the ranks go it, and what this rank must find."""

    config: dict[str, Any]
    layout: engines.Layout
    states: States
    sent: Sent


@dataclass(frozen=True)
class Todo:
    """What all ways share, each way by name, and those left out with the number of ranks that they need."""

    base: dict[str, Any]
    shape: GPTConfig
    ways: dict[str, Way]
    left_out: dict[str, int]


def plan_ways(args: argparse.Namespace, rank: int, world_size: int) -> Todo:
    """What to do, with every prediction. Raises UserError for a file, a shape or ranks that do not go."""
    base = configs.load(args.config)
    shape = GPTConfig(context=args.context, num_layers=args.layers, num_heads=4, hidden_size=args.hidden)
    files = {Path(way).stem: engines.read(way, base) for way in args.ways}
    ways, left_out = {}, {}
    if args.ways == engines.names():  # not chosen one by one: leave out those that need other ranks
        left_out = {way: degree for way, file in files.items()
                    if world_size % (degree := engines.ranks_for_one(file))}
        files = {way: file for way, file in files.items() if way not in left_out}
    for way, config in files.items():
        layout = engines.lay_out(way, config, world_size)
        try:
            ways[way] = Way(config, layout, states(shape, layout, config, rank),
                            sent(shape, layout, config, rank))
        except ValueError as error:
            raise env.UserError(f"{way}: {error}; choose another shape, or other --ways") from None
    return Todo(base, shape, ways, left_out)


def sizes(shape: GPTConfig, layout: engines.Layout, rank: int) -> list[int]:
    """Elements of each parameter that a rank holds, in the model's order, before ZeRO divides them."""
    h, tp = shape.hidden_size, layout.tp
    if shape.num_heads % tp:  # and the hidden size is a multiple of the heads
        raise ValueError(f"{shape.num_heads} heads cannot be divided among {tp} ranks")
    norm = [h, h]
    block = [*norm, 3 * h * h // tp, 3 * h // tp, h * h // tp, h,  # attention: qkv by columns, out by rows
             *norm, 4 * h * h // tp, 4 * h // tp, 4 * h * h // tp, h]  # MLP: up by columns, down by rows
    tokens, positions = shape.vocab_size * h, shape.context * h
    if layout.pp == 1:
        return [tokens, positions, *block * shape.num_layers, *norm]
    stage = rank // layout.dp
    first, last = stage == 0, stage == layout.pp - 1
    if shape.num_layers % layout.pp:
        raise ValueError(f"{shape.num_layers} layers cannot be divided among {layout.pp} stages")
    blocks = block * (shape.num_layers // layout.pp)
    return [tokens, positions] * first + blocks + [*norm, tokens] * last


def persistence(zero: dict[str, Any]) -> int:
    """Stage 3 keeps smaller parameters whole: DeepSpeed's key, and its default."""
    return zero.get("stage3_param_persistence_threshold", 100_000)


def states(shape: GPTConfig, layout: engines.Layout, config: dict[str, Any], rank: int) -> States:
    """Bytes of fp32 parameters, gradients and optimizer states on a rank, at the end of a backward pass."""
    zero = config.get("zero_optimization", {})
    within = rank if layout.sp > 1 else layout.data_rank(rank)  # ZeRO divides over the sequence's ranks too
    got = plan.deepspeed_held(sizes(shape, layout, rank), layout.dp * layout.sp, zero.get("stage", 0), "fp32",
                              rank=within, persistence_threshold=persistence(zero))
    if zero.get("offload_optimizer"):  # the host holds the slice's gradients; CPU Adam keeps no step counter
        got = States(got.parameters, (got.optimizer - 4) / 3, got.optimizer - 4)
    return States(int(got.parameters), int(got.gradients), int(got.optimizer))


def sent(shape: GPTConfig, layout: engines.Layout, config: dict[str, Any], rank: int) -> Sent:
    """Elements that a rank hands to communication in a step: {(operation, ranks taking part): elements}."""
    zero, layers = config.get("zero_optimization", {}), shape.num_layers
    held, group = sizes(shape, layout, rank), layout.dp * layout.sp
    micro_batches = config.get("gradient_accumulation_steps", 1)
    samples = config["train_batch_size"] // layout.dp // micro_batches
    found: Sent = {}

    def add(op: str, ranks: int, elements: float) -> None:
        if ranks > 1 and elements:
            found[op, ranks] = found.get((op, ranks), 0) + int(elements)

    if group > 1:
        through = plan.deepspeed_bytes(
            held, group, zero.get("stage", 0), "fp32", gradient_accumulation_steps=micro_batches,
            keep_live=zero.get("stage3_max_live_parameters") != 0, persistence_threshold=persistence(zero))
        if zero.get("stage") == 3:
            through["all_reduce"] -= 4  # the norm is one fp64 number
        for op, nbytes in through.items():
            add(op, group, nbytes // 4)
    if layout.tp > 1:
        activations = 4 * layers * samples * shape.context * shape.hidden_size
        # plan.tensor_parallel_messages without the vocabulary, which every rank holds whole
        add("all_reduce", layout.tp, micro_batches * activations)
    if layout.sp > 1:
        swapped = plan.ulysses_messages(layers, samples, shape.context, shape.hidden_size, layout.sp)
        add("all_to_all", layout.sp, micro_batches * swapped["all_to_all"])
    if layout.pp > 1:
        stage = rank // layout.dp
        between = samples * shape.context * shape.hidden_size
        add("send", 2, plan.pipeline_sent(layout.pp, stage, micro_batches, between))
        if stage in (0, layout.pp - 1):
            add("all_reduce", 2, shape.vocab_size * shape.hidden_size)  # both copies of the tied embedding
        if stage == layout.pp - 1:
            add("all_reduce", layout.dp, 1)  # the loss
        add("broadcast", layout.pp, 2)  # the loss, to the other stages
    return found


def ring_bytes(messages: Sent) -> float:
    """Bytes of fp32 that these messages make a rank send, each collective done as a ring."""
    total = 0.0
    for (op, ranks), elements in messages.items():
        whole = op == "send"
        op = "all_to_all" if op == "broadcast" else op  # a broadcast along a chain: all but one send it once
        total += 4 * (elements if whole else plan.message_traffic({op: elements}, ranks))
    return total
