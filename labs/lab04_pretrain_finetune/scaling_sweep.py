"""Lab 4's scaling sweep: small GPTs of several sizes, each trained on several budgets of tokens.

    python labs/lab04_pretrain_finetune/scaling_sweep.py --out short.json         # 6 trainings
    python labs/lab04_pretrain_finetune/scaling_sweep.py --full --out full.json   # 26 trainings

One process, one thread, fp32, on the CPU. How long it will take is said before it starts. Each
finished training is written at once: call it again with the same --out, and it goes on from there.

The text is the People's Daily in bytes: about 5 million to train on, so no byte is read twice. All
trainings read the same windows in the same order. Each has a cosine schedule over its own budget:
a long run's loss half-way is not the loss of a run half as long, for its learning rate is still high
(Hoffmann et al. 2022, arXiv 2203.15556, section 2).
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import sweep_file
import torch
from torch import Tensor
from tqdm import tqdm

from labkit import data, plan
from labkit.env import UserError
from labkit.flags import at_least
from labkit.models import GPT, GPTConfig, count_parameters

CONTEXT, BATCH = 64, 16  # bytes in a window, windows in a step: 1,024 tokens a step
VALIDATION = 1024  # held-out windows
SHORT = {50: (1, 2, 3), 200: (1, 2, 3)}  # steps: numbers of layers
FULL = {200: range(1, 7), 400: range(1, 7), 800: range(1, 7), 1600: range(1, 6), 3200: range(1, 4)}


def shape(layers: int) -> GPTConfig:
    """16 numbers of hidden size for each layer: all models have the same proportions."""
    return GPTConfig(data.VOCAB_SIZE, CONTEXT, layers, layers, 16 * layers)


def learning_rate(hidden: int, step: int, steps: int) -> float:
    """Peak 0.384 / hidden size, after a tenth of the steps; then a cosine down to a tenth of it."""
    peak, warm = 0.384 / hidden, max(1, steps // 10)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def windows(text: str, seed: int) -> tuple[Tensor, Tensor]:
    """(inputs, targets): all windows of the text that do not overlap, shuffled."""
    tokens = data.encode(text)
    rows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    return rows[:, :-1], rows[:, 1:]


def build(layers: int, seed: int) -> tuple[GPT, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = GPT(shape(layers))
    return model, torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)


def one_step(model: GPT, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    model(inputs, targets).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def held_out(model: GPT, inputs: Tensor, targets: Tensor) -> float:
    """Nats per token on the validation windows, always the same."""
    parts = zip(inputs.split(64), targets.split(64), strict=True)
    return sum(model(x, y).item() * len(x) for x, y in parts) / len(inputs)


def train(layers: int, steps: int, seed: int, train_set: tuple, validation: tuple,
          tick: Callable[[int], None]) -> dict:
    """One training from the start: a point (N, D, FLOPs, loss)."""
    began = time.process_time()
    model, optimizer = build(layers, seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(model.config.hidden_size, step, steps)
        batch = slice(step * BATCH, (step + 1) * BATCH)
        one_step(model, optimizer, train_set[0][batch], train_set[1][batch])
        tick(step + 1)
    loss = held_out(model, *validation)
    return {"layers": layers, "hidden": model.config.hidden_size, "steps": steps,
            "N": count_parameters(model.blocks), "N_all": count_parameters(model),
            "D": steps * BATCH * CONTEXT, "flops": step_flops(layers) * steps, "loss": loss,
            "seconds": round(time.process_time() - began, 1)}


def step_flops(layers: int) -> int:
    """FLOPs of a step's matrix products, attention and the output layer included."""
    return plan.iteration_flops(BATCH, CONTEXT, layers, 16 * layers, data.VOCAB_SIZE)


def step_seconds(layers: int, seed: int, train_set: tuple) -> float:
    """A step timed on this machine: the best of three, after one to warm up."""
    model, optimizer = build(layers, seed)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        one_step(model, optimizer, train_set[0][:BATCH], train_set[1][:BATCH])
        times.append(time.perf_counter() - began)
    return min(times[1:])


def sweep(grid: dict, seed: int, path: Path, command: str) -> None:
    """Train what is missing in the file."""
    corpus = data.load("peoples-daily")
    settings = {"corpus": corpus.card.corpus, "sha256": corpus.card.sha256, "context": CONTEXT,
                "batch": BATCH, "seed": seed}
    result = sweep_file.read(path, settings, ("layers", "steps"))
    result |= {"command": command, "device": f"cpu, 1 thread, {platform.machine()}",
               "versions": {"python": platform.python_version(), "torch": torch.__version__}}
    done = {(point["layers"], point["steps"]) for point in result["points"]}
    missing = [(layers, steps) for steps, sizes in grid.items() for layers in sizes
               if (layers, steps) not in done]
    missing.sort(key=lambda point: step_flops(point[0]) * point[1])  # the cheap ones first
    sweep_file.write(path, result)  # a folder that cannot be written is known now, not after an hour
    part, test = corpus.split()
    train_set = windows(part.text, seed)
    most = len(train_set[0]) // BATCH
    if max(grid) > most:
        raise UserError(f"{max(grid)} steps need more text than there is: at most {most}")
    validation = tuple(rows[:VALIDATION] for rows in windows(test.text, 0))
    speed = {layers: step_seconds(layers, seed, train_set) for layers, _ in missing}
    evaluation = VALIDATION / BATCH / 3  # forward only: a third of a step's FLOPs
    seconds = sum(speed[layers] * (steps + evaluation) for layers, steps in missing)
    total = sum(step_flops(layers) * steps for layers, steps in missing) / 1e9
    print(f"{len(missing)} trainings to do, {len(done)} done before: {total:,.0f} GFLOP, "
          f"about {seconds:.0f} s ({seconds / 60:.1f} minutes) on this machine", flush=True)
    with tqdm(total=round(total), unit="GFLOP", leave=False, dynamic_ncols=True) as bar:
        before = 0.0
        for layers, steps in missing:
            cost = step_flops(layers) / 1e9

            def tick(step: int, before: float = before, cost: float = cost) -> None:
                bar.update(round(before + step * cost) - bar.n)

            bar.set_postfix_str(f"{layers} layers, {steps} steps")
            point = train(layers, steps, seed, train_set, validation, tick)
            before += steps * cost
            result["points"].append(point)
            sweep_file.write(path, result)
            bar.write(f"N {point['N']:9,}  D {point['D']:9,}  loss {point['loss']:.4f}  "
                      f"{point['seconds']:.0f} s", file=sys.stdout)
    print(f"{len(result['points'])} points in {path}", flush=True)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("scaling_sweep.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="26 trainings: six sizes, up to 3,276,800 tokens")
    p.add_argument("--layers", type=at_least(1), nargs="+", help="sizes: 16 of hidden size a layer")
    p.add_argument("--steps", type=at_least(1), nargs="+", help="budgets: 1,024 tokens a step")
    p.add_argument("--seed", type=at_least(0), default=0, help="of weights and order of the text")
    p.add_argument("--out", type=Path, required=True, help="file for the points; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    args = parser().parse_args(flags)
    if args.full and (args.layers or args.steps):
        raise UserError("--full has its own sizes and budgets: leave --layers and --steps out")
    grid = FULL if args.full else SHORT
    if args.layers or args.steps:
        sizes = sorted(set(args.layers or SHORT[200]))
        grid = {steps: sizes for steps in sorted(set(args.steps or SHORT))}
    torch.set_num_threads(1)
    command = " ".join(["python", "labs/lab04_pretrain_finetune/scaling_sweep.py", *flags])
    sweep(grid, args.seed, args.out, command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
