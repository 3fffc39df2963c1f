"""Lab 3, Where the memory and the time go: bytes and FLOPs predicted and counted, then MFU measured.

    labkit run lab03 --ranks 2                                  # counts, then training, and a table
    labkit run lab03 --ranks 2 --checkpoint on --context 256    # only with activation checkpointing
    labkit run lab03 --ranks auto --dtype bf16 --hidden 1024 --layers 24 --context 1024

Every rank counts for itself; the ranks train together, each on a micro-batch of its own.
"""

import argparse
import statistics
import sys
from pathlib import Path

import deepspeed
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the lab's other files

import memory_counts as counts
import time_table as table

from labkit import configs, data, env, measure
from labkit.flags import at_least
from labkit.models import GPTConfig
from labkit.records import Recorder, Run

WARM_UP = 2  # steps not timed: buffers are made, caches filled
MICRO = "train_micro_batch_size_per_gpu"


def rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to below 1, not {text!r}")
    return number


def heads_of_32(text: str) -> int:
    if not text.isdecimal() or int(text) < 32 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"must be a multiple of 32, the size of a head, not {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for the records; without it nothing is written")
    p.add_argument("--config", default=str(Path(__file__).with_name("ds_config.json")), help="DeepSpeed JSON")
    p.add_argument("--steps", type=at_least(WARM_UP + 2), default=8, help="steps of each training")
    p.add_argument("--micro", type=at_least(1), help=f"sequences a rank, instead of the JSON's {MICRO}")
    p.add_argument("--context", type=at_least(1), default=64, help="bytes of context (default: %(default)s)")
    p.add_argument("--layers", type=at_least(1), default=4)
    p.add_argument("--hidden", type=heads_of_32, default=256, help="hidden size, a multiple of 32")
    p.add_argument("--dtype", choices=list(counts.DTYPES), default="fp32", help="of the training")
    p.add_argument("--checkpoint", choices=["both", "on", "off"], default="both",
                   help="train with activation checkpointing, without, or once each (default)")
    p.add_argument("--dropout", type=rate, default=0.1, help="rate for the counted bytes; trained without")
    p.add_argument("--seed", type=int, default=0)
    return p


def announce(args: argparse.Namespace, ranks: int) -> None:
    """Refuse a file that the lab cannot use; labkit asks before it starts anything."""
    read_config(args)


def main() -> None:
    args = parser().parse_args()
    modes = {"both": [False, True], "on": [True], "off": [False]}[args.checkpoint]
    with Recorder(args.run_dir, total_steps=len(modes) * args.steps) as record:
        config, shape = read_config(args), GPTConfig(context=args.context, num_layers=args.layers,
                                                     hidden_size=args.hidden, num_heads=args.hidden // 32)
        env.init_distributed()
        deepspeed.checkpointing.configure(None, deepspeed_config=config)
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        text, device = data.encode(data.load("python-reference").text), env.device()
        batches = [tuple(part.to(device).contiguous() for part in batch) for batch in data.batches(
            text, config[MICRO] * world_size, args.context, args.steps, seed=args.seed,
            rank=rank, world_size=world_size)]
        record.metric("activations", rows=counts.activations(shape, args.seed, args.dropout, *batches[0]))
        record.metric("flops", **counts.flops(shape, args.seed, *batches[0]))
        for number, checkpointed in enumerate(modes):
            train(args, config, shape, checkpointed, batches, record, number * args.steps)
    torch.distributed.destroy_process_group()  # leave the group before the process ends


def read_config(args: argparse.Namespace) -> dict:
    """DeepSpeed's JSON with the flags laid over it."""
    config = configs.load(args.config)
    if configs.global_batch(config, 1) != config.get(MICRO):
        raise env.UserError(f"the lab gives each rank one micro-batch a step: set only {MICRO} in the JSON")
    if not config.get("optimizer"):
        raise env.UserError("the lab times an optimizer's step, and the JSON names none: see ds_config.json")
    bf16 = {"bf16": {"enabled": True}} if args.dtype == "bf16" else {}
    return {**config, MICRO: args.micro or config[MICRO], **bf16}


def train(args, config, shape, checkpointed, batches, record, first_step) -> None:
    """Train, and time the parts of a step."""
    model = counts.build(shape, args.seed, dtype=args.dtype, checkpointed=checkpointed)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    clock = table.Clock()
    engine.allreduce_gradients = clock.inner("communication", engine.allreduce_gradients)
    peak, losses = measured_peak(args), []
    for step, (inputs, targets) in enumerate(batches):
        torch.distributed.barrier()  # the step begins on all ranks at once
        clock.start()
        loss = engine(inputs, targets)
        clock.lap("forward")
        engine.backward(loss)
        clock.lap("backward")
        engine.step()
        clock.lap("optimizer")
        losses.append(loss.item())
        record.step(first_step + step, loss=losses[-1], tokens=inputs.numel())
    parts = {name: statistics.median(times[WARM_UP:]) for name, times in clock.times.items()}
    seconds = statistics.median([sum(one) for one in zip(*clock.times.values(), strict=True)][WARM_UP:])
    record.metric("recomputed" if checkpointed else "plain", losses=losses, parts=parts, seconds=seconds,
                  tokens=batches[0][0].numel(), peak=max(peak, measured_peak(args)))
    engine.destroy()


def measured_peak(args: argparse.Namespace) -> float:
    """FLOP/s of a large matrix product, while all other ranks compute one too."""
    torch.distributed.barrier()
    large = env.use_gpu()
    return measure.matmul_peak(8192 if large else 512, 20 if large else 10, counts.DTYPES[args.dtype],
                               env.device())


def report(run: Run) -> str:
    """What `labkit run lab03` prints at the end."""
    return table.text(run)


if __name__ == "__main__":
    main()
