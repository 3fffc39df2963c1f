"""Lab 6's classifier: the backbone as an encoder, fine-tuned on all labelled reviews.

    python labs/lab06_three_tasks/classify.py --out short.json                 # a few steps, to see it work
    python labs/lab06_three_tasks/classify.py --out full.json --full --bf16    # as it was recorded

Three things change against a model that continues text: every token sees every other (a mask of zeros), the
mean of the last layer's vectors stands for the text, and a new linear layer turns it into six scores. All
weights are trained, for one epoch, at a rate chosen by the accuracy on dev texts after a quarter of one. The
scores of all dev and test texts are written down, so that Chapter 6 can ask how far they are to be trusted.

Each finished run is written at once: call it again with the same --out, and it goes on.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import pretrain  # noqa: E402
import record_file  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402

from labkit import splits  # noqa: E402
from labkit.env import UserError  # noqa: E402

LONGEST, TOKENS = 160, 2048  # of a text; in a batch, with its padding
RATES = (5e-4, 1e-3)
CODE = (LAB / "classify.py", LAB / "tasks.py", Path(splits.__file__))
CLASSES = tuple((domain, opinion) for domain in tasks.DOMAINS for opinion in tasks.OPINIONS)


class Classifier(nn.Module):
    """(batch, time) tokens, padded on the right -> (batch, classes) scores."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.n_embd, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        real = tokens != tasks.PAD
        blocked = torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)
        mask = blocked[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)  # who may be looked at
        vectors = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        mean = (vectors * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return self.head(mean)


def labelled(tokenizer: PreTrainedTokenizerBase, part: str) -> tuple[list[list[int]], Tensor]:
    """(tokens of each text, (texts,) numbers of their classes) of a part of the frozen split."""
    items = tasks.items("classify", part)
    rows = tokenizer([text for text, _, _ in items], truncation=True, max_length=LONGEST)["input_ids"]
    return rows, torch.tensor([CLASSES.index((domain, opinion)) for _, domain, opinion in items])


def padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [tasks.PAD] * (longest - len(row)) for row in rows])


def fine_tune(model: Classifier, rows: list[list[int]], labels: Tensor, rate: float, seed: int, bf16: bool,
              share: float = 1.0, most: int | None = None) -> Iterator[float]:
    """Train for a share of an epoch (or `most` steps); gives the loss of each step."""
    batches = tasks.batches(list(map(len, rows)), TOKENS, seed)
    batches = batches[:most or round(share * len(batches))]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * pretrain.share_of_rate(step, len(batches))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            scores = model(padded([rows[i] for i in batch]))
        loss = nn.functional.cross_entropy(scores.float(), labels[batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def scores_of(model: Classifier, rows: list[list[int]]) -> Tensor:
    """(texts, classes)"""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [model(padded([rows[i] for i in order[start:start + 64]])) for start in range(0, len(order), 64)]
    return torch.cat(parts)[torch.tensor(order).argsort()]


def new(seed: int) -> Classifier:
    """The classifier before its training: the backbone, and a head that the seed draws."""
    torch.manual_seed(seed)
    encoder = AutoModel.from_pretrained(pretrain.SHIPPED, dtype=torch.float32)
    return Classifier(encoder, len(CLASSES))


class Classification:
    """Does what is missing in the file."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        self.args, self.path = args, args.out
        self.seeds, self.most = ((0, 1, 2), None) if args.full else ((0,), 3)
        self.settings = {"seeds": list(self.seeds), "steps": self.most, "bf16": args.bf16,
                         "code": code_hash(*CODE), "classes": [" ".join(name) for name in CLASSES]}
        self.result = record_file.begin(args.out, command, self.settings, choice={}, runs=[])

    def run(self) -> None:
        tokenizer = AutoTokenizer.from_pretrained(pretrain.SHIPPED)
        (rows, labels), dev, test = (labelled(tokenizer, part) for part in ("train", "dev", "test"))
        for rate in RATES:
            if f"{rate:g}" not in self.result["choice"]:
                model = self.train(new(100), rows, labels, rate, 100, 0.25, f"rate {rate:g}")
                right = (scores_of(model, dev[0]).argmax(1) == dev[1]).float().mean()
                self.result["choice"][f"{rate:g}"] = round(float(right), 4)
                record_file.write(self.path, self.result)
        for seed in self.seeds:
            if seed not in [run["seed"] for run in self.result["runs"]]:
                self.one(seed, rows, labels, dev, test)
        print(f"{len(self.result['runs'])} runs in {self.path}", flush=True)

    def one(self, seed: int, rows: list, labels: Tensor, dev: tuple, test: tuple) -> None:
        began = time.process_time()
        rate = max(RATES, key=lambda rate: self.result["choice"][f"{rate:g}"])
        model = self.train(new(seed), rows, labels, rate, seed, 1.0, f"seed {seed}")
        found = {"seed": seed, "rate": rate}
        for part, (texts, truth) in (("dev", dev), ("test", test)):
            scores = scores_of(model, texts)
            found[part] = (100 * scores).round().int().tolist()  # hundredths
            found[f"{part} accuracy"] = round(float((scores.argmax(1) == truth).float().mean()), 4)
        self.result["runs"].append(found | {"seconds": round(time.process_time() - began, 1)})
        record_file.write(self.path, self.result)
        print(f"seed {seed}: {found['test accuracy']:.1%} of the test texts right", flush=True)

    def train(self, model: Classifier, rows: list, labels: Tensor, rate: float, seed: int, share: float,
              what: str) -> Classifier:
        bar = tqdm(fine_tune(model.train(), rows, labels, rate, seed, self.args.bf16, share, self.most),
                   desc=what, unit="step", dynamic_ncols=True,
                   mininterval=10 if not sys.stderr.isatty() else 0.5)
        for loss in bar:
            bar.set_postfix_str(f"loss {loss:.2f}", refresh=False)
        return model.eval()


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("classify.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="an epoch, three seeds: some ten minutes")
    p.add_argument("--bf16", action="store_true", help="matrix products in bf16, see pretrain.py")
    p.add_argument("--out", type=Path, required=True, help="file for the runs; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    command = " ".join(["python", "labs/lab06_three_tasks/classify.py", *flags])
    Classification(parser().parse_args(flags), command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
