"""Lab 7, The same model, every way: ZeRO, offload, pipeline, tensor and sequence parallel, side by side.

    labkit run lab07 --ranks 2                        # every way that 2 ranks can go, and a table
    labkit run lab07 --ranks 4 --ways pp2,tp2,zero1   # some of them
    labkit run lab07 --ranks auto --record            # on the GPUs there are; kept for the chapter

A way is a file in ways/, laid over ds_config.json: edit it, or give the path of your own. All ways train
the same model on the same global batch, and must give the same losses.
"""

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

import torch

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import way_engines as engines  # noqa: E402
import way_predictions as predicted  # noqa: E402
import way_table as table  # noqa: E402

from labkit import data, env, measure  # noqa: E402
from labkit.flags import at_least  # noqa: E402
from labkit.models import GPT, GPTConfig  # noqa: E402
from labkit.records import Recorder, Run  # noqa: E402

TOLERANCE = 1e-4  # relative; fp32 sums in another order differ by some 1e-7 a step
WARM_UP = 3  # steps not timed: buffers are made, ZeRO-3 learns the order of layers


SPLITS_THE_MODEL = True


class LossesDiffer(RuntimeError):
    """A way that does not compute what the plain loop computes."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for the records; without it nothing is written")
    p.add_argument("--config", default=str(LAB / "ds_config.json"), help="what all ways share")
    p.add_argument("--ways", type=engines.known, default="all",
                   help="names in ways/ or paths of .json files, with commas between (default: all)")
    p.add_argument("--steps", type=at_least(WARM_UP + 2), default=20, help="steps of each way")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--context", type=at_least(1), default=32)
    p.add_argument("--layers", type=at_least(1), default=4)
    p.add_argument("--hidden", type=at_least(4), default=64, help="hidden size; there are 4 heads")
    p.add_argument("--record", action="store_true", help="keep the table in recorded/, for the chapter")
    return p


def announce(args: argparse.Namespace, ranks: int) -> None:
    """Refuse files, a shape or ranks that do not go together; labkit asks before it starts anything."""
    predicted.plan_ways(args, 0, ranks)


def batch_unit(args: argparse.Namespace, config: dict, ranks: int) -> int:
    """What the global batch must be a multiple of, so that every way can share it out."""
    files = [engines.read(way, config) for way in args.ways]
    return math.lcm(*(ranks // engines.ranks_for_one(file) * file.get("gradient_accumulation_steps", 1)
                      for file in files if ranks % engines.ranks_for_one(file) == 0))


def main() -> None:
    args = parser().parse_args()
    try:
        todo = predicted.plan_ways(args, int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    except env.UserError:
        with Recorder(args.run_dir, total_steps=0):  # where the launcher finds the sentence
            raise
    with Recorder(args.run_dir, total_steps=(len(todo.ways) + 1) * args.steps) as record:
        env.init_distributed()
        every_way(args, todo, record)
    if args.record and record.rank == 0:
        table.keep(args.run_dir, LAB / "recorded")
    torch.distributed.destroy_process_group()  # leave the group before the process ends


def every_way(args: argparse.Namespace, todo: predicted.Todo, record: Recorder) -> None:
    text = data.encode(data.load("python-reference").text)
    samples, context = todo.base[engines.BATCH], todo.shape.context
    batches = list(data.batches(text, samples, context, args.steps, seed=args.seed))
    plain, wrong = train_plain(args, todo, batches, record), []
    for way, degree in todo.left_out.items():
        record.metric("skipped", way=way, reason=f"the model is divided over {degree} ranks, and this run's "
                      f"{torch.distributed.get_world_size()} cannot be grouped so")
    for number, (name, way) in enumerate(todo.ways.items(), start=1):
        lacking = engines.lacks(way.config)
        if lacking:
            record.metric("skipped", way=name, reason=lacking)
            continue
        losses = train(name, way, args, todo.shape, batches, record, number * args.steps)
        wrong += compare(name, losses, plain)
        engines.leave()
    if wrong:
        raise LossesDiffer("; ".join(wrong))


def report(run: Run) -> str:
    """What `labkit run lab07` prints at the end."""
    reasons: dict[str, list[str]] = {}
    for record in run.ranks[min(run.ranks)]:
        if record.event == "metric" and record.values["name"] == "skipped":
            reasons.setdefault(record.values["reason"], []).append(record.values["way"])
    left_out = [f"left out: {', '.join(ways)}: {reason}" for reason, ways in reasons.items()]
    return "\n".join([table.text(table.rows(run)), *left_out])


def new_model(args: argparse.Namespace, shape: GPTConfig) -> GPT:
    torch.manual_seed(args.seed)  # every rank and every way starts from the same weights
    return GPT(shape).to(env.device())


def train_plain(args, todo, batches, record) -> list[float]:
    """The loop anyone would write, on the whole batch. Each rank runs it for itself."""
    model, chosen = new_model(args, todo.shape), todo.base["optimizer"]
    params = {key: value for key, value in chosen["params"].items() if key != "torch_adam"}
    optimizer = getattr(torch.optim, chosen["type"])(model.parameters(), **params)
    losses, seconds = [], []
    for step, (inputs, targets) in enumerate(batches):
        began = time.perf_counter()
        loss = model(inputs.to(env.device()), targets.to(env.device()))
        loss.backward()
        if step == args.steps - 1:
            held = measure.states(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
        record.step(step, loss=losses[-1])
    record.metric("plain", losses=losses, states=vars(held), seconds=statistics.median(seconds[WARM_UP:-1]))
    return losses


def train(name, way, args, shape, batches, record, first_step) -> list[float]:
    """One way: train, measure the last step, and put prediction and measurement side by side."""
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    layout, device = way.layout, env.device()
    engine = engines.engine(name, way.config, new_model(args, shape), layout)
    held = engines.watch_states(engine)
    mine = slice(*(len(batches[0][0]) * (layout.data_rank(rank) + end) // layout.dp for end in (0, 1)))
    losses, seconds = [], []
    for step, (inputs, targets) in enumerate(batches):
        inputs, targets = inputs[mine].to(device), targets[mine].to(device)
        began = time.perf_counter()
        if step < args.steps - 1:
            loss = engines.train_step(engine, layout, inputs, targets)
        else:  # counting costs time, so this step is not timed
            with measure.collectives() as traffic:
                loss = engines.train_step(engine, layout, inputs, targets)
        loss = loss.clone()
        loss_here = loss.item()
        seconds.append(time.perf_counter() - began)
        if layout.pp == 1:  # a pipeline has the mean of the whole batch already
            torch.distributed.all_reduce(loss)
            loss /= world_size
        losses.append(loss.item())
        record.step(first_step + step, loss=loss_here)
    # a send has two ends, whatever group it goes through; a collective of one rank sends nothing
    sent = {(op, 2 if op == "send" else ranks): elements for (op, ranks), elements in traffic.over.items()
            if op != "recv" and ranks > 1}
    record.metric(
        name, layout=str(layout), losses=losses, seconds=statistics.median(seconds[WARM_UP:-1]),
        states=held, predicted_states=vars(way.states),
        messages=table.listed(sent), predicted_messages=table.listed(way.sent),
        sent=predicted.ring_bytes(sent), predicted_sent=predicted.ring_bytes(way.sent))
    engine.destroy()
    return losses


def compare(way: str, losses: list[float], plain: list[float]) -> list[str]:
    """A sentence about the first step at which a way's loss is not the plain loop's."""
    for step, (loss, right) in enumerate(zip(losses, plain, strict=True)):
        apart = abs(loss - right) / right
        if not apart <= TOLERANCE:
            return [f"{way}: at step {step} the loss is {loss:.6f}, the plain loop's is {right:.6f}; "
                    f"{apart:.1e} apart where {TOLERANCE:g} is allowed"]
    return []


if __name__ == "__main__":
    main()
