"""Lab 6's long run: how long it will take, checkpoints on the way, and going on from one."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pretrain
import torch
from torch import distributed

from labkit import configs, env

KEEP = 2  # checkpoints
READING = 60.0  # seconds to split the corpora and to cut the pre-training text into tokens, about
ROW = 80  # tokens of a row on average with its padding


def announce(args: argparse.Namespace, ranks: int) -> str:
    """How long a run will take at least: a micro-batch of each phase timed here, without optimizer."""
    config = configs.load(args.config)
    batch, micro = configs.global_batch(config, ranks), config.get("train_micro_batch_size_per_gpu", 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a rank will have
    model = pretrain.make_model().to(env.device())
    shares = max(1.0, 0.0 if env.use_gpu() else ranks / env.cores()) / ranks  # ranks that share a core wait
    fine = timed(model, micro, ROW, args.bf16) * batch / micro * shares
    seconds = READING + args.steps * fine
    said = f"{args.steps:,} fine-tuning steps of {fine:.2f} s"
    if args.pretrain:
        step = timed(model, pretrain.BATCH, pretrain.CONTEXT, args.bf16) * shares
        seconds += args.pretrain * step
        said = (f"{READING:.0f} s to read all text and leave out what is like a test text, "
                f"{args.pretrain:,} pre-training steps of {step:.1f} s, {said}")
    torch.set_num_threads(threads)
    goes_on = (f"; a checkpoint every {args.every} steps: if it is stopped, the same command with --resume "
               "RUN goes on" if args.every else "")
    return f"at least {seconds / 60:.0f} minutes, by steps timed here ({said}){goes_on}"


def timed(model: torch.nn.Module, rows: int, length: int, bf16: bool) -> float:
    """Seconds of a forward and backward pass, the best of three."""
    tokens, times = torch.zeros(rows, length, dtype=torch.long, device=env.device()), []
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast(env.device(), torch.bfloat16, enabled=bf16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        times.append(time.perf_counter() - began)
    return min(times)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What must be the same in the run that goes on."""
    made = {name: getattr(args, name) for name in ("steps", "seed", "lr", "bf16", "mix", "start", "every")}
    return made | {"tasks": list(args.tasks), "fault": args.fault, "ranks": distributed.get_world_size()}


def save(engine: Any, args: argparse.Namespace, done: int, curve: list) -> None:
    """Keep all that step `done` needs, on every rank. DeepSpeed names it in `latest` when it is whole."""
    folder = Path(args.run_dir) / "checkpoints"
    if distributed.get_rank() == 0:  # first, so that no checkpoint lacks them
        folder.mkdir(exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings(args)), encoding="utf-8")
    engine.save_checkpoint(str(folder), f"step{done:06d}", client_state={"done": done, "curve": curve})
    if distributed.get_rank() == 0:
        for old in sorted(folder.glob("step*"))[:-KEEP]:
            shutil.rmtree(old)


def resume(engine: Any, args: argparse.Namespace) -> tuple[int, list]:
    """Load the last checkpoint of ``--resume``; (steps that are done, curve so far), (0, []) without it.

    Raises UserError if it is of another run than this one.
    """
    if not args.resume:
        return 0, []
    folder = Path(args.resume).resolve() / "checkpoints"
    before = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    for name, value in settings(args).items():
        if before.get(name) != value:
            raise env.UserError(f"--resume {args.resume}: that run had {name} {before.get(name)}, this one "
                                f"has {value}: give the same flags")
    held = engine.load_checkpoint(str(folder))[1]
    return held["done"], held["curve"]
