"""Lab 4's transfer sweep: what pre-training is worth when labels are few, and when they are many.

    python labs/lab04_pretrain_finetune/transfer_sweep.py --out short.json         # 1 % of labels, one seed
    python labs/lab04_pretrain_finetune/transfer_sweep.py --full --out full.json   # 1, 10, 100 %, three seeds

One process, one thread, fp32, on the CPU. An encoder learns to fill in hidden characters of reviews
and news, without labels. Then it learns reviews' labels in four ways: `scratch` (new weights),
`full` (pre-trained, all weights trained), `lora` (pre-trained and frozen, adapters of rank 8 and a new
classifier trained), `frozen` (logistic regression on the pre-trained encoder's mean vector). Beside
them stand naive Bayes and logistic regression on counts of characters (`nb-1` … `lr-3`: n-grams up to 3).

Equal steps and equal batches for the first three ways. Each takes the better of two learning rates on
reviews cut from the training part, at 10 % of the labels; the test part is read once, at the end.
How long it will take is said before it starts. Each finished point is written at once: call it again
with the same --out, and it goes on from there. Pre-trained weights stay in runs/ beside that file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import peft
import reviews
import sklearn
import sweep_file
import torch
import transformers
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm import tqdm
from transformers import ModernBertForMaskedLM, ModernBertForSequenceClassification

from labkit import data
from labkit.env import UserError

CONTEXT = 128
MLM_BATCH, MLM_RATE = 16, 1e-3
HIDDEN_SHARE = 0.3  # of the characters, as ModernBERT (Warner et al. 2024) was trained
BATCH = 16
RATES = {"scratch": (3e-4, 1e-3), "full": (3e-4, 1e-3), "lora": (1e-3, 3e-3), "frozen": (0.01, 0.1)}
"""Learning rates tried (for `frozen`: strengths C of the logistic regression)."""
LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["attn.Wqkv", "attn.Wo"],
        "modules_to_save": ["classifier"]}


@dataclass(frozen=True)
class Plan:
    """What a sweep does. The defaults are the short version."""

    mlm_steps: int = 60
    mlm_epochs: int = 1
    texts: int | None = 2000
    shares: tuple[float, ...] = (0.01,)
    seeds: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (30,)
    choose_steps: int = 0  # 0: no choice, the larger rate is taken
    tested: int | None = 400  # test reviews


FULL = Plan(mlm_steps=0, mlm_epochs=2, texts=None, shares=(0.01, 0.1, 1.0), seeds=(0, 1, 2),
            steps=(100, 300, 980), choose_steps=300, tested=None)


class Reviews:
    """The corpus as a sweep reads it."""

    def __init__(self, plan: Plan) -> None:
        train, test = reviews.labelled()
        texts = reviews.unlabelled(train)
        self.tokenizer = reviews.make_tokenizer(texts)
        self.config = reviews.encoder(len(self.tokenizer), context=CONTEXT)
        if plan.texts:
            texts = random.Random(0).sample(texts, plan.texts)
        self.pieces = reviews.pieces(self.tokenizer, texts, CONTEXT)
        self.train = train
        self.test = random.Random(0).sample(test, plan.tested) if plan.tested else test
        chosen = sorted({i for seed in plan.seeds for i in self.chosen(seed, max(plan.shares))})
        rows = reviews.first_piece(self.tokenizer, [train[i][0] for i in chosen], CONTEXT)
        self.rows = dict(zip(chosen, rows, strict=True))
        self.test_rows = reviews.first_piece(self.tokenizer, [text for text, _ in self.test], CONTEXT)

    def chosen(self, seed: int, share: float) -> list[int]:
        """Training reviews whose labels are known: with a seed, the smaller share lies in the larger."""
        order = random.Random(seed).sample(range(len(self.train)), len(self.train))
        return order[:round(share * len(order))]

    def labels(self, items: list[int]) -> np.ndarray:
        return np.array([self.train[i][1] for i in items])


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Up in a tenth of the steps, then straight down to zero."""
    warm = max(1, steps // 10)
    return peak * min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer, rate: float, **batch: Tensor) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    return loss.item()


def hidden(tokens: Tensor, config: transformers.ModernBertConfig,
           generator: torch.Generator) -> dict[str, Tensor]:
    inputs, targets = reviews.hide(tokens, config.vocab_size, generator, HIDDEN_SHARE)
    return {"input_ids": inputs, "attention_mask": (tokens != 0).long(), "labels": targets}


def new_mlm(config: transformers.ModernBertConfig) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = ModernBertForMaskedLM(config)
    return model, torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)


def pretrain(corpus: Reviews, plan: Plan, weights: Path, tick: Callable[[], None]) -> tuple[nn.Module, list]:
    """(model, [(step, mean loss since the last)]): goes on after the last finished epoch in `weights`."""
    model, optimizer = new_mlm(corpus.config)
    done, curve = 0, []
    if weights.exists():
        held = torch.load(weights, weights_only=True)
        if held["plan"] != pretraining(plan):
            raise UserError(f"{weights} holds another pre-training: delete it, or choose another --out")
        done, curve = held["epochs"], held["curve"]
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
    lengths = [len(piece) for piece in corpus.pieces]
    an_epoch = mlm_steps(corpus, plan)
    for number in range(done, plan.mlm_epochs):
        generator, losses = torch.Generator().manual_seed(number), []
        for batch in reviews.epoch(lengths, MLM_BATCH, number)[:an_epoch]:
            tokens, _ = reviews.pad([corpus.pieces[i] for i in batch])
            step = number * an_epoch + len(losses)
            rate = learning_rate(MLM_RATE, step, plan.mlm_epochs * an_epoch)
            losses.append(one_step(model, optimizer, rate, **hidden(tokens, corpus.config, generator)))
            tick()
        for part in np.array_split(losses, max(1, an_epoch // 250)):
            before = curve[-1][0] if curve else 0
            curve.append([before + len(part), round(float(part.mean()), 4)])
        held = {"plan": pretraining(plan), "epochs": number + 1, "curve": curve,
                "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(held, weights.with_suffix(".part"))
        os.replace(weights.with_suffix(".part"), weights)
    return model, curve


def pretraining(plan: Plan) -> list:
    return [plan.mlm_steps, plan.mlm_epochs, plan.texts]


def mlm_steps(corpus: Reviews, plan: Plan) -> int:
    """Steps of an epoch."""
    return plan.mlm_steps or len(corpus.pieces) // MLM_BATCH


def classifier(corpus: Reviews, way: str, mlm: nn.Module, seed: int) -> nn.Module:
    """A classifier before its training: the seed draws every weight that is not pre-trained."""
    torch.manual_seed(seed)
    model = ModernBertForSequenceClassification(corpus.config)
    if way != "scratch":
        held = {k: v for k, v in mlm.state_dict().items() if not k.startswith("decoder.")}
        missing, unexpected = model.load_state_dict(held, strict=False)
        assert not unexpected and set(missing) == {"classifier.weight", "classifier.bias"}
    if way == "lora":
        model = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    return model


def batches(lengths: list[int], steps: int, seed: int) -> Iterator[list[int]]:
    """`steps` batches of item numbers, epoch after epoch."""
    size = min(BATCH, len(lengths))
    an_epoch = len(lengths) // size
    for step in range(steps):
        if step % an_epoch == 0:
            near = max(1, min(10, an_epoch // 2))
            order = reviews.epoch(lengths, size, 1000 * seed + step // an_epoch, near)
        yield order[step % an_epoch]


def fine_tune(corpus: Reviews, model: nn.Module, items: list[int], steps: int, rate: float, seed: int,
              tick: Callable[[], None]) -> nn.Module:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.01)
    labels = corpus.labels(items)
    lengths = [len(corpus.rows[i]) for i in items]
    for step, batch in enumerate(batches(lengths, steps, seed)):
        tokens, mask = reviews.pad([corpus.rows[items[i]] for i in batch])
        one_step(model, optimizer, learning_rate(rate, step, steps),
                 input_ids=tokens, attention_mask=mask, labels=torch.tensor(labels[batch]))
        tick()
    return model


@torch.no_grad()
def in_order(rows: list[list[int]], apply: Callable[[Tensor, Tensor], Tensor]) -> np.ndarray:
    """What `apply(tokens, mask)` gives for each row: worked out by length, returned in order."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    parts = [apply(*reviews.pad([rows[i] for i in order[start:start + 64]]))
             for start in range(0, len(rows), 64)]
    result = torch.cat(parts).numpy()
    return result[np.argsort(order)]


def predict(model: nn.Module, rows: list[list[int]]) -> np.ndarray:
    return in_order(rows, lambda tokens, mask: model(input_ids=tokens, attention_mask=mask).logits.argmax(-1))


def features(mlm: nn.Module, rows: list[list[int]]) -> np.ndarray:
    """The encoder's mean vector of each row."""
    def mean(tokens: Tensor, mask: Tensor) -> Tensor:
        last = mlm.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return (last * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    return in_order(rows, mean)


@torch.no_grad()
def mlm_loss(mlm: nn.Module, rows: list[list[int]], tuned: nn.Module | None = None) -> float:
    """Nats a hidden character of these rows; with `tuned`, by its weights, not the pre-trained ones."""
    if tuned is not None:
        whole, _ = new_mlm(mlm.config)
        whole.load_state_dict(mlm.state_dict())
        held = {k: v for k, v in tuned.state_dict().items() if "classifier" not in k}
        whole.load_state_dict(held, strict=False)
        mlm = whole
    generator, total, count = torch.Generator().manual_seed(0), 0.0, 0
    rows = sorted(rows, key=len)
    for start in range(0, len(rows), 64):
        tokens, _ = reviews.pad(rows[start:start + 64])
        batch = hidden(tokens, mlm.config, generator)
        targets = int((batch["labels"] != reviews.IGNORED).sum())
        total, count = total + mlm(**batch).loss.item() * targets, count + targets
    return total / count


def bag(name: str) -> object:
    """naive Bayes (`nb-2`) or logistic regression (`lr-2`) on counts of characters and pairs of them."""
    kind, most = name.split("-")
    model = MultinomialNB() if kind == "nb" else LogisticRegression(max_iter=1000)
    return make_pipeline(CountVectorizer(analyzer="char", ngram_range=(1, int(most))), model)


def pack(correct: np.ndarray) -> str:
    """A bit for each test review, 1 where right, as hexadecimal text."""
    return np.packbits(correct).tobytes().hex()


def unpack(bits: str, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[:count].astype(bool)


class Sweep:
    """Does what is missing in the file."""

    def __init__(self, plan: Plan, path: Path, command: str) -> None:
        self.plan, self.path = plan, path
        cards = [data.load(name).card for name in ("chinese-reviews", "peoples-daily")]
        settings = json.loads(json.dumps({"plan": asdict(plan), "context": CONTEXT,
                                          "sha256": [card.sha256 for card in cards]}))
        self.result = sweep_file.read(path, settings, ("way", "share", "seed"))
        self.result |= {"command": command, "device": f"cpu, 1 thread, {platform.machine()}", "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "peft": peft.__version__,
            "transformers": transformers.__version__, "scikit-learn": sklearn.__version__}}
        self.weights = path.parent / "runs" / f"{path.stem}.pt"
        try:
            self.weights.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make {self.weights.parent}: {error.strerror}") from None
        sweep_file.write(path, self.result)  # a folder that cannot be written is known now, not after an hour

    def missing(self) -> list[tuple[str, float, int, int]]:
        """(way, share, seed, steps) that the file lacks; bags of characters at 100 % know no luck."""
        done = {(p["way"], p["share"], p["seed"]) for p in self.result["points"]}
        bags = [f"{kind}-{most}" for most in (1, 2, 3) for kind in ("nb", "lr")]
        grid = [(way, share, seed, steps) for seed in self.plan.seeds
                for share, steps in zip(self.plan.shares, self.plan.steps, strict=True)
                for way in [*bags, *RATES]
                if way in RATES or share < 1 or seed == self.plan.seeds[0]]
        return [point for point in grid if point[:3] not in done]

    def run(self) -> None:
        corpus = Reviews(self.plan)
        self.result["tested"] = len(corpus.test)
        self.result["positive"] = pack(np.array([label for _, label in corpus.test]))
        todo = self.missing()
        self.announce(corpus, todo)
        with tqdm(total=self.steps(corpus, todo), unit="step", leave=False, dynamic_ncols=True) as self.bar:
            mlm = self.pretrained(corpus)
            self.choose(corpus, mlm)
            for way, share, seed, steps in todo:
                began = time.process_time()
                self.bar.set_postfix_str(f"{way}, {share:.0%}, seed {seed}")
                point = self.point(corpus, mlm, way, share, seed, steps)
                point["seconds"] = round(time.process_time() - began, 1)
                self.result["points"].append(point)
                sweep_file.write(self.path, self.result)
                self.bar.write(f"{way:8} {share:4.0%} of labels, seed {seed}: {point['accuracy']:.4f}  "
                               f"{point['seconds']:.0f} s", file=sys.stdout)
        print(f"{len(self.result['points'])} points in {self.path}", flush=True)

    def announce(self, corpus: Reviews, todo: list) -> None:
        """Say how long it will take, from three steps of each kind."""
        model, optimizer = new_mlm(corpus.config)
        generator = torch.Generator().manual_seed(0)
        middle = sorted(corpus.pieces, key=len)[len(corpus.pieces) // 2:][:MLM_BATCH]
        mlm = timed(lambda: one_step(model, optimizer, 0.0,
                                     **hidden(reviews.pad(middle)[0], corpus.config, generator)))
        items = list(corpus.rows)[:BATCH]
        head = classifier(corpus, "scratch", model, 0)
        tuned = timed(lambda: fine_tune(corpus, head, items, 1, 0.0, 0, lambda: None))
        first = self.mlm_steps_left(corpus)
        later = self.steps(corpus, todo) - first
        reading = sum(point[0] in RATES for point in todo) * len(corpus.test) / BATCH / 3
        seconds = first * mlm + (later + reading) * tuned
        print(f"{len(todo)} points to do, {len(self.result['points'])} done before: "
              f"{first} steps of pre-training, {later} of fine-tuning, "
              f"about {seconds:.0f} s ({seconds / 60:.1f} minutes) on this machine", flush=True)

    def steps(self, corpus: Reviews, todo: list) -> int:
        choice = 0 if "rates" in self.result else 6 * self.plan.choose_steps
        tuning = sum(steps for way, *_, steps in todo if way in RATES and way != "frozen")
        return self.mlm_steps_left(corpus) + choice + tuning

    def mlm_steps_left(self, corpus: Reviews) -> int:
        if "pretraining" in self.result:
            return 0
        held = torch.load(self.weights, weights_only=True) if self.weights.exists() else {"epochs": 0}
        return (self.plan.mlm_epochs - held["epochs"]) * mlm_steps(corpus, self.plan)

    def pretrained(self, corpus: Reviews) -> nn.Module:
        self.bar.set_postfix_str("pre-training")
        began = time.process_time()
        mlm, curve = pretrain(corpus, self.plan, self.weights, self.bar.update)
        if "pretraining" not in self.result:
            tokens = self.plan.mlm_epochs * mlm_steps(corpus, self.plan) / (len(corpus.pieces) // MLM_BATCH)
            self.result["pretraining"] = {
                "curve": curve, "tokens": round(tokens * sum(map(len, corpus.pieces))),
                "parameters": sum(p.numel() for p in mlm.parameters()),
                "mlm_loss": round(mlm_loss(mlm, corpus.test_rows[::3]), 4),
                "seconds": round(time.process_time() - began, 1)}
            sweep_file.write(self.path, self.result)
            self.bar.write("pre-trained: {mlm_loss:.3f} nats a hidden character of test reviews  "
                           "{seconds:.0f} s".format(**self.result["pretraining"]), file=sys.stdout)
        return mlm

    def choose(self, corpus: Reviews, mlm: nn.Module) -> None:
        """The better of two rates for each way, on a tenth of the training reviews kept apart."""
        if "rates" in self.result:
            return
        tried: dict[str, dict] = {}
        if self.plan.choose_steps:
            order = corpus.chosen(2**31, 1.0)
            tenth = len(order) // 10
            held_out, items = order[:tenth], order[tenth:2 * tenth]
            for way, rates in RATES.items():
                for rate in rates:
                    self.bar.set_postfix_str(f"choosing the rate of {way}")
                    guess = self.learn(corpus, mlm, way, items, self.plan.choose_steps, rate, 0)
                    right = guess([corpus.rows[i] for i in held_out])[0] == corpus.labels(held_out)
                    tried.setdefault(way, {})[str(rate)] = round(float(right.mean()), 4)
        best = {way: max(rates, key=lambda rate: tried.get(way, {}).get(str(rate), rate))
                for way, rates in RATES.items()}
        self.result |= {"tried": tried, "rates": best}
        sweep_file.write(self.path, self.result)
        self.bar.write(f"rates: {best}", file=sys.stdout)

    def learn(self, corpus: Reviews, mlm: nn.Module, way: str, items: list[int], steps: int, rate: float,
              seed: int) -> Callable[[list], tuple[np.ndarray, nn.Module | None]]:
        """Train one way; the result maps rows to (guessed labels, the model if there is one)."""
        if way == "frozen":
            head = make_pipeline(StandardScaler(), LogisticRegression(C=rate, max_iter=1000))
            head.fit(features(mlm, [corpus.rows[i] for i in items]), corpus.labels(items))
            return lambda rows: (head.predict(features(mlm, rows)), None)
        model = classifier(corpus, way, mlm, seed)
        fine_tune(corpus, model, items, steps, rate, seed, self.bar.update)
        return lambda rows: (predict(model, rows), model)

    def point(self, corpus: Reviews, mlm: nn.Module, way: str, share: float, seed: int, steps: int) -> dict:
        items = corpus.chosen(seed, share)
        point = {"way": way, "share": share, "seed": seed, "labels": len(items)}
        if way not in RATES:
            model = bag(way).fit([corpus.train[i][0] for i in items], corpus.labels(items))
            guesses = model.predict([text for text, _ in corpus.test])
        else:
            rate = self.result["rates"][way]
            guesses, tuned = self.learn(corpus, mlm, way, items, steps, rate, seed)(corpus.test_rows)
            point |= {"steps": steps if tuned else 0, "rate": rate}
            if tuned is not None:
                point["trained"] = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
                tuned = tuned.merge_and_unload() if way == "lora" else tuned
                if way != "scratch":
                    point["mlm_loss"] = round(mlm_loss(mlm, corpus.test_rows[::3], tuned), 4)
        correct = guesses == np.array([label for _, label in corpus.test])
        return point | {"accuracy": round(float(correct.mean()), 6), "correct": pack(correct)}


def timed(step: Callable) -> float:
    """The best of three, after one to warm up."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("transfer_sweep.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="1, 10 and 100 %% of the labels, three seeds")
    p.add_argument("--out", type=Path, required=True, help="file for the points; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    args = parser().parse_args(flags)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers in an old way
    command = " ".join(["python", "labs/lab04_pretrain_finetune/transfer_sweep.py", *flags])
    Sweep(FULL if args.full else Plan(), args.out, command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
