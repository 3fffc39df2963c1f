"""Lab 1, First run: one language model, trained by a plain PyTorch loop or by DeepSpeed.

    labkit run lab01 --ranks 1 --engine torch               # the loop you would write yourself
    labkit run lab01 --ranks 2                              # DeepSpeed on two ranks
    labkit run lab01 --ranks 2 --engine torch --fault sum   # a mistake on purpose

The global batch is the same whatever the number of ranks, so the losses are the same too. The two
loops stand first; what is measured on the way comes after them.
"""

import argparse
import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import deepspeed
import torch
from torch import distributed

from labkit import configs, data, env, measure
from labkit.flags import at_least
from labkit.models import GPT, GPTConfig
from labkit.records import Recorder

LAB = Path(__file__).resolve().parent
OPTIMIZERS = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}


def plain_loop(model, config, batches):
    optimizer = new_optimizer(model, config)
    for x, y in batches:
        loss = model(x, y)
        loss.backward()
        yield loss, optimizer  # for the script below, which writes the loss down
        optimizer.step()
        optimizer.zero_grad()


def deepspeed_loop(model, config, batches):
    engine, _, _, _ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=config)
    for x, y in batches:
        loss = engine(x, y)
        engine.backward(loss)
        yield loss, engine.optimizer  # for the script below, which writes the loss down
        engine.step()


# ------------------------------------------------------------------- what the loops are given


def read_config(args: argparse.Namespace) -> dict:
    """The DeepSpeed JSON, with the learning rate that ``--lr`` gives, if any."""
    config = configs.load(args.config)
    if not (config.get("optimizer") or {}).get("params"):
        raise env.UserError(f"{args.config} names no optimizer with params: the lab needs one")
    if args.lr is not None:
        config["optimizer"]["params"]["lr"] = args.lr
    return config


def new_optimizer(model: torch.nn.Module, config: dict) -> torch.optim.Optimizer:
    """The torch optimizer that DeepSpeed would make from this configuration."""
    kind = config["optimizer"].get("type")
    if kind not in OPTIMIZERS:
        raise env.UserError(f"the plain loop knows the optimizers {' and '.join(OPTIMIZERS)}, not {kind!r}")
    params = {key: value for key, value in config["optimizer"]["params"].items() if key != "torch_adam"}
    unknown = [key for key in params if key not in inspect.signature(OPTIMIZERS[kind]).parameters]
    if unknown:
        raise env.UserError(f"torch's {kind} has no {unknown[0]}: take it out for the plain loop")
    return OPTIMIZERS[kind](model.parameters(), **params)


def new_model(args: argparse.Namespace) -> GPT:
    """The same weights on every rank: all start from one seed."""
    torch.manual_seed(args.seed)
    return GPT(GPTConfig(context=args.context, num_layers=args.layers, hidden_size=args.hidden,
                         num_heads=args.hidden // 32))


def micro_batch_size(config: dict, share: int) -> int:
    """Sequences that a rank takes at once, out of its ``share`` of the global batch."""
    return (config.get("train_micro_batch_size_per_gpu")
            or share // (config.get("gradient_accumulation_steps") or 1))


def micro_batches(args: argparse.Namespace, global_batch: int, micro_batch: int, *, rank: int = 0,
                  world_size: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's share of each step's global batch, ``micro_batch`` sequences at a time."""
    corpus, _ = data.load("python-reference").split()
    for x, y in data.batches(data.encode(corpus.text), global_batch, args.context, args.steps,
                             seed=args.seed, rank=rank, world_size=world_size):
        yield from zip(x.split(micro_batch), y.split(micro_batch), strict=True)


# ------------------------------------------------------------------- the script around them


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for the records; without it nothing is written")
    p.add_argument("--config", default=LAB / "ds_config.json", help="DeepSpeed JSON")
    p.add_argument("--engine", choices=["deepspeed", "torch"], default="deepspeed")
    p.add_argument("--fault", choices=["sum", "alone"], help="with --engine torch on several ranks: add the "
                   "gradients up and forget to divide, or let each rank train alone on its share")
    p.add_argument("--steps", type=at_least(1), default=60, help="optimizer steps (default: %(default)s)")
    p.add_argument("--lr", type=float, help="learning rate, instead of the configuration's")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--context", type=at_least(1), default=64, help="bytes of context (default: %(default)s)")
    p.add_argument("--layers", type=at_least(1), default=2)
    p.add_argument("--hidden", type=at_least(1), default=128, help="hidden size, a multiple of 32")
    return p


def announce(args: argparse.Namespace, world_size: int) -> None:
    """Refuse flags that do not go together, or a file; labkit asks before it starts anything."""
    alone = args.engine == "torch" and world_size == 1
    if args.fault and (alone or args.engine == "deepspeed"):
        raise env.UserError(f"--fault {args.fault} needs --engine torch and --ranks 2 or more")
    if args.engine == "torch" and not alone and not args.fault:
        raise env.UserError("the plain loop knows one rank only: take --ranks 1 or --engine deepspeed")
    config = read_config(args)
    if args.engine == "torch":
        new_optimizer(torch.nn.Linear(1, 1), config)
        sections = {key: config.get(key) or {} for key in ("bf16", "scheduler", "gradient_clipping")}
        if sections["bf16"] and not sections["bf16"].get("enabled"):
            del sections["bf16"]
        left_out = [key for key, value in sections.items() if value]
        if left_out:
            raise env.UserError(f"the plain loop would leave out the file's {' and '.join(left_out)}: take "
                                "that out, or --engine deepspeed")


def main() -> None:
    args = parser().parse_args()
    with Recorder(args.run_dir, total_steps=args.steps) as record:
        env.init_distributed()
        train(args, record)
    distributed.destroy_process_group()  # leave the group before the process ends


def train(args: argparse.Namespace, record: Recorder) -> None:
    """Run one of the loops, and write down its losses; in the last step also states and traffic."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    announce(args, world_size)
    config = read_config(args)
    batch = configs.global_batch(config, world_size)
    share = batch // world_size
    micro = share if args.engine == "torch" else micro_batch_size(config, share)

    device = env.device()
    model = new_model(args).to(device)
    batches = ((x.to(device), y.to(device)) for x, y in micro_batches(
        args, batch, micro, rank=rank, world_size=world_size))
    pieces = share // micro  # micro-batches a step
    loop = plain_loop if args.engine == "torch" else deepspeed_loop
    training = loop(model, config, count_from((args.steps - 1) * pieces, batches, record))
    for step in range(args.steps):
        last = step == args.steps - 1
        losses = []
        for _ in range(pieces):
            loss, optimizer = next(training)
            losses.append(loss.item())
        # The step's gradients are there, and the optimizer has not used them yet.
        if args.fault == "sum":
            for p in model.parameters():
                distributed.all_reduce(p.grad)  # and no division by world_size
        if last:
            record.metric("states", **vars(measure.states(model, optimizer)))
        record.step(step, loss=fmean(losses), tokens=share * args.context)
    next(training, None)  # the last optimizer step


def count_from(first: int, batches: Iterator, record: Recorder) -> Iterator:
    """Hand the batches on; from number ``first`` on count what this rank sends. Counting costs time."""
    with contextlib.ExitStack() as stack:
        for number, batch in enumerate(batches):
            if number == first:
                traffic = stack.enter_context(measure.collectives())
            yield batch  # what the loop does with it happens here
    record.metric("traffic", **vars(traffic))


if __name__ == "__main__":
    main()
