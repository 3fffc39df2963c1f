"""Lab 6's translators: an encoder-decoder and a decoder-only Transformer on the same pairs, from new weights.

    python labs/lab06_three_tasks/translate.py --out short.json                 # a few steps, to see it work
    python labs/lab06_three_tasks/translate.py --out full.json --full --bf16    # as it was recorded

Three kinds of pairs:

- `apart`: interface texts, English to Chinese; whole integrations are held out (the frozen split);
- `random`: the same texts, the same number of them held out, but drawn one by one (without a model);
- `numbers`: English number words to Chinese, learnt from numbers of up to six digits.

Both models see the same pairs in the same order in batches of equal size; they differ a little in parameters,
which the file says. Beside the first two stand copying the source and a *translation memory*, which answers
with the translation of the most similar source that it knows. Rates were chosen on other texts with seed 100.
Each finished run is written at once: call it again with the same --out, and it goes on.
"""

import argparse
import random
import sys
import time
from functools import cache
from pathlib import Path

import torch
import transformers
from sacrebleu.metrics import BLEU, CHRF
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    MBartConfig,
    MBartForConditionalGeneration,
)

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import pretrain  # noqa: E402
import record_file  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402

from labkit import corpora, splits  # noqa: E402
from labkit.env import UserError  # noqa: E402

MODELS = ("encoder-decoder", "decoder-only")
WIDTH, HEADS, LAYERS, LONGEST = 128, 4, 4, 96  # layers: 2 and 2, or 4
TOKENS, RATES = 1500, (1e-3, 2e-3, 4e-3)
BEAM = {"num_beams": 4, "length_penalty": 1.4}
RUNS = [(kind, name) for kind in ("apart", "numbers") for name in MODELS]
CODE = (LAB / "translate.py", LAB / "tasks.py", Path(splits.__file__))
Pair = tuple[str, str]


@cache
def pairs(kind: str) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """(train, dev, test) of (source, target)."""
    if kind == "numbers":
        made = corpora.number_words(32_000, (1, 6), 1)
        known = {source for source, _ in made}
        longer = [pair for pair in corpora.number_words(4_000, (7, 9), 2) if pair[0] not in known]
        return made[:30_000], made[30_000:31_000], [*made[31_000:], *longer[:1_000]]
    split = splits.split("home-assistant")
    apart = [[item[:2] for item in part] for part in (split.train, split.dev, split.test)]
    if kind == "apart":
        return tuple(apart)
    whole = [pair for part in apart for pair in part]
    random.Random(0).shuffle(whole)
    test, dev = len(apart[2]), len(apart[1])
    return whole[test + dev:test + dev + len(apart[0])], whole[test:test + dev], whole[:test]


def make(name: str, vocab: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if name == "decoder-only":
        return GPT2LMHeadModel(GPT2Config(
            vocab_size=vocab, n_positions=2 * LONGEST, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=1))
    return MBartForConditionalGeneration(MBartConfig(
        vocab_size=vocab, max_position_embeddings=2 * LONGEST, d_model=WIDTH, encoder_layers=LAYERS // 2,
        decoder_layers=LAYERS // 2, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * WIDTH, decoder_ffn_dim=4 * WIDTH, dropout=0.0, attention_dropout=0.0,
        activation_dropout=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=1, decoder_start_token_id=0,
        forced_eos_token_id=None))


class Translator:
    """A model, and how it is shown pairs. `<end>` also separates source from target."""

    def __init__(self, name: str, seed: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(pretrain.SHIPPED)
        self.name, self.model = name, make(name, len(self.tokenizer), seed)

    def rows(self, chosen: list[Pair]) -> list[tasks.Row]:
        if not chosen:
            return []
        sources, targets = (self.tokenizer(list(side), truncation=True, max_length=LONGEST - 1)["input_ids"]
                            for side in zip(*chosen, strict=True))
        return [([*source, tasks.END], [*target, tasks.END])
                for source, target in zip(sources, targets, strict=True)]

    def loss(self, batch: list[tasks.Row]) -> Tensor:
        """Mean nats a token of the targets."""
        if self.name == "decoder-only":
            return self.model(**tasks.pad(batch)).loss
        sources = tasks.pad([(source, []) for source, _ in batch])
        return self.model(input_ids=sources["input_ids"], attention_mask=sources["attention_mask"],
                          labels=tasks.pad([([], target) for _, target in batch])["labels"]).loss

    def train(self, made: list[tasks.Row], steps: int, rate: float, seed: int, bf16: bool, what: str) -> None:
        optimizer = torch.optim.AdamW(self.model.train().parameters(), lr=rate, betas=(0.9, 0.98),
                                      weight_decay=0.01)
        queue: list[list[int]] = []
        for step in tqdm(range(steps), desc=what, unit="step", dynamic_ncols=True,
                         mininterval=10 if not sys.stderr.isatty() else 0.5):
            if not queue:
                seed += 1000
                queue = tasks.batches([len(a) + len(b) for a, b in made], TOKENS, seed)
            optimizer.param_groups[0]["lr"] = rate * pretrain.share_of_rate(step, steps)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = self.loss([made[i] for i in queue.pop()])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
        self.model.eval()

    @torch.no_grad()
    def dev_loss(self, made: list[tasks.Row]) -> float:
        made = sorted(made, key=lambda row: len(row[0]) + len(row[1]))
        total = count = 0.0
        for start in range(0, len(made), 32):
            batch = made[start:start + 32]
            tokens = sum(len(target) for _, target in batch)
            total, count = total + self.loss(batch).item() * tokens, count + tokens
        return total / count

    @torch.no_grad()
    def translate(self, sources: list[str], size: int = 32, **how: object) -> list[str]:
        """Greedily, unless `how` says otherwise (flags of transformers' `generate`)."""
        rows = [source for source, _ in self.rows([(source, "") for source in sources])]
        found: dict[int, str] = {}
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), size):
            some = order[start:start + size]
            longest = max(len(rows[i]) for i in some)
            left = self.name == "decoder-only"
            tokens = torch.tensor([[tasks.PAD] * (longest - len(rows[i])) * left + rows[i]
                                   + [tasks.PAD] * (longest - len(rows[i])) * (not left) for i in some])
            written = self.model.generate(input_ids=tokens, attention_mask=(tokens != tasks.PAD).long(),
                                          **{"do_sample": False, "max_new_tokens": LONGEST} | how)
            for i, row in zip(some, written[:, longest if left else 1:].tolist(), strict=True):
                found[i] = self.tokenizer.decode(row, skip_special_tokens=True).strip()
        return [found[i] for i in range(len(rows))]


def memory(train: list[Pair], sources: list[str]) -> list[str]:
    """The translation of the most similar known source, by counts of 2 to 4 characters (cosine, tf-idf)."""
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    known = counts.fit_transform([source for source, _ in train])
    found = []
    for start in range(0, len(sources), 200):
        near = counts.transform(sources[start:start + 200]) @ known.T
        found += [train[i][1] for i in near.toarray().argmax(1)]
    return found


def scores(found: list[str], wanted: list[str]) -> dict[str, float]:
    """BLEU of characters (sacrebleu's `zh`), chrF, share of exact answers, and length against the wanted."""
    bleu = BLEU(tokenize="zh").corpus_score(found, [wanted])
    exact = sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return {"BLEU": round(bleu.score, 2), "chrF": round(CHRF().corpus_score(found, [wanted]).score, 2),
            "exact": round(100 * exact, 2), "length": round(bleu.sys_len / bleu.ref_len, 3)}


class Translation:
    """Does what is missing in the file."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        self.args, self.path = args, args.out
        self.seeds, self.tested = ((0, 1, 2), 500) if args.full else ((0,), 8)
        self.steps = 1000 if args.full else 3
        self.settings = {"seeds": list(self.seeds), "steps": self.steps, "tested": self.tested,
                         "bf16": args.bf16, "tokens": TOKENS, "code": code_hash(*CODE)}
        self.result = record_file.begin(args.out, command, self.settings, choice={}, opponents={}, runs=[])

    def test(self, kind: str) -> list[Pair]:
        test = pairs(kind)[2]
        return random.Random(0).sample(test, min(self.tested, len(test)))

    def run(self) -> None:
        for kind in ("apart", "random"):
            if kind not in self.result["opponents"]:
                sources, wanted = map(list, zip(*self.test(kind), strict=True))
                found = {"memory": memory(pairs(kind)[0], sources), "copy": sources}
                self.result["opponents"][kind] = {way: scores(made, wanted) for way, made in found.items()}
                record_file.write(self.path, self.result)
        for kind, name in RUNS:
            for rate in RATES:
                if f"{kind} {name} {rate:g}" not in self.result["choice"]:
                    chosen = self.learnt(kind, name, 100, rate, max(self.steps // 4, 1))
                    loss = chosen.dev_loss(chosen.rows(pairs(kind)[1][:300]))
                    self.result["choice"][f"{kind} {name} {rate:g}"] = round(loss, 4)
                    record_file.write(self.path, self.result)
        for seed in self.seeds:
            for kind, name in RUNS:
                self.one(kind, name, seed)
        print(f"{len(self.result['runs'])} runs in {self.path}", flush=True)

    def learnt(self, kind: str, name: str, seed: int, rate: float, steps: int) -> Translator:
        made = Translator(name, seed)
        made.train(made.rows(pairs(kind)[0]), steps, rate, seed, self.args.bf16,
                   f"{kind}, {name}, seed {seed}")
        return made

    def one(self, kind: str, name: str, seed: int) -> None:
        if (kind, name, seed) in {(run["kind"], run["model"], run["seed"]) for run in self.result["runs"]}:
            return
        began = time.process_time()
        rate = min(RATES, key=lambda rate: self.result["choice"][f"{kind} {name} {rate:g}"])
        model = self.learnt(kind, name, seed, rate, self.steps)
        run = {"kind": kind, "model": name, "seed": seed, "rate": rate,
               "parameters": sum(p.numel() for p in model.model.parameters()),
               "training seconds": round(time.process_time() - began, 1)}
        if kind == "numbers":
            run["exact by digits"] = self.by_digits(model)
        else:
            sources, wanted = map(list, zip(*self.test(kind), strict=True))
            run["greedy"] = scores(model.translate(sources), wanted)
            run["beam"] = scores(model.translate(sources, **BEAM), wanted)
        self.result["runs"].append(run | {"seconds": round(time.process_time() - began, 1)})
        record_file.write(self.path, self.result)
        print(run, flush=True)

    def by_digits(self, model: Translator) -> dict[str, float]:
        """{digits: percent of numbers that are translated exactly}: up to 6 digits were seen, 7 to 9 not."""
        grouped: dict[int, list[Pair]] = {}
        values = {number_of(pair[1]): pair for pair in pairs("numbers")[2]}
        for value, pair in values.items():
            grouped.setdefault(len(str(value)), []).append(pair)
        found = {}
        for digits, some in sorted(grouped.items()):
            some = some[:self.tested // 4 or 1]
            made = model.translate([source for source, _ in some])
            found[str(digits)] = round(100 * sum(a == b for a, (_, b) in zip(made, some, strict=True))
                                       / len(some), 2)
        return found


def number_of(characters: str) -> int:
    """The number that Chinese characters spell."""
    import cn2an

    return int(cn2an.cn2an(characters, "smart"))


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("translate.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="1,000 steps a run, three seeds: an hour")
    p.add_argument("--bf16", action="store_true", help="matrix products in bf16, see pretrain.py")
    p.add_argument("--out", type=Path, required=True, help="file for the runs; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    command = " ".join(["python", "labs/lab06_three_tasks/translate.py", *flags])
    Translation(parser().parse_args(flags), command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
