"""Lab 4's flags, and what they are where the reader says nothing."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

from labkit import configs, env
from labkit.flags import at_least

LAB = Path(__file__).resolve().parent
SHORT = {"steps": 300, "finetune_steps": 150, "hidden": 128, "layers": 2, "every": 0}
FULL = {"steps": 3000, "finetune_steps": 1500, "hidden": 256, "layers": 4, "every": 100}
BY_NAME = 5e-5  # learning rate for a model that is trained already


def heads_of_32(text: str) -> int:
    if not text.isdecimal() or int(text) < 32 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"must be a multiple of 32, the size of a head, not {text!r}")
    return int(text)


def positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and at most 1, not {text!r}")
    return number


def parser(about: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=about, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", default="lab04_run", help="folder for records and models")
    p.add_argument("--config", default=LAB / "ds_config.json", help="DeepSpeed JSON")
    p.add_argument("--zero", type=int, choices=[1, 2], help="ZeRO stage, instead of the JSON's")
    p.add_argument("--bf16", action="store_true", help="16-bit weights and gradients, fp32 masters")
    p.add_argument("--full", action="store_true", help="long run of a larger model: "
                   + ", ".join(f"{name} {value}" for name, value in FULL.items()))
    for name, least, says in (("steps", 2, "pre-training steps"), ("finetune_steps", 2, "fine-tuning steps"),
                              ("layers", 1, "of a new model"), ("every", 0, "steps between checkpoints")):
        p.add_argument(f"--{name.replace('_', '-')}", type=at_least(least),
                       help=f"{says} (default: {SHORT[name]})")
    p.add_argument("--hidden", type=heads_of_32, help=f"size of a new model (default: {SHORT['hidden']})")
    p.add_argument("--context", type=at_least(8), default=128, help="tokens of a text at most (default: 128)")
    p.add_argument("--lr", type=positive, help="of pre-training (default: the JSON's; with --model 5e-5)")
    p.add_argument("--finetune-lr", type=positive, help="(default: 5e-4; with --model 5e-5)")
    p.add_argument("--labels", type=positive, default=1.0, help="share of labels to use, from 0 to 1")
    p.add_argument("--scratch", action="store_true", help="fine-tune without pre-training")
    p.add_argument("--model", help="go on from this masked model: a folder, or a name on the hub")
    p.add_argument("--resume", metavar="RUN", help="go on from the last checkpoint of that run")
    p.add_argument("--seed", type=at_least(0), default=0)
    return p


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what was not said. Raises UserError where two flags contradict each other."""
    for name, value in (FULL if args.full else SHORT).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.lr = args.lr or (BY_NAME if args.model else None)
    args.finetune_lr = args.finetune_lr or (BY_NAME if args.model else 5e-4)
    if args.model and args.scratch:
        raise env.UserError("--scratch starts from nothing, --model from a trained model: leave one out")
    if args.resume and not (Path(args.resume) / "checkpoints" / "latest").is_file():
        raise env.UserError(f"--resume {args.resume}: no checkpoint there; give the folder of a run of "
                            "this lab that was started with --full or --every")
    return args


def config(args: argparse.Namespace) -> dict[str, Any]:
    """DeepSpeed's JSON with the flags laid over it."""
    read = configs.load(args.config)
    zero = {**read.get("zero_optimization", {}), **({"stage": args.zero} if args.zero else {})}
    if zero.get("stage", 0) > 2:
        raise env.UserError("this lab writes the weights that a rank holds: ZeRO stage 0, 1 or 2 in the JSON")
    if "optimizer" not in read:
        raise env.UserError("the JSON names no optimizer: see ds_config.json")
    return {**read, "zero_optimization": zero, **({"bf16": {"enabled": True}} if args.bf16 else {})}


def labelled(train_set: list[tuple[str, int]], args: argparse.Namespace,
             config: dict[str, Any]) -> list[tuple[str, int]]:
    """The labelled reviews to use; the same on every rank."""
    chosen = random.Random(args.seed).sample(train_set, round(args.labels * len(train_set)))
    batch = configs.global_batch(config, int(os.environ.get("WORLD_SIZE", 1)))
    if len(chosen) < batch:
        raise env.UserError(f"--labels {args.labels:g} leaves {len(chosen)} reviews, fewer than a batch of "
                            f"{batch}: give at least {batch / len(train_set):.4f}")
    return chosen
