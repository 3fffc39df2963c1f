"""Lab 2, Data parallel from the inside: one global batch, cut in every way, must give one curve.

    labkit run lab02 --ranks 2                    # by hand and by DeepSpeed, and a table
    labkit run lab02 --ranks 4 --micro 8,2,1      # other micro-batches of the same global batch
    labkit run lab02 --ranks 1                    # accumulation alone

A small convolutional network learns scikit-learn's digits. The global batch is the configuration's
train_batch_size; what a rank does not take at once it accumulates.
"""

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

import deepspeed
import torch
from torch import distributed
from torch.nn import functional as F

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other file, wherever it is started from

from digits_task import TRAIN, batches, digits, distance, flat, new_net  # noqa: E402

from labkit import configs, env, measure  # noqa: E402
from labkit.flags import at_least  # noqa: E402
from labkit.records import Recorder, Run  # noqa: E402

TOLERANCE = 1e-4  # nats: fp32 sums in another order are 3e-6 off; ten times that, on losses of a few nats
WARM_UP = 3  # steps not timed: buffers are made


class CurvesDiffer(RuntimeError):
    """A way that does not compute what the whole batch computes."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for the records; without it nothing is written")
    p.add_argument("--config", default=LAB / "ds_config.json", help="DeepSpeed JSON")
    p.add_argument("--steps", type=at_least(1), default=40, help="steps of each way (default: %(default)s)")
    p.add_argument("--micro", type=lambda text: [at_least(1)(word) for word in text.split(",")],
                   help="micro-batches, with commas between (default: a rank's share, a half and a quarter)")
    p.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the images")
    return p


def announce(args: argparse.Namespace, ranks: int) -> None:
    """Refuse what cannot be cut; labkit asks before it starts anything."""
    cuts(configs.load(args.config), ranks, args.micro)


def batch_unit(args: argparse.Namespace, config: dict, ranks: int) -> int:
    """What the batch must be a multiple of; where it has to change, one that can be cut in every way."""
    batch = config.get("train_batch_size")
    return ranks if batch is None or batch % ranks == 0 else ranks * math.lcm(*(args.micro or [4]))


def main() -> None:
    args = parser().parse_args()
    config, ranks = configs.load(args.config), int(os.environ.get("WORLD_SIZE", 1))
    with Recorder(args.run_dir, total_steps=len(cuts(config, ranks, args.micro)) * args.steps) as record:
        env.init_distributed()
        every_way(args, config, record)
    distributed.destroy_process_group()  # leave the group before the process ends


def cuts(config: dict, world_size: int, micros: list[int] | None = None) -> list[tuple[str, int, int]]:
    """(who, micro-batch, accumulation steps), the whole batch first. Raises UserError if one cannot be."""
    zero = config.get("zero_optimization")
    if zero.get("stage") if isinstance(zero, dict) else zero:
        raise env.UserError("Lab 2 looks at whole gradients: leave zero_optimization out of the file")
    for precision in ("fp16", "bf16"):
        if (config.get(precision) or {}).get("enabled"):
            raise env.UserError(f"Lab 2's loops by hand compute in fp32: leave {precision} out of the file")
    if config.get("scheduler"):
        raise env.UserError("Lab 2's loops by hand keep one learning rate: leave scheduler out of the file")
    kind = (config.get("optimizer") or {}).get("type")
    if kind != "SGD":
        raise env.UserError(f"Lab 2's loops by hand use SGD: give an optimizer of type SGD, not {kind}")
    batch = configs.global_batch(config, world_size)
    if batch > TRAIN:
        raise env.UserError(f"train_batch_size is {batch}: there are {TRAIN} images to train on, give fewer")
    share = batch // world_size
    micros = micros or [share // parts for parts in (1, 2, 4) if share % parts == 0]
    wrong = [micro for micro in micros if share % micro]
    if wrong:
        raise env.UserError(f"--micro {wrong[0]} does not divide {share}, a rank's share of {batch}")
    return [("whole batch", batch, 1),
            *((who, micro, share // micro) for who in ("by hand", "DeepSpeed") for micro in micros)]


def every_way(args: argparse.Namespace, config: dict, record: Recorder) -> None:
    ways, wrong, reference = cuts(config, distributed.get_world_size(), args.micro), [], None
    for number, (who, micro, accumulation) in enumerate(ways):
        found = train(who, micro, accumulation, args, config, record, number * args.steps)
        reference = reference or found
        apart = {"loss": max(abs(a - b) for a, b in zip(found["losses"], reference["losses"], strict=True)),
                 "weights": distance(found["weights"], reference["weights"], reference["start"]),
                 "gradient": distance(found["gradient"], reference["gradient"])}
        kept = {key: found[key] for key in ("losses", "predictions", "correct", "sent", "seconds")}
        record.metric(f"{who} {micro}×{accumulation}", way=who, micro=micro, accumulation=accumulation,
                      apart=apart, **kept)
        if not apart["loss"] <= TOLERANCE:
            wrong.append(f"{who} {micro}×{accumulation} is {apart['loss']:.1e} nats off the whole batch")
    if wrong:
        raise CurvesDiffer("; ".join(wrong))


def train(who, micro, accumulation, args, config, record, first_step) -> dict:
    """Train one way; what came out of it."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    images, labels = digits()
    net = new_net(args.seed)
    start, losses, seconds, gradients = flat(net.parameters()), [], [], []
    optimizer, step = {"whole batch": whole_batch, "by hand": by_hand, "DeepSpeed": by_deepspeed}[who](
        net, config, micro, accumulation)
    hook = optimizer.register_step_pre_hook(
        lambda *_: gradients.append(flat(p.grad for p in net.parameters())))
    for i, chosen in enumerate(batches(configs.global_batch(config, world_size), args.steps, args.seed)):
        mine = chosen if who == "whole batch" else chosen.chunk(world_size)[rank]
        began = time.perf_counter()
        if i < args.steps - 1:
            loss = step(images[mine], labels[mine])
        else:  # counting costs time, so the last step is not timed
            with measure.collectives() as traffic:
                loss = step(images[mine], labels[mine])
        mean_here = loss.item()  # on a GPU: waits for the end
        seconds.append(time.perf_counter() - began)
        record.step(first_step + i, loss=mean_here)
        hook.remove()  # the first gradient is enough
        distributed.all_reduce(loss)
        losses.append(loss.item() / world_size)
    with torch.no_grad():
        predictions = net(images[TRAIN:]).argmax(1)
    return {"losses": losses, "gradient": gradients[0], "start": start, "weights": flat(net.parameters()),
            "predictions": predictions.tolist(), "correct": int((predictions == labels[TRAIN:]).sum()),
            "sent": sum(n for (_, ranks), n in traffic.over.items() if ranks > 1),  # alone, nothing is sent
            "seconds": statistics.median(seconds[WARM_UP:-1] or seconds)}


def whole_batch(net, config, micro, accumulation):
    """The loop anyone would write. Each rank computes the whole batch for itself."""
    optimizer = torch.optim.SGD(net.parameters(), **config["optimizer"]["params"])

    def step(images, labels):
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()
    return optimizer, step


def by_hand(net, config, micro, accumulation):
    """Add up over this rank's micro-batches, then average over the ranks."""
    optimizer = torch.optim.SGD(net.parameters(), **config["optimizer"]["params"])

    def step(images, labels):
        total = 0.0
        optimizer.zero_grad()
        for x, y in zip(images.split(micro), labels.split(micro), strict=True):
            loss = F.cross_entropy(net(x), y) / accumulation
            loss.backward()  # adds to p.grad
            total += loss.detach()
        for p in net.parameters():
            distributed.all_reduce(p.grad)
            p.grad /= distributed.get_world_size()
        optimizer.step()
        return total
    return optimizer, step


def by_deepspeed(net, config, micro, accumulation):
    """The engine counts the micro-batches, divides by their number, and averages after the last."""
    cut = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": accumulation}
    engine, *_ = deepspeed.initialize(model=net, model_parameters=net.parameters(), config=config | cut)

    def step(images, labels):
        total = 0.0
        for x, y in zip(images.split(micro), labels.split(micro), strict=True):
            loss = F.cross_entropy(engine(x), y)
            engine.backward(loss)
            engine.step()
            total += loss.detach() / accumulation
        return total
    return engine.optimizer, step


def report(run: Run) -> str:
    """What `labkit run lab02` prints at the end."""
    lines = [f"{'way':12}{'micro × acc. × ranks':>21}{'loss':>9}{'apart':>9}{'right':>10}"
             f"{'numbers sent':>14}{'ms a step':>11}"]
    for found in (r.values for r in run.ranks[min(run.ranks)] if r.event == "metric"):
        ranks = 1 if found["way"] == "whole batch" else run.info.ranks
        cut = f"{found['micro']} × {found['accumulation']} × {ranks}"
        right = f"{found['correct']}/{len(found['predictions'])}"
        lines.append(f"{found['way']:12}{cut:>21}{found['losses'][-1]:9.5f}{found['apart']['loss']:9.0e}{right:>10}"
                     f"{found['sent']:14,}{1e3 * found['seconds']:11.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
