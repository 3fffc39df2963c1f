"""Lab 4's long run: how long it will take, checkpoints on the way, and going on from one."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import scores
import torch
from torch import distributed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from labkit import configs, env

KEEP = 2  # checkpoints


def announce(args: argparse.Namespace, ranks: int, model: PreTrainedModel,
             tokenizer: PreTrainedTokenizerBase) -> str:
    """How long a run will take at least: steps timed here, without optimizer and all-reduce."""
    batch = configs.global_batch(configs.load(args.config), ranks)
    model, times, threads = model.to(env.device()), [], torch.get_num_threads()
    torch.set_num_threads(max(1, env.cores() // ranks))  # as many as a rank will have
    tokens = torch.full((max(1, batch // ranks), args.context // 2), len(tokenizer) - 1)
    for seed in range(4):
        began = time.perf_counter()
        inputs, targets = scores.hidden(tokenizer, tokens, seed)
        model(input_ids=inputs.to(model.device), labels=targets.to(model.device)).loss.backward()
        times.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    each = min(times[1:]) * max(1.0, 0.0 if env.use_gpu() else ranks / env.cores())
    minutes = each * (args.steps + args.finetune_steps) / 60
    return (f"at least {minutes:.0f} minutes, by steps timed here ({each:.2f} s each); a checkpoint every "
            f"{args.every} steps: if it is stopped, the same command with --resume RUN goes on")


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What must be the same in the run that goes on."""
    named = ("steps", "hidden", "layers", "context", "seed", "model", "lr", "bf16", "zero")
    return {name: getattr(args, name) for name in named} | {"ranks": distributed.get_world_size()}


def save(engine: Any, args: argparse.Namespace, done: int) -> None:
    """Keep all that step `done` needs, on every rank. DeepSpeed names it in `latest` when it is whole."""
    folder = Path(args.run_dir) / "checkpoints"
    if distributed.get_rank() == 0:  # first, so that no checkpoint lacks them
        folder.mkdir(exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings(args)), encoding="utf-8")
    engine.save_checkpoint(str(folder), f"step{done:06d}", client_state={"done": done})
    if distributed.get_rank() == 0:
        for old in sorted(folder.glob("step*"))[:-KEEP]:
            shutil.rmtree(old)


def resume(engine: Any, args: argparse.Namespace) -> int:
    """Load the last checkpoint of ``--resume``; the number of steps that are done, 0 without the flag.

    Raises UserError if it is of another run than this one.
    """
    if not args.resume:
        return 0
    folder = Path(args.resume) / "checkpoints"
    before = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    for name, value in settings(args).items():
        if before[name] != value:
            raise env.UserError(f"--resume {args.resume}: that run had {name} {before[name]}, this one has "
                                f"{value}: give the same flags")
    _, client_state = engine.load_checkpoint(str(folder))
    return client_state["done"]
