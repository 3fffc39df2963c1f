"""Lab 1, First run: one language model, trained by a plain PyTorch loop or by DeepSpeed.

    labkit run lab01 --ranks 1 --engine torch     # the loop you would write yourself
    labkit run lab01 --ranks 2                    # DeepSpeed on two ranks

The global batch is the same whatever the number of ranks, so the losses are the same too.
"""

import argparse
import contextlib
import json
from pathlib import Path

import deepspeed
import torch

from labkit import configs, data, env, measure
from labkit.flags import at_least
from labkit.models import GPT, GPTConfig
from labkit.records import Recorder


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for the records; without it nothing is written")
    p.add_argument("--config", default="ds_config.json", help="DeepSpeed JSON (default: %(default)s)")
    p.add_argument("--engine", choices=["deepspeed", "torch"], default="deepspeed")
    p.add_argument("--steps", type=at_least(1), default=60, help="optimizer steps (default: %(default)s)")
    p.add_argument("--lr", type=float, help="learning rate, instead of the configuration's")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--context", type=at_least(1), default=64, help="bytes of context (default: %(default)s)")
    p.add_argument("--layers", type=at_least(1), default=2)
    p.add_argument("--hidden", type=at_least(1), default=128, help="hidden size, a multiple of 32")
    return p


def main() -> None:
    args = parser().parse_args()
    with Recorder(args.run_dir, total_steps=args.steps) as record:
        train(args, record)
    torch.distributed.destroy_process_group()  # leave the group before the process ends


def train(args: argparse.Namespace, record: Recorder) -> None:
    config = json.loads(Path(args.config).read_text())
    adamw = config.get("optimizer", {}).get("params")
    if adamw is None:
        raise env.UserError(f"{args.config} names no optimizer with params: the lab needs its AdamW")
    if args.lr is not None:
        adamw["lr"] = args.lr

    env.init_distributed()
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    device = env.device()
    if args.engine == "torch" and world_size > 1:
        raise env.UserError("the plain loop knows one rank only: take --ranks 1 or --engine deepspeed")

    torch.manual_seed(args.seed)  # every rank builds the same model
    model = GPT(GPTConfig(context=args.context, num_layers=args.layers, hidden_size=args.hidden,
                          num_heads=args.hidden // 32)).to(device)
    corpus, _ = data.load("python-reference").split()
    batches = data.batches(data.encode(corpus.text), configs.global_batch(config, world_size), args.context,
                           args.steps, seed=args.seed, rank=rank, world_size=world_size)

    if args.engine == "deepspeed":
        engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
        accumulation = engine.gradient_accumulation_steps()
    else:
        adamw = {key: value for key, value in adamw.items() if key != "torch_adam"}
        optimizer = torch.optim.AdamW(model.parameters(), **adamw)

    for step, (inputs, targets) in enumerate(batches):
        inputs, targets = inputs.to(device), targets.to(device)
        last = step == args.steps - 1
        if args.engine == "torch":
            loss = model(inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            if last:
                record.metric("states", **vars(measure.states(model, optimizer)))
            optimizer.step()
        else:
            loss = 0.0
            # counting takes time: only once
            with measure.collectives() if last else contextlib.nullcontext() as traffic:
                for x, y in zip(inputs.chunk(accumulation), targets.chunk(accumulation), strict=True):
                    micro_loss = engine(x, y)
                    engine.backward(micro_loss)
                    loss += micro_loss.detach() / accumulation
                    if last:
                        record.metric("states", **vars(measure.states(engine)))
                    engine.step()
            if last:
                record.metric("traffic", **vars(traffic))
        record.step(step, loss=loss.item(), tokens=inputs.numel())


if __name__ == "__main__":
    main()
