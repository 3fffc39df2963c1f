"""Lab 6, Three tasks, one engine: one small GPT learns several tasks at once, under ZeRO-2.

    labkit run lab06 --ranks 2                              # classify, translate, numbers; answers at the end
    labkit run lab06 --ranks 2 --mix classify=2,translate=1,numbers=1      # other shares of the rows
    labkit run lab06 --ranks 2 --from scratch               # new weights in place of the backbone's
    labkit run lab06 --ranks 2 --pretrain 100               # first a backbone of your own, before your eyes
    labkit run lab06 --ranks 2 --full                       # five tasks: says how long; --resume RUN goes on

The run's folder keeps model/, in 16 bits, which transformers' from_pretrained and ask.py of this folder
read. The rows of a step and the loss do not depend on the number of ranks.
"""

import argparse
import itertools
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import deepspeed
import torch
import transformers
from torch import Tensor, distributed, nn
from torch.nn import functional as F

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import judging  # noqa: E402
import mixing  # noqa: E402
import pretrain  # noqa: E402
import resuming  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402

from labkit import env, measure, plan, splits  # noqa: E402
from labkit.records import Recorder, Run  # noqa: E402

CODE = (LAB / "train.py", LAB / "mixing.py", LAB / "judging.py", LAB / "tasks.py", Path(splits.__file__))


def parser() -> argparse.ArgumentParser:
    return mixing.parser(__doc__)


def announce(args: argparse.Namespace, ranks: int) -> str | None:
    """What `labkit run` says before a long run. Raises UserError for a file that the lab cannot use."""
    mixing.config(mixing.complete(args))
    if args.start not in ("backbone", "scratch"):
        mixing.load(Path(args.start))
    return resuming.announce(args, ranks) if args.full or args.pretrain else None


def main() -> None:
    args = mixing.complete(parser().parse_args())
    with Recorder(args.run_dir, total_steps=args.steps + (args.pretrain or 0)) as record:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        config = mixing.config(args)
        env.init_distributed()
        torch.set_num_threads(1)  # small matrices: a second thread costs more than it brings, a rank does not
        model, tokenizer = mixing.new_model(args)
        if args.pretrain:
            model = pretrain_first(args, config, model, tokenizer, record)
        curve = finetune(args, config, model, tokenizer, record)
        keep(model, tokenizer, Path(args.run_dir) / "model")
        verdicts = judge(args, record) if args.judged else {}
        if args.record and distributed.get_rank() == 0:
            write(args, config, curve, verdicts)
    distributed.destroy_process_group()  # leave the group before the process ends


class SummedLoss(nn.Module):
    """(rows,) nats of each row, summed over its targets; no logits where nothing is asked.

    targets: (rows, time), what each place should say next, or IGNORED.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, targets: Tensor) -> Tensor:
        seen = self.model.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        asked = targets != tasks.IGNORED
        logits = self.model.lm_head(seen[asked]).float()
        each = F.cross_entropy(logits, targets[asked], reduction="none")
        return each.new_zeros(len(targets)).index_add(0, asked.nonzero()[:, 0], each)


def new_engine(model: nn.Module, config: dict, steps: int):
    """DeepSpeed's engine: the learning rate rises for a tenth of the steps, then falls to 0."""
    engine, *_ = deepspeed.initialize(
        model=SummedLoss(model).to(env.device()), model_parameters=model.parameters(), config=config,
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: pretrain.share_of_rate(min(step, steps), steps)))
    return engine


def finetune(args, config, model, tokenizer, record) -> list:
    """All tasks at once; the curve: [steps done, {task: nats a target token since the entry before}]."""
    known = {name: tasks.items(name) for name in args.tasks}
    engine = new_engine(model.train(), config, args.steps)
    done, curve = resuming.resume(engine, args)
    mixture = mixing.Mixture({name: len(items) for name, items in known.items()}, args.mix,
                             engine.train_batch_size(), args.seed)
    rows = (rows_of(tokenizer, batch, known)
            for batch in itertools.islice(mixture.batches(), done, args.steps))
    recent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    steps = train(engine, map(shares_of, rows), record, args, args.pretrain or 0, done)
    for step, by_task in enumerate(steps, start=done):
        for name, (nats, targets) in by_task.items():
            recent[name][0], recent[name][1] = recent[name][0] + nats, recent[name][1] + targets
        if (step + 1) % (args.every or 50) == 0 or step + 1 == args.steps:
            curve.append([step + 1, means(recent)])
            recent.clear()
        if args.every and (step + 1) % args.every == 0:
            resuming.save(engine, args, step + 1, curve)
    engine.destroy()
    return curve


def rows_of(tokenizer, batch: list[mixing.Item], known: dict[str, list[tuple]]) -> list[tuple]:
    """(task, prompt, answer) of each item of a global batch, the shortest first."""
    made = []
    for name in known:
        numbers = [number for task, number in batch if task == name]
        made += [(name, *row) for row in tasks.rows(tokenizer, name, [known[name][i] for i in numbers])]
    return sorted(made, key=lambda row: (len(row[1]) + len(row[2]), row))


def shares_of(rows: list[tuple]) -> tuple[list[str], dict[str, Tensor], int]:
    """(tasks, tensors, targets of all ranks): this rank's rows of a global batch, dealt like cards."""
    mine = rows[distributed.get_rank()::distributed.get_world_size()]
    batch = tasks.pad([row[1:] for row in mine])
    targets = F.pad(batch.pop("labels")[:, 1:], (0, 1), value=tasks.IGNORED)  # what comes next
    return [name for name, *_ in mine], {**batch, "targets": targets}, sum(len(row[2]) for row in rows)


def train(engine, shares: Iterable, record: Recorder, args, first: int, done: int = 0) -> Iterator[dict]:
    """One optimizer step for each global batch; yields this rank's {task: (nats, targets)}.

    The loss is the sum over all ranks' targets, divided by their number. DeepSpeed takes the mean of the
    ranks' gradients and of the accumulation's, so a rank's sum is multiplied by both numbers.
    """
    world_size, micro = distributed.get_world_size(), engine.train_micro_batch_size_per_gpu()
    for step, (names, share, all_targets) in enumerate(shares, start=done):
        mine = int((share["targets"] != tasks.IGNORED).sum())
        divisor = max(mine, 1) if args.fault == "mean" else all_targets / world_size
        each = []
        for part in zip(*(tensor.to(env.device()).split(micro) for tensor in share.values()), strict=True):
            nats = engine(**dict(zip(share, part, strict=True)))
            engine.backward(nats.sum() / divisor * engine.gradient_accumulation_steps())
            if step == done + 1 and engine.is_gradient_accumulation_boundary():
                record_states(engine, record)
            engine.step()
            each += nats.tolist()
        counts = (share["targets"] != tasks.IGNORED).sum(1).tolist()
        by_task = {name: (sum(n for n, task in zip(each, names, strict=True) if task == name),
                          sum(n for n, task in zip(counts, names, strict=True) if task == name))
                   for name in dict.fromkeys(names)}
        record.step(first + step, loss=sum(each) / divisor, nats=sum(each), targets=mine,
                    tokens=int((share["input_ids"] != tasks.PAD).sum()), tasks=by_task)
        yield by_task


def means(recent: dict[str, list[float]]) -> dict[str, float]:
    """{task: nats a target token}, over all ranks."""
    all_ranks: list = [None] * distributed.get_world_size()
    distributed.all_gather_object(all_ranks, {name: tuple(sums) for name, sums in recent.items()})
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for sums in all_ranks:
        for name, (nats, targets) in sums.items():
            totals[name][0], totals[name][1] = totals[name][0] + nats, totals[name][1] + targets
    return {name: round(nats / targets, 4) for name, (nats, targets) in sorted(totals.items())}


def record_states(engine, record: Recorder) -> None:
    """Bytes of states on this rank, before the optimizer's step, beside the prediction."""
    sizes, stage = [p.numel() for p in engine.module.parameters()], engine.zero_optimization_stage()
    expected = plan.deepspeed_held(sizes, distributed.get_world_size(), stage, "fp32", rank=record.rank)
    record.metric("states", stage=stage, parameters=sum(sizes), measured=vars(measure.states(engine)),
                  predicted=vars(expected))


def pretrain_first(args, config, model, tokenizer, record) -> nn.Module:
    """A backbone of one's own: the text and the two kinds of rows of pretrain.py, and this lab's engine.

    It is read back from its folder: the weights that an engine has used keep its hooks.
    """
    texts = list(splits.pretraining_texts())
    tokens, judged = pretrain.flatten(tokenizer, texts), pretrain.held_out(20)

    def bits() -> dict[str, float]:
        return {title: pretrain.bits_a_character(model.eval(), tokenizer, some)
                for title, some in judged.items()}

    def batches() -> Iterator[tuple]:
        rows = engine.train_batch_size()
        filled = rows * pretrain.FILLED // pretrain.BATCH
        mine = slice(distributed.get_rank(), None, distributed.get_world_size())
        for step in range(args.pretrain):
            inputs, targets, mask = pretrain.batch(tokens, step, rows, filled)
            share = {"input_ids": inputs[mine], "attention_mask": mask[mine], "targets": targets[mine]}
            yield ["pre-training"] * len(inputs[mine]), share, int((targets != tasks.IGNORED).sum())

    before = bits()
    engine = new_engine(model.train(), config, args.pretrain)
    for _ in train(engine, batches(), record, args, 0):
        pass
    engine.destroy()
    record.metric("pre-training", before=before, after=bits(), tokens=len(tokens))
    keep(model, tokenizer, Path(args.run_dir) / "backbone")
    return mixing.load(Path(args.run_dir) / "backbone")[0]


def keep(model, tokenizer, folder: Path) -> None:
    """Rank 0 writes a folder that transformers loads, in 16 bits; the others wait."""
    if distributed.get_rank() == 0:
        copy = type(model)(model.config)
        copy.load_state_dict(model.state_dict())
        copy.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    distributed.barrier()


def judge(args, record: Recorder) -> dict[str, dict]:
    """Each rank loads what was kept and answers its share; test items with --full, else dev items."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    model, tokenizer = mixing.load(Path(args.run_dir) / "model")
    verdicts = {}
    for number, name in enumerate(args.tasks):
        items = judging.chosen(name, "test" if args.full else "dev", args.judged)
        mine = judging.answers(model.eval(), tokenizer, name, items[rank::world_size])
        opponents = judging.baselines(name, items) if number % world_size == rank else None
        all_ranks: list = [None] * world_size
        distributed.all_gather_object(all_ranks, (mine, opponents))
        found = [all_ranks[i % world_size][0][i // world_size] for i in range(len(items))]
        opponents = next(theirs for _, theirs in all_ranks if theirs)
        verdicts[name] = judging.verdict(name, items, found, opponents)
        record.metric(f"verdict {name}", **verdicts[name])
    return verdicts


def write(args, config: dict, curve: list, verdicts: dict) -> None:
    """The record of a run that is too long for a notebook."""
    ranks = distributed.get_world_size()
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--local_rank")]
    dropped = {i for i, flag in enumerate(flags) if flag in ("--run_dir", "--config", "--record", "--resume")}
    flags = [flag for i, flag in enumerate(flags) if i not in dropped and i - 1 not in dropped]
    found = {"command": " ".join(["labkit run lab06 --ranks", str(ranks), *flags]), "seed": args.seed,
             "code": code_hash(*CODE), "part": "test" if args.full else "dev", "config": config,
             "device": f"{env.device()}, {torch.get_num_threads()} thread a rank, {platform.machine()}",
             "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                          "deepspeed": deepspeed.__version__, "transformers": transformers.__version__},
             "settings": {name: getattr(args, name) for name in ("tasks", "mix", "steps", "start", "judged")},
             "curve": curve, "verdicts": verdicts}
    args.record.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def report(run: Run) -> str:
    """What `labkit run lab06` prints at the end."""
    metrics = {r.values["name"]: r.values for r in run.ranks[min(run.ranks)] if r.event == "metric"}
    lines = [f"loss {run.losses[0]:.4f} → {run.losses[-1]:.4f} nats a target in {len(run.losses)} steps"]
    if "pre-training" in metrics:
        before, after = metrics["pre-training"]["before"], metrics["pre-training"]["after"]
        lines += [f"bits a character, {title}: {before[title]:.2f} → {after[title]:.2f}" for title in before]
    if "states" in metrics:
        held = metrics["states"]
        lines.append("bytes of states on rank 0: " + ", ".join(
            f"{part} {held['measured'][part]:,} (predicted {held['predicted'][part]:,})"
            for part in held["measured"]))
    verdicts = {name.removeprefix("verdict "): values for name, values in metrics.items()
                if name.startswith("verdict ")}
    if verdicts:
        lines += [judging.table(verdicts), judging.samples(verdicts)]
    return "\n".join([*lines, f"{run.tokens_per_second:,.0f} tokens/s; model: {run.folder / 'model'}"])


if __name__ == "__main__":
    main()
