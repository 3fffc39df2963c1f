"""Lab 5, A run you can trust: killed at any moment, it goes on as if nothing had happened.

    labkit run lab05 --ranks 2 --out runs/whole                                  # never interrupted
    labkit run lab05 --ranks 2 --out runs/killed --kill-at 13                    # ends with an error: SIGKILL
    labkit run lab05 --ranks 2 --out runs/resumed --resume runs/killed --like runs/whole

bf16 with fp32 master weights, ZeRO, accumulation, clipping, a schedule and dropout. The third command
compares each step with the first's: samples, loss, gradient norm, learning rate and weights, to the bit.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import deepspeed
import torch
from torch import distributed
from torch.nn import functional as F

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import accident  # noqa: E402
import checkpoint  # noqa: E402
import curves  # noqa: E402
from sample_order import SampleOrder  # noqa: E402

from labkit import configs, data, env  # noqa: E402
from labkit.flags import at_least  # noqa: E402
from labkit.models import GPT, GPTConfig  # noqa: E402
from labkit.records import Recorder, Run, read_run  # noqa: E402


def step_or_random(text: str) -> str:
    return text if text == "random" else str(at_least(1)(text))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run_dir", help="folder for records and checkpoints; without it nothing is written")
    p.add_argument("--config", default=LAB / "ds_config.json", help="DeepSpeed JSON")
    p.add_argument("--steps", type=at_least(2), default=24, help="of the whole run (default: %(default)s)")
    p.add_argument("--every", type=at_least(1), default=5, help="steps between checkpoints (default: 5)")
    p.add_argument("--keep", type=at_least(1), default=2, help="checkpoints to keep (default: 2)")
    p.add_argument("--context", type=at_least(1), default=32, help="bytes of context")
    p.add_argument("--layers", type=at_least(1), default=2)
    p.add_argument("--hidden", type=at_least(4), default=64, help="hidden size, a multiple of 4")
    p.add_argument("--seed", type=int, default=0, help="of weights, samples, dropout, and --kill-at random")
    p.add_argument("--resume", metavar="RUN_DIR", help="go on from that run's newest whole checkpoint")
    p.add_argument("--if-none", choices=["fail", "start"], default="fail",
                   help="where --resume finds no whole checkpoint: fail (default), or start from step 0")
    p.add_argument("--like", metavar="RUN_DIR", help="compare each step with that run's, for the report")
    p.add_argument("--kill-at", type=step_or_random, metavar="STEP",
                   help="kill a rank when STEP steps are done, or at random")
    p.add_argument("--kill-rank", type=at_least(0), help="which rank (default: the last)")
    p.add_argument("--kill-saving", action="store_true", help="kill it while it writes the next checkpoint")
    return p


def announce(args: argparse.Namespace, ranks: int) -> None:
    """Refuse a file that the lab cannot use; labkit asks before it starts anything."""
    if not configs.load(args.config).get("optimizer"):
        raise env.UserError("the lab resumes an optimizer, and the JSON names none: see ds_config.json")


def main() -> None:
    args = parser().parse_args()
    with Recorder(args.run_dir, total_steps=args.steps) as record:
        env.init_distributed()
        train(args, configs.load(args.config), record)
    distributed.destroy_process_group()  # leave the group before the process ends


def train(args: argparse.Namespace, config: dict, record: Recorder) -> None:
    rank, world_size, device = distributed.get_rank(), distributed.get_world_size(), env.device()
    if args.hidden < 256:
        torch.set_num_threads(1)  # small matrices: a second thread costs more than it brings
    tokens = data.encode(data.load("python-reference").text)
    batch = configs.global_batch(config, world_size)
    length = (len(tokens) - 1) // args.context // batch * batch  # whole batches: accumulation needs them
    order, places = SampleOrder(length, batch, seed=args.seed), torch.arange(args.context + 1)
    schedule = config.get("scheduler", {}).get("params", {})
    if "total_num_steps" in schedule:  # not every schedule has an end
        schedule["total_num_steps"] = args.steps
    torch.manual_seed(args.seed)  # the same weights on every rank
    model = GPT(GPTConfig(context=args.context, num_layers=args.layers, hidden_size=args.hidden, dropout=0.1))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    torch.manual_seed(1000 * args.seed + rank + 1)  # other dropout on every rank

    settings = {name: getattr(args, name) for name in ("steps", "context", "layers", "hidden", "seed")}
    settings |= {"batch": batch, "corpus": data.card("python-reference").sha256}
    settings |= {f"the JSON's {key}": value for key, value in config.items()}
    planned = accident.choose(args.kill_at, args.kill_rank, args.kill_saving, args.steps, args.every,
                              args.seed)
    folder = Path(args.run_dir or ".") / "checkpoints"
    start = resume(args, engine, settings, record) if args.resume else 0

    for step in range(start, args.steps):
        samples, lr, loss = order.indices(step, rank, world_size), engine.get_lr()[0], 0.0
        window = tokens[torch.tensor(samples)[:, None] * args.context + places].to(device)
        micro_batches = window.split(engine.train_micro_batch_size_per_gpu())
        for part in micro_batches:  # the engine updates after the last of them
            logits = engine(part[:, :-1]).float()  # bf16 has 8 bits: the loss is summed in fp32
            part_loss = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            engine.backward(part_loss)
            engine.step()
            loss += part_loss.item() / len(micro_batches)
        record.step(step, loss=loss, lr=lr, norm=float(engine.get_global_grad_norm()), samples=samples,
                    weights=fingerprint(model), tokens=window[:, 1:].numel())
        if planned:
            planned.after(step + 1)
        if args.run_dir and (step + 1) % args.every == 0:
            if planned:
                planned.plant(engine, step + 1)
            checkpoint.save(engine, folder, step + 1, settings, args.keep)


def resume(args: argparse.Namespace, engine, settings: dict, record: Recorder) -> int:
    """Load the newest whole checkpoint; how many steps were done."""
    path, done, skipped = checkpoint.choose(Path(args.resume).resolve() / "checkpoints", settings)
    record.metric("resumed", checkpoint=path and path.name, done=done, skipped=skipped)
    if path:
        checkpoint.load(engine, path)
    elif args.if_none == "fail":
        reasons = "".join(f"; {name}: {reason}" for name, reason in skipped)
        raise env.UserError(f"no whole checkpoint in {args.resume}{reasons}. Give another --resume, or "
                            "--if-none start to begin from step 0")
    return done


def fingerprint(model: torch.nn.Module) -> str:
    """A hash of all weights, to the bit."""
    found = hashlib.sha256()
    for weight in model.parameters():
        found.update(weight.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def report(run: Run) -> str:
    """What `labkit run lab05` prints at the end."""
    lines = [f"loss {run.losses[0]:.4f} → {run.losses[-1]:.4f} in {len(run.losses)} steps"]
    if any(r.event == "metric" for r in run.ranks[min(run.ranks)]):
        found = run.metric("resumed")
        lines += [f"passed over {name}: {reason}" for name, reason in found["skipped"]]
        lines.append(f"resumed from {found['checkpoint']}" if found["checkpoint"]
                     else "no whole checkpoint: started from step 0")
    flags = run.info.command
    lines += [curves.compare(run, read_run(flags[flags.index(name) + 1]))
              for name in ("--resume", "--like") if name in flags]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
