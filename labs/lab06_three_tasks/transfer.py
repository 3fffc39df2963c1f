"""Lab 6's comparison: what the backbone is worth on five tasks, against the same model with new weights.

    python labs/lab06_three_tasks/transfer.py --out short.json                 # a few steps, to see it work
    python labs/lab06_three_tasks/transfer.py --out full.json --full --bf16    # as it was recorded

Both ways see the same rows in the same order for the same number of steps, each task by itself. Each way
takes for each task the better of two learning rates by its loss on dev texts, after half of the steps; the
test texts are read once, at the end. A seed draws the order of the rows, and the new weights. The backbone
is one: what another pre-training would have brought, these seeds do not tell.

How long it will take is said after the first run. Each finished run is written at once: call it again with
the same --out, and it goes on.
"""

import argparse
import multiprocessing
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import pretrain  # noqa: E402
import record_file  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402

from labkit import splits  # noqa: E402
from labkit.env import UserError  # noqa: E402
from labkit.flags import at_least  # noqa: E402

WAYS = ("scratch", "backbone")
RATES = {"scratch": (1e-3, 3e-3), "backbone": (5e-4, 1.5e-3)}
TOKENS = 2048  # in a batch, with its padding
CODE = (LAB / "transfer.py", LAB / "tasks.py", Path(splits.__file__))


def start(way: str, seed: int) -> GPT2LMHeadModel:
    """The model before it learns a task."""
    torch.manual_seed(seed)
    if way == "scratch":
        return pretrain.make_model()
    return AutoModelForCausalLM.from_pretrained(pretrain.SHIPPED, dtype=torch.float32)


def learn(model: GPT2LMHeadModel, made: list[tasks.Row], steps: int, rate: float, seed: int,
          bf16: bool) -> None:
    """Fine-tune on the rows: AdamW, the rate up in a tenth of the steps and straight down to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    queue: list[list[int]] = []
    for step in range(steps):
        if not queue:
            seed += 1000
            queue = tasks.batches([len(prompt) + len(answer) for prompt, answer in made], TOKENS, seed)
        optimizer.param_groups[0]["lr"] = rate * pretrain.share_of_rate(step, steps)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**tasks.pad([made[i] for i in queue.pop()])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def loss_on(model: GPT2LMHeadModel, made: list[tasks.Row]) -> float:
    """Mean nats a token of the answers."""
    total = count = 0.0
    for start_ in range(0, len(made), 16):
        batch = tasks.pad(made[start_:start_ + 16])
        answers = int((batch["labels"] != tasks.IGNORED).sum())
        total, count = total + model(**batch).loss.item() * answers, count + answers
    return total / count


def point(task: str, way: str, seed: int, rate: float, steps: int, tested: int, bf16: bool) -> dict:
    """One run: its loss on dev texts and, where `tested`, its score on so many test texts."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    began = time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(pretrain.SHIPPED)
    made = tasks.rows(tokenizer, task, tasks.items(task))
    model = start(way, seed).train()
    learn(model, made, steps, rate, seed, bf16)
    model.eval()
    dev = random.Random(0).sample(tasks.items(task, "dev"), min(120, len(tasks.items(task, "dev"))))
    found = {"task": task, "way": way, "seed": seed, "rate": rate, "steps": steps,
             "dev_loss": round(loss_on(model, tasks.rows(tokenizer, task, dev)), 4)}
    if tested:
        test = tasks.items(task, "test")
        test = random.Random(0).sample(test, min(tested, len(test)))
        prompts = [prompt for prompt, _ in tasks.rows(tokenizer, task, test)]
        answers = tasks.answers(model, tokenizer, task, prompts)
        wanted = [tasks.TASKS[task].answer(item) for item in test]
        found |= {"tested": len(test), "score": round(tasks.score(task, answers, wanted), 3)}
    return found | {"seconds": round(time.process_time() - began, 1)}


class Transfer:
    """Does what is missing in the file."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        self.args, self.path = args, args.out
        self.steps, self.seeds, self.tested = (80, (0, 1, 2), 250) if args.full else (4, (0,), 8)
        self.settings = {"steps": self.steps, "seeds": list(self.seeds), "tested": self.tested,
                         "bf16": args.bf16, "tokens": TOKENS, "code": code_hash(*CODE)}
        self.result = record_file.begin(args.out, command, self.settings, choice=[], points=[])

    def run(self) -> None:
        for name in tasks.TASKS:  # read once here, so that a missing corpus is told before hours
            tasks.items(name, "test")
        self.all("choice", [(task, way, 100, rate, max(1, self.steps // 2), 0)
                            for task in tasks.TASKS for way in WAYS for rate in RATES[way]])
        self.all("points", [(task, way, seed, self.rate(task, way), self.steps, self.tested)
                            for seed in self.seeds for task in tasks.TASKS for way in WAYS])
        print(f"{len(self.result['points'])} runs in {self.path}", flush=True)

    def rate(self, task: str, way: str) -> float:
        """The rate with the lower loss on dev texts."""
        tried = [run for run in self.result["choice"] if (run["task"], run["way"]) == (task, way)]
        return min(tried, key=lambda run: run["dev_loss"])["rate"]

    def all(self, where: str, runs: list[tuple]) -> None:
        """Do the runs that the file lacks, `--jobs` at a time."""
        done = {(run["task"], run["way"], run["seed"], run["rate"]) for run in self.result[where]}
        missing = [run for run in runs if run[:4] not in done]
        with ProcessPoolExecutor(self.args.jobs, multiprocessing.get_context("spawn")) as pool, \
                tqdm(total=len(missing), unit="run", desc=where, dynamic_ncols=True) as bar:
            waiting = [pool.submit(point, *run, self.args.bf16) for run in missing]
            try:
                for finished in as_completed(waiting):
                    self.result[where].append(finished.result())
                    record_file.write(self.path, self.result)
                    run = self.result[where][-1]
                    bar.write(f"{run['task']:10} {run['way']:9} seed {run['seed']:3} rate {run['rate']:g}: "
                              f"dev {run['dev_loss']:.3f} nats, score {run.get('score', '–')}, "
                              f"{run['seconds']:.0f} s", file=sys.stdout)
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("transfer.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="80 steps a run, three seeds, 250 test texts")
    p.add_argument("--bf16", action="store_true", help="matrix products in bf16, see pretrain.py")
    p.add_argument("--jobs", type=at_least(1), default=1, help="runs at a time, a thread each (default: 1)")
    p.add_argument("--out", type=Path, required=True, help="file for the runs; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    command = " ".join(["python", "labs/lab06_three_tasks/transfer.py", *flags])
    Transfer(parser().parse_args(flags), command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
