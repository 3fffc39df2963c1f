"""Lab 4, Pre-train, then fine-tune: masked characters first, then labels, under ZeRO-1 or ZeRO-2.

    labkit run lab04 --ranks 2 --zero 2                     # both phases, scores before and after
    labkit run lab04 --ranks 2 --scratch --labels 0.01      # no first phase, 1 % of the labels
    labkit run lab04 --ranks auto --full                    # long: says how long; --resume RUN goes on
    labkit run lab04 --ranks auto --model bert-base-chinese --bf16

The run's folder keeps pretrained/ and classifier/, which transformers' from_pretrained reads. A step's
batch and what is hidden in it do not depend on the number of ranks.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import deepspeed
import torch
from torch import distributed

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import choices  # noqa: E402
import encoders  # noqa: E402
import long_run  # noqa: E402
import reviews  # noqa: E402
import scores  # noqa: E402

from labkit import env, measure, plan  # noqa: E402
from labkit.records import Recorder, Run  # noqa: E402


def parser() -> argparse.ArgumentParser:
    return choices.parser(__doc__)


def announce(args: argparse.Namespace, ranks: int) -> str | None:
    """What `labkit run` says before a long run. Raises UserError for a file that the lab cannot use."""
    choices.config(choices.complete(args))
    if args.model:
        encoders.find(args.model)
    if not args.full:
        return None
    model, tokenizer = start(args, reviews.unlabelled(reviews.labelled()[0]))
    return long_run.announce(args, ranks, model, tokenizer)


def start(args: argparse.Namespace, texts: list[str]):
    """(masked language model, tokenizer): new, or by name."""
    if args.model:
        return encoders.by_name(args.model)
    return encoders.new(texts, args.hidden, args.layers, args.context, args.seed)


def main() -> None:
    args = choices.complete(parser().parse_args())
    with Recorder(args.run_dir, total_steps=args.steps * (not args.scratch) + args.finetune_steps) as record:
        config = choices.config(args)
        train_set, test_set = reviews.labelled()
        texts = reviews.unlabelled(train_set)
        model, tokenizer = start(args, texts)  # a download may take long: nobody waits in a collective yet
        labelled = choices.labelled(train_set, args, config)
        env.init_distributed()
        folder = Path(args.run_dir)
        if not args.scratch:
            pretrain(args, config, model, tokenizer, texts, [text for text, _ in test_set[::3]], record)
            on_first_rank(encoders.keep, model, tokenizer, folder / "pretrained")
        model = encoders.classifier(model if args.scratch else folder / "pretrained", args.seed)
        finetune(args, config, model, tokenizer, labelled, test_set, record)
        on_first_rank(encoders.keep, model, tokenizer, folder / "classifier")
        if record.rank == 0:
            record.metric("naive Bayes", **scores.naive_bayes(labelled, test_set), labels=len(labelled))
    distributed.destroy_process_group()  # leave the group before the process ends


def new_engine(model: torch.nn.Module, config: dict, steps: int, lr: float | None):
    """DeepSpeed's engine: the learning rate rises for a tenth of the steps, then falls to 0."""
    chosen, warm = config["optimizer"], max(1, steps // 10)
    params = {**chosen.get("params", {}), **({"lr": lr} if lr else {})}

    def factor(step: int) -> float:
        return min((step + 1) / warm, max(0, steps - step) / max(1, steps - warm))

    engine, *_ = deepspeed.initialize(
        model=model.to(env.device()), model_parameters=model.parameters(),
        config={**config, "optimizer": {**chosen, "params": params}},
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor))
    return engine


def pretrain(args, config, model, tokenizer, texts, held_out, record) -> None:
    """Phase 1: predict the hidden tokens of reviews and news."""
    pieces = [text[i:i + args.context - 2] for text in texts for i in range(0, len(text), args.context - 2)]
    engine = new_engine(model, config, args.steps, args.lr)
    record.metric("masked before", loss=scores.masked_loss(model, tokenizer, held_out, args.context))

    def batches(first: int):
        chosen = itertools.islice(endless(pieces, engine.train_batch_size(), args.seed), first, args.steps)
        for step, batch in enumerate(chosen, start=first):
            tokens, mask = scores.tokenize(tokenizer, batch, args.context)
            inputs, targets = scores.hidden(tokenizer, tokens, args.seed + step)
            yield step, inputs, mask, targets

    train(engine, batches(long_run.resume(engine, args)), record, "pretraining", 0, args)
    record.metric("masked after", loss=scores.masked_loss(model, tokenizer, held_out, args.context))
    engine.destroy()


def finetune(args, config, model, tokenizer, labelled, test_set, record) -> None:
    """Phase 2: predict labels."""
    engine = new_engine(model, config, args.finetune_steps, args.finetune_lr)

    def batches():
        chosen = endless(labelled, engine.train_batch_size(), args.seed)
        for step, batch in enumerate(itertools.islice(chosen, args.finetune_steps)):
            tokens, mask = scores.tokenize(tokenizer, [text for text, _ in batch], args.context)
            yield step, tokens, mask, torch.tensor([label for _, label in batch])

    train(engine, batches(), record, "fine-tuning", 0 if args.scratch else args.steps)
    record.metric("accuracy", **scores.accuracy(model, tokenizer, test_set, args.context))
    engine.destroy()


def endless(items: list, batch_size: int, seed: int):
    """Batches for ever, in another order each epoch."""
    lengths = [len(item if isinstance(item, str) else item[0]) for item in items]
    for epoch in itertools.count():
        for batch in reviews.epoch(lengths, batch_size, 1000 * seed + epoch):
            yield [items[i] for i in batch]


def train(engine, batches, record, phase, first_step, args=None) -> None:
    """Every batch is the whole, on every rank; a rank takes its rows.

    DeepSpeed takes the mean of the ranks' gradients. Ranks have different numbers of targets, so a
    rank's loss is its sum over the mean number, not its own mean: else a lonely target counts more.
    """
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    for step, *batch in batches:
        rows = slice(*(len(batch[0]) * (rank + end) // world_size for end in (0, 1)))
        targets_each = count(batch[2]) / world_size
        tokens, loss = int(batch[1][rows].sum()), 0.0
        micro_batches = [part[rows].to(env.device()).split(engine.train_micro_batch_size_per_gpu())
                         for part in batch]
        for inputs, mask, targets in zip(*micro_batches, strict=True):
            mean = engine(input_ids=inputs, attention_mask=mask, labels=targets).loss
            part = weighted(mean, count(targets), targets_each)
            engine.backward(part * engine.gradient_accumulation_steps())  # by which DeepSpeed divides
            if step == 1 and engine.is_gradient_accumulation_boundary():
                record_states(engine, record, phase)
            engine.step()
            loss += part.item()
        record.step(first_step + step, loss=loss, tokens=tokens)
        if args and args.every and (step + 1) % args.every == 0:
            long_run.save(engine, args, step + 1)


def weighted(mean: torch.Tensor, here: int, targets_each: float) -> torch.Tensor:
    """A rank's loss for the mean over ranks; without targets its mean is nan, and its share nothing."""
    return mean * (here / targets_each) if here else 0 * mean.nan_to_num()


def count(targets: torch.Tensor) -> int:
    return int((targets != reviews.IGNORED).sum())


def record_states(engine, record: Recorder, phase: str) -> None:
    """Bytes of states on this rank, before the optimizer's step, beside the prediction."""
    held = measure.states(engine)
    dtype = "bf16" if engine.bfloat16_enabled() else "fp32"
    sizes, stage = [p.numel() for p in engine.module.parameters()], engine.zero_optimization_stage()
    expected = plan.deepspeed_held(sizes, distributed.get_world_size(), stage, dtype, rank=record.rank)
    record.metric(f"{phase} states", stage=stage, measured=vars(held), predicted=vars(expected))


def on_first_rank(function: Callable, *arguments) -> None:
    """Rank 0 calls it, the others wait until it is done."""
    if distributed.get_rank() == 0:
        function(*arguments)
    distributed.barrier()


def report(run: Run) -> str:
    """What `labkit run lab04` prints at the end."""
    return scores.text(run)


if __name__ == "__main__":
    main()
