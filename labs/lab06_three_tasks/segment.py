"""Lab 6's tagger: words (and, if you like, parts of speech) in Chinese text, one tag for each character.

    python labs/lab06_three_tasks/segment.py --out short.json                  # a few steps, to see it work
    python labs/lab06_three_tasks/segment.py --out full.json --full            # as it was recorded
    python labs/lab06_three_tasks/segment.py --out parts.json --full --parts   # with parts of speech

One small network scores the tags of each character; it is trained in three ways. `softmax` takes each
character by itself; `crf` is a conditional random field, whose loss is that of the whole path of tags;
`marginals` has the same field, but its loss is the sum of the characters' cross-entropies, each with the
probability of its own tag. The learning rate of each way is chosen on dev sentences.

Each finished run is written at once: call it again with the same --out, and it goes on.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

from code_hash import code_hash  # noqa: E402

from labkit import corpora, splits  # noqa: E402
from labkit.env import UserError  # noqa: E402

WAYS, RATES = ("softmax", "crf", "marginals"), (6e-3, 1.5e-2, 3e-2)
LONGEST, BATCH = 200, 64  # characters of a sentence to learn from; sentences in a batch
GROUPS = 50
WINDOW, EMBEDDED, HIDDEN, PAIRS = 5, 64, 128, 2**15
COARSE = ("n", "v", "w", "u", "d", "m", "p", "a", "r", "q", "t", "f")
"""Parts of speech of their own; all others are "x"."""
CODE = (LAB / "segment.py", Path(splits.__file__))
Word = tuple[str, str]


# ---------------------------------------------------------------- tags


def part(tag: str) -> str:
    """The corpus' part of speech, coarse: its first letter, or x."""
    return tag[0].lower() if tag[0].lower() in COARSE else "x"


def tags_of(sentence: Sequence[Word], parts: bool = False) -> list[str]:
    """B, M, E or S of each character; with parts of speech, B-n and so on."""
    tags = []
    for word, tag in sentence:
        places = ["S"] if len(word) == 1 else ["B", *"M" * (len(word) - 2), "E"]
        tags += [f"{place}-{part(tag)}" if parts else place for place in places]
    return tags


def all_tags(parts: bool = False) -> list[str]:
    return [f"{place}-{kind}" for kind in (*COARSE, "x") for place in "BMES"] if parts else list("BMES")


def allowed(tags: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Which tags may begin, which may follow which (row: before), which may end."""
    begins = torch.tensor([tag[0] in "BS" for tag in tags])
    ends = torch.tensor([tag[0] in "ES" for tag in tags])
    follows = torch.tensor([[b[0] in "BS" if a[0] in "ES" else b[0] in "ME" and a[1:] == b[1:] for b in tags]
                            for a in tags])
    return begins, follows, ends


def spans(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(start, end, part of speech of the last character) of each word, also where the tags are impossible.

    A word begins at each B and S, and after each E and S; so no character is lost.
    """
    found, start = set(), 0
    for i, tag in enumerate(tags):
        if i + 1 == len(tags) or tag[0] in "ES" or tags[i + 1][0] in "BS":
            found.add((start, i + 1, tag[1:]))
            start = i + 1
    return found


# ---------------------------------------------------------------- the network and the field


class Tagger(nn.Module):
    """(batch, time) characters -> (batch, time, tags) scores, each from a window of five characters.

    start, step and end score the first tag, each pair of neighbours (row: before), and the last tag.
    """

    def __init__(self, characters: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, EMBEDDED, padding_idx=0)
        self.pairs = nn.Embedding(PAIRS, EMBEDDED)  # of a character and the next; many pairs share a row
        nn.init.zeros_(self.pairs.weight)
        self.window = nn.Conv1d(EMBEDDED, HIDDEN, WINDOW, padding=WINDOW // 2)
        self.scores = nn.Linear(HIDDEN, tags)
        self.start, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        self.step = nn.Parameter(torch.zeros(tags, tags))

    def forward(self, characters: Tensor) -> Tensor:
        following = nn.functional.pad(characters[:, 1:], (0, 1))
        pairs = self.pairs((characters * 8191 + following * 127) % PAIRS) * (characters != 0)[..., None]
        return self.scores(self.window((self.embedding(characters) + pairs).mT).relu().mT)


def forward_sums(scores: Tensor, real: Tensor, start: Tensor, step: Tensor, end: Tensor) -> Tensor:
    """(time, batch, tags): log of the summed weights of all beginnings that end here with this tag.

    real: (batch, time), False after a sentence's end, where the last sum is repeated.
    """
    sums = [start + scores[:, 0]]
    for t in range(1, scores.shape[1]):
        new = torch.logsumexp(sums[-1][:, :, None] + step, 1) + scores[:, t]
        sums.append(torch.where(real[:, t, None], new, sums[-1]))
    return torch.stack(sums)


def log_marginals(scores: Tensor, real: Tensor, start: Tensor, step: Tensor, end: Tensor) -> Tensor:
    """(batch, time, tags): log p(this place has this tag | sentence)."""
    before = forward_sums(scores, real, start, step, end)
    after = [end.expand_as(before[0])]
    for t in range(scores.shape[1] - 1, 0, -1):
        new = torch.logsumexp(step + (scores[:, t] + after[-1])[:, None, :], 2)
        after.append(torch.where(real[:, t, None], new, end))
    both = before + torch.stack(after[::-1])
    return (both - torch.logsumexp(before[-1] + end, 1)[:, None]).transpose(0, 1)


def path_score(scores: Tensor, real: Tensor, tags: Tensor, start: Tensor, step: Tensor,
               end: Tensor) -> Tensor:
    """(batch,): the summed scores of a path of tags."""
    each = scores.gather(2, tags[..., None])[..., 0] * real
    pairs = step[tags[:, :-1], tags[:, 1:]] * real[:, 1:]
    last = tags.gather(1, real.sum(1, keepdim=True) - 1)[:, 0]
    return each.sum(1) + pairs.sum(1) + start[tags[:, 0]] + end[last]


def loss(way: str, model: Tagger, characters: Tensor, tags: Tensor) -> Tensor:
    """Nats of all sentences of a batch, summed."""
    scores, real = model(characters), characters != 0
    field = (model.start, model.step, model.end)
    if way == "softmax":
        return nn.functional.cross_entropy(scores[real], tags[real], reduction="sum")
    if way == "marginals":
        return -(log_marginals(scores, real, *field).gather(2, tags[..., None])[..., 0] * real).sum()
    all_paths = torch.logsumexp(forward_sums(scores, real, *field)[-1] + model.end, 1)
    return (all_paths - path_score(scores, real, tags, *field)).sum()


def best_paths(scores: Tensor, real: Tensor, start: Tensor, step: Tensor, end: Tensor) -> list[list[int]]:
    """The path with the largest score of each sentence (Viterbi)."""
    best, came = start + scores[:, 0], []
    for t in range(1, scores.shape[1]):
        new, before = (best[:, :, None] + step).max(1)
        stay = torch.arange(len(step)).expand_as(before)
        best = torch.where(real[:, t, None], new + scores[:, t], best)
        came.append(torch.where(real[:, t, None], before, stay))
    path = [(best + end).argmax(1)]
    for before in reversed(came):
        path.append(before.gather(1, path[-1][:, None])[:, 0])
    paths = torch.stack(path[::-1], 1).tolist()
    return [row[:n] for row, n in zip(paths, real.sum(1).tolist(), strict=True)]


@torch.no_grad()
def decode(how: str, model: Tagger, characters: Tensor, tags: Sequence[str]) -> list[list[int]]:
    """The tags of a batch: `argmax` and `legal` ignore the field, `viterbi` and `marginals` use it.

    `legal` is the best path of those that are possible; `argmax` takes each character by itself.
    """
    scores, real = model(characters), characters != 0
    field = (model.start, model.step, model.end)
    if how == "viterbi":
        return best_paths(scores, real, *field)
    if how == "legal":
        field = [torch.zeros(ok.shape).masked_fill(~ok, -1e9) for ok in allowed(tags)]
        return best_paths(scores, real, *field)
    if how == "marginals":
        scores = log_marginals(scores, real, *field)
    return [row[:n] for row, n in zip(scores.argmax(2).tolist(), real.sum(1).tolist(), strict=True)]


# ---------------------------------------------------------------- data and measures


class Text:
    """Sentences of the frozen split as numbers; what stands in fewer than two train sentences is 1."""

    def __init__(self, parts: bool = False) -> None:
        split = splits.split("tagged-zh")
        self.parts, self.tags = parts, all_tags(parts)
        self.train, self.dev, self.test = split.train, split.dev, split.test
        known = Counter(c for sentence in self.train for c in set(text_of(sentence)))
        self.number = {c: i for i, c in enumerate(sorted(c for c in known if known[c] > 1), start=2)}

    @property
    def characters(self) -> int:
        return len(self.number) + 2

    def batch(self, sentences: Sequence[Sequence[Word]]) -> tuple[Tensor, Tensor]:
        """(characters, tags), each (batch, time), 0 after a sentence's end."""
        rows = [[self.number.get(c, 1) for c in text_of(sentence)] for sentence in sentences]
        tags = [[self.tags.index(tag) for tag in tags_of(sentence, self.parts)] for sentence in sentences]
        longest = max(map(len, rows))
        return tuple(torch.tensor([row + [0] * (longest - len(row)) for row in side])
                     for side in (rows, tags))


def text_of(sentence: Iterable[Word]) -> str:
    return "".join(word for word, _ in sentence)


def fit(way: str, text: Text, rate: float, seed: int, most: int | None = None, share: float = 1.0,
        quiet: bool = False) -> Tagger:
    """One epoch over a share of the train sentences, or `most` batches of it; the rate falls to 0."""
    torch.manual_seed(seed)
    model = Tagger(text.characters, len(text.tags))
    chance = np.random.default_rng(seed)
    sentences = [s for s in text.train if len(text_of(s)) <= LONGEST]
    sentences = [sentences[i] for i in chance.permutation(len(sentences))[:round(share * len(sentences))]]
    sentences.sort(key=lambda s: len(text_of(s)))
    starts = chance.permutation(range(0, len(sentences), BATCH))[:most]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True)
    for done, first in enumerate(tqdm(starts, desc=f"{way}, seed {seed}", unit="step", disable=quiet,
                                      mininterval=10 if not sys.stderr.isatty() else 0.5)):
        optimizer.param_groups[0]["lr"] = rate * (1 - done / len(starts))
        optimizer.zero_grad()
        characters, tags = text.batch(sentences[first:first + BATCH])
        (loss(way, model, characters, tags) / (characters != 0).sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def tagged(how: str, model: Tagger, text: Text, sentences: Sequence[Sequence[Word]]) -> list[list[str]]:
    """The model's tags of each sentence, in the sentences' order."""
    order = sorted(range(len(sentences)), key=lambda i: len(text_of(sentences[i])))
    found: list[list[str]] = [[]] * len(sentences)
    for first in range(0, len(order), BATCH):
        some = order[first:first + BATCH]
        paths = decode(how, model, text.batch([sentences[i] for i in some])[0], text.tags)
        for i, path in zip(some, paths, strict=True):
            found[i] = [text.tags[tag] for tag in path]
    return found


def impossible(tags: Sequence[str]) -> int:
    """Borders (before, between and after the tags) that no division into words has."""
    ends = [not tag.startswith(("E", "S")) for tag in tags[-1:]]
    starts = [tag.startswith(("M", "E")) for tag in tags[:1]]
    return sum(starts + ends) + sum((b[0] in "BS") != (a[0] in "ES") or (b[0] in "ME" and a[1:] != b[1:])
                                    for a, b in itertools.pairwise(tags))


def counts(sentences: Sequence[Sequence[Word]], tags: Sequence[Sequence[str]], known: set[str],
           parts: bool = False) -> np.ndarray:
    """(sentences, 7): words right, found, true; unknown right, true; impossible borders; whole right."""
    rows = []
    for sentence, guess in zip(sentences, tags, strict=True):
        truth, found, text = spans(tags_of(sentence, parts)), spans(guess), text_of(sentence)
        new = {span for span in truth if text[span[0]:span[1]] not in known}
        rows.append([len(truth & found), len(found), len(truth), len(new & found), len(new),
                     impossible(guess), truth == found])
    return np.array(rows)


def figures(rows: np.ndarray) -> dict[str, float | int]:
    right, found, true, new_right, new, bad, whole = (int(n) for n in rows.sum(0))
    return {"precision": round(right / found, 5), "recall": round(right / true, 5),
            "f1": round(2 * right / (found + true), 5), "recall of unknown words": round(new_right / new, 5),
            "impossible borders": bad, "sentences all right": whole, "sentences": len(rows)}


def by_group(sentences: Sequence[Sequence[Word]], rows: np.ndarray) -> list[list[int]]:
    """Words right, found and true in each of GROUPS groups of test paragraphs, for an interval."""
    paragraphs = corpora.paragraph_of()
    group = [int(splits.place(paragraphs[s]) / splits.TEST * GROUPS) for s in sentences]
    sums = np.zeros((GROUPS, 3), int)
    np.add.at(sums, group, rows[:, :3])
    return sums.tolist()


def longest_match(text: str, known: set[str], longest: int) -> list[str]:
    """From left to right the longest known word, else one character; its tags B, M, E and S."""
    tags, start = [], 0
    while start < len(text):
        size = next((n for n in range(min(longest, len(text) - start), 1, -1)
                     if text[start:start + n] in known), 1)
        tags += tags_of([(text[start:start + size], "x")])
        start += size
    return tags


def opponents(text: Text, sentences: Sequence[Sequence[Word]]) -> dict[str, list[list[str]]]:
    """What costs nothing: the train words, longest first; each character's most frequent tag."""
    known = {word for sentence in text.train for word, _ in sentence}
    seen: dict[str, Counter] = {}
    for sentence in text.train:
        for c, tag in zip(text_of(sentence), tags_of(sentence, text.parts), strict=True):
            seen.setdefault(c, Counter())[tag] += 1
    usual = {c: tags.most_common(1)[0][0] for c, tags in seen.items()}
    any_tag = Counter(usual.values()).most_common(1)[0][0]
    found = {"most frequent tag": [[usual.get(c, any_tag) for c in text_of(s)] for s in sentences]}
    if not text.parts:
        longest = max(map(len, known))
        found["longest match"] = [longest_match(text_of(s), known, longest) for s in sentences]
    return found


# ---------------------------------------------------------------- the comparison

DECODED = {"softmax": ("argmax", "legal"), "crf": ("viterbi", "marginals"),
           "marginals": ("marginals", "viterbi")}


class Comparison:
    """Does what is missing in the file."""

    def __init__(self, args: argparse.Namespace, command: str) -> None:
        self.args, self.path = args, args.out
        self.seeds, self.most = (range(args.seeds), None) if args.full else (range(1), 2)
        self.ways = WAYS[:2] if args.parts else WAYS
        self.settings = {"steps": self.most, "parts": args.parts,
                         "tags": all_tags(args.parts), "code": code_hash(*CODE)}
        self.result = {"command": command, "settings": self.settings,
                       "device": f"cpu, 1 thread, {platform.machine()}",
                       "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
                       "choice": {}, "opponents": {}, "runs": []}
        if self.path.exists():
            self.result = self.read()
        self.write()  # a folder that cannot be written is known now

    def read(self) -> dict:
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            settings = held["settings"]
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(f"{self.path} is not a file of this script: choose another --out") from None
        for key, value in self.settings.items():
            if settings.get(key) != value:
                raise UserError(f"{self.path} holds runs with another {key}: choose another --out")
        return held

    def write(self) -> None:
        """The whole file or nothing: it is written beside, then renamed."""
        beside = self.path.with_name(self.path.name + ".part")
        try:
            beside.write_text(json.dumps(self.result, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(beside, self.path)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None

    def run(self) -> None:
        text = Text(self.args.parts)
        known = {word for sentence in text.train for word, _ in sentence}
        dev, test = (s if self.args.full else s[:100] for s in (text.dev, text.test))
        for name, tags in opponents(text, test).items():
            self.result["opponents"][name] = figures(counts(test, tags, known, text.parts))
        for way in self.ways:
            for rate in RATES:
                if f"{way} {rate:g}" not in self.result["choice"]:
                    model = fit(way, text, rate, 100, self.most, 0.3)
                    found = tagged(DECODED[way][0], model, text, dev)
                    rows = counts(dev, found, known, text.parts)
                    self.result["choice"][f"{way} {rate:g}"] = figures(rows)["f1"]
                    self.write()
        for seed in self.seeds:
            for way in self.ways:
                self.one(way, seed, text, test, known)
        self.write()
        print(f"{len(self.result['runs'])} runs in {self.path}", flush=True)

    def one(self, way: str, seed: int, text: Text, test: Sequence, known: set[str]) -> None:
        if (way, seed) in {(run["way"], run["seed"]) for run in self.result["runs"]}:
            return
        began = time.process_time()
        rate = max(RATES, key=lambda rate: self.result["choice"][f"{way} {rate:g}"])
        model = fit(way, text, rate, seed, self.most)
        run = {"way": way, "seed": seed, "rate": rate, **both_losses(model, text, test)}
        for how in DECODED[way]:
            found = tagged(how, model, text, test)
            rows = counts(test, found, known, text.parts)
            run[how] = figures(rows) | {"groups": by_group(test, rows)}
        if not text.parts:
            run["step"] = [[round(x, 3) for x in row] for row in model.step.tolist()]
        self.result["runs"].append(run | {"seconds": round(time.process_time() - began, 1)})
        self.write()
        print(f"{way}, seed {seed}: F1 {run[DECODED[way][0]]['f1']:.4f}", flush=True)


@torch.no_grad()
def both_losses(model: Tagger, text: Text, sentences: Sequence) -> dict[str, float]:
    """Nats a character of test sentences: of the whole path, and summed over the places' own tags."""
    totals, characters = {"crf": 0.0, "marginals": 0.0}, 0
    for sentence in sentences[:500]:
        batch = text.batch([sentence])
        for way in totals:
            totals[way] += float(loss(way, model, *batch))
        characters += batch[0].numel()
    return {f"{way} nats": round(total / characters, 5) for way, total in totals.items()}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("segment.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="an epoch, all seeds (some five minutes)")
    p.add_argument("--seeds", type=int, default=5, help="runs of each way, with --full")
    p.add_argument("--parts", action="store_true", help="parts of speech as well: 52 tags")
    p.add_argument("--out", type=Path, required=True, help="file for the runs; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    torch.set_num_threads(1)
    command = " ".join(["python", "labs/lab06_three_tasks/segment.py", *flags])
    Comparison(parser().parse_args(flags), command).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
