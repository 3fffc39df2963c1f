"""Lab 6's flags, and which rows make the global batch of a step."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pretrain
import tasks
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

from labkit import configs, env
from labkit.flags import at_least

LAB = Path(__file__).resolve().parent
SHORT = {"tasks": ("classify", "translate", "numbers"), "steps": 160, "judged": 32, "every": 0}
FULL = {"tasks": tuple(tasks.TASKS), "steps": 3000, "judged": 500, "every": 100}
Item = tuple[str, int]  # (task, number of the item in its training set)


def task_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in tasks.TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no task is called {unknown[0]!r}: choose from "
                                         f"{', '.join(tasks.TASKS)}, with commas between them")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("names a task twice")
    return names


def ratio(text: str) -> dict[str, float]:
    """`classify=2,translate=1` as {name: share}."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        (name,) = task_names(name)
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 <= share < math.inf:
            raise argparse.ArgumentTypeError(f"{name} needs a share of at least 0, as in {name}=2, "
                                             f"not {number!r}")
        if name in found:
            raise argparse.ArgumentTypeError(f"names {name} twice")
        found[name] = share
    return found


def rate(text: str) -> float:
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
    p.add_argument("--run_dir", default="lab06_run", help="folder for records and models")
    p.add_argument("--config", default=LAB / "ds_config.json", help="DeepSpeed JSON")
    p.add_argument("--tasks", type=task_names, metavar="NAME,NAME",
                   help=f"some of {', '.join(tasks.TASKS)} (default: {','.join(SHORT['tasks'])})")
    p.add_argument("--mix", type=ratio, default={}, metavar="NAME=SHARE,…",
                   help="mixing ratio of the rows; a task that is not named has the share 1")
    p.add_argument("--from", dest="start", default="backbone", metavar="MODEL",
                   help="backbone (default), scratch, or a folder that save_pretrained wrote")
    p.add_argument("--steps", type=at_least(1), help=f"fine-tuning steps (default: {SHORT['steps']})")
    p.add_argument("--lr", type=rate, help="learning rate (default: the JSON's)")
    p.add_argument("--judged", type=at_least(0), metavar="N",
                   help=f"items of each task to answer at the end (default: {SHORT['judged']}; 0: none)")
    p.add_argument("--full", action="store_true", help=f"long: all five tasks, {FULL['steps']:,} steps, "
                   f"{FULL['judged']} test items of each (without --full they are dev items)")
    p.add_argument("--every", type=at_least(0), help="steps between checkpoints (default: 0, none; with "
                   f"--full {FULL['every']})")
    p.add_argument("--resume", metavar="RUN", help="go on from the last checkpoint of that run")
    p.add_argument("--record", type=Path, metavar="FILE", help="also write what was found to a JSON file")
    p.add_argument("--pretrain", type=at_least(1), nargs="?", const=100, metavar="STEPS",
                   help="first pre-train a new backbone for so many steps (100)")
    p.add_argument("--bf16", action="store_true", help="matrix products in bf16 (torch_autocast): quicker "
                   "where the processor has it (avx512_bf16), slow elsewhere")
    p.add_argument("--fault", choices=["mean"], help="on purpose wrong: each rank divides by its own number "
                   "of target tokens, and the ranks' means are averaged")
    p.add_argument("--seed", type=at_least(0), default=0, help="of the rows, their order, and new weights")
    return p


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what was not said. Raises UserError where flags contradict each other, or a file is missing."""
    for name, value in (FULL if args.full else SHORT).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    strange = [name for name in args.mix if name not in args.tasks]
    if strange:
        raise env.UserError(f"--mix names {strange[0]}, which this run does not learn: add it to --tasks")
    tasks.mixed(dict.fromkeys(args.tasks, 1), args.mix, 1, 0)  # refuses a mixture of nothing
    if args.pretrain and args.start != "backbone":
        raise env.UserError(f"--pretrain makes a new backbone, --from {args.start} names another start: "
                            "leave one out")
    if args.pretrain and args.resume:
        raise env.UserError("--resume goes on with fine-tuning: give --from RUN/backbone in place of "
                            "--pretrain, where RUN is the run that pre-trained")
    if args.start not in ("backbone", "scratch") and not (Path(args.start) / "config.json").is_file():
        raise env.UserError(f"--from {args.start}: no model there; give backbone, scratch, or a folder that "
                            "holds config.json, such as the folder model of a run")
    if args.resume and not (Path(args.resume) / "checkpoints" / "latest").is_file():
        raise env.UserError(f"--resume {args.resume}: no checkpoint there; give the folder of a run of "
                            "this lab that was started with --full or --every")
    if args.record and not args.record.resolve().parent.is_dir():
        raise env.UserError(f"--record {args.record}: there is no folder {args.record.resolve().parent}")
    return args


def config(args: argparse.Namespace) -> dict[str, Any]:
    """DeepSpeed's JSON with the flags laid over it."""
    read = configs.load(args.config)
    if read.get("zero_optimization", {}).get("stage", 0) > 2:
        raise env.UserError("this lab writes the weights that a rank holds: ZeRO stage 0, 1 or 2 in the JSON")
    if "optimizer" not in read:
        raise env.UserError("the JSON names no optimizer: see ds_config.json")
    chosen = read["optimizer"]
    params = {**chosen.get("params", {}), **({"lr": args.lr} if args.lr else {})}
    made = {**read, "optimizer": {**chosen, "params": params}}
    if args.bf16:
        made["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return made


class Mixture:
    """The items of every step's global batch: seed and step decide them, the number of ranks does not.

    For each place a task is drawn by the mixing ratio; each task then gives its next item, in an order that
    is another one in each of its epochs.
    """

    def __init__(self, sizes: dict[str, int], shares: dict[str, float], batch: int, seed: int) -> None:
        self.sizes, self.shares, self.batch, self.seed = sizes, shares, batch, seed

    def items(self, name: str) -> Iterator[Item]:
        """A task's items for ever."""
        epoch = 0
        while True:
            chance = random.Random(f"{self.seed} {name} {epoch}")
            yield from ((name, number) for number in chance.sample(range(self.sizes[name]), self.sizes[name]))
            epoch += 1

    def batches(self) -> Iterator[list[Item]]:
        """The global batches of steps 0, 1, 2 …; a run that goes on skips what was done."""
        streams, step = {name: self.items(name) for name in self.sizes}, 0
        while True:
            names = tasks.mixed(self.sizes, self.shares, self.batch, 1_000_003 * self.seed + step)
            yield [next(streams[name]) for name in names]
            step += 1


def new_model(args: argparse.Namespace) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """(model in fp32, tokenizer) to start from. Raises UserError for a folder that holds neither."""
    if args.start == "scratch" or args.pretrain:
        torch.manual_seed(args.seed)
        return pretrain.make_model(), AutoTokenizer.from_pretrained(pretrain.SHIPPED)
    return load(pretrain.SHIPPED if args.start == "backbone" else Path(args.start))


def load(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """(model in fp32, tokenizer) of a folder. Raises UserError if it holds no model of this lab's kind."""
    if not (folder / "config.json").is_file():
        raise env.UserError(f"{folder} holds no model: give a folder such as the folder model of a run")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # each damaged file has an exception of its own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise env.UserError(f"{folder} holds no model that transformers can load: {said}") from None
    if not isinstance(model, GPT2LMHeadModel) or len(tokenizer) != model.config.vocab_size \
            or tokenizer.pad_token_id != tasks.PAD or model.config.n_positions < tasks.CONTEXT:
        raise env.UserError(f"{folder} holds another kind of model: this lab needs a GPT-2 with the "
                            f"backbone's tokenizer and a context of {tasks.CONTEXT}")
    return model, tokenizer
