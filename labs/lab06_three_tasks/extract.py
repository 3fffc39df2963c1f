"""Lab 6's extractor: answers that are pieces of a context, summaries that are sentences of a document.

    python labs/lab06_three_tasks/extract.py --out short.json           # a few questions, to see it work
    python labs/lab06_three_tasks/extract.py --out full.json --full     # as it was recorded

The backbone's weights stay as they are. For an answer, a small head gives each token of the context two
scores, "the answer begins here" and "ends here", from the vectors of the token and of its two neighbours,
from which tokens around it are those of the name asked for, and from whether a default is asked for. For a
summary, a ridge regression guesses the ROUGE-L of each sentence. Of every test item it is written down what
was chosen, so that Chapter 6 can score it; and what the model of Lab 6 writes, where it is there.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from rouge_score.rouge_scorer import RougeScorer
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

LAB = Path(__file__).resolve().parent
sys.path.insert(0, str(LAB))  # the lab's other files, wherever it is started from

import record_file  # noqa: E402
import tasks  # noqa: E402
from code_hash import code_hash  # noqa: E402

from labkit import corpora, splits  # noqa: E402
from labkit.env import UserError  # noqa: E402

BACKBONE, TUNED = LAB / "backbone", LAB / "tuned"
CODE = (LAB / "extract.py", LAB / "tasks.py", Path(splits.__file__))
WINDOW = 8  # tokens on either side of a token that are compared with the name asked for
LONGEST = 60  # tokens of an answer
WAYS = {"one block": 1, "six blocks": 6, "random vectors": 0}
LINE = re.compile(r"(?m)^(\*{0,2}\w+(?:, ?\*{0,2}\w+)*) ?: ?(\S.*)$")
FORMS: dict[str, Callable[[str], str]] = {
    "numpydoc": str,
    "sphinx": lambda context: LINE.sub(lambda m: f":type {m[1]}: {m[2].rstrip()}", context),
    "google": lambda context: LINE.sub(lambda m: f"{m[1]} ({m[2].rstrip()}):", context),
}


# ---------------------------------------------------------------- vectors


class Reader:
    """The frozen backbone's vectors of a text: after some of its blocks, or random ones of each token."""

    def __init__(self, way: str, blocks: int) -> None:
        transformers.logging.set_verbosity_error()
        self.tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
        self.model = AutoModel.from_pretrained(BACKBONE, dtype=torch.float32).eval()
        self.model.h = self.model.h[:blocks]
        drawn = torch.randn(self.model.wte.weight.shape, generator=torch.Generator().manual_seed(0))
        self.random = drawn if way == "random vectors" else None

    @torch.no_grad()
    def __call__(self, tokens: Sequence[int]) -> Tensor:
        """(tokens, width); each token sees itself and those before it."""
        ids = torch.tensor(tokens)
        if self.random is not None:
            return self.random[ids]
        return self.model(input_ids=ids[None]).last_hidden_state[0]


# ---------------------------------------------------------------- answers


def features(reader: Reader, context: str, question: str) -> tuple[Tensor, list[tuple[int, int]]]:
    """((tokens of the context, features), first and last character of each token)."""
    asked = reader.tokenizer(question + "\n")["input_ids"]
    read = reader.tokenizer(context, return_offsets_mapping=True)
    room = tasks.CONTEXT - len(asked)
    tokens, places = read["input_ids"][:room], read["offset_mapping"][:room]
    vectors = reader([*asked, *tokens])[len(asked):]
    framed = nn.functional.pad(vectors, (0, 0, 1, 1))
    name = question.split("`")[1]
    pieces = reader.tokenizer(f"`{name}`")["input_ids"]
    names = {reader.tokenizer.decode([token]).strip("` ") for token in pieces} - {""}
    same = torch.tensor([float(context[a:b].strip("` ") in names) for a, b in places])
    around = nn.functional.pad(same, (WINDOW, WINDOW)).unfold(0, 2 * WINDOW + 1, 1)
    default = torch.full((len(tokens), 1), float("default" in question))
    return torch.cat([framed[:-2], vectors, framed[2:], around, default], 1), places


def target(context: str, question: str, answer: str, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last token of the answer where it stands in the block of the parameter."""
    name = re.escape(question.split("`")[1])
    line = re.search(rf"(?m)^[\w*, ]*\b{name}\b[\w*, ]* ?: ?(\S.*)$", context)
    start = line.start(1) if line else 0
    stated = corpora.DEFAULT.search(context, start) if "default" in question else None
    begin = stated.start(1) if stated else context.find(answer, start)
    inside = [i for i, (a, b) in enumerate(places) if a < begin + len(answer) and b > begin]
    return (inside[0], inside[-1]) if inside else (0, 0)


def best_span(start: Tensor, end: Tensor, longest: int = LONGEST) -> tuple[int, int]:
    """(first, last) with the largest start[first] + end[last], first <= last < first + longest."""
    together = start[:, None] + end[None, :]
    allowed = torch.ones_like(together).triu().tril(longest - 1).bool()
    return divmod(together.masked_fill(~allowed, -torch.inf).argmax().item(), len(start))


def fit(read: Sequence[Tensor], spans: Sequence[tuple[int, int]], seed: int, epochs: int = 8) -> nn.Module:
    """Train the head: cross-entropy over the context's tokens, for the start and for the end."""
    torch.manual_seed(seed)
    some = torch.cat(list(read[:200]))
    mean, spread = some.mean(0), some.std(0) + 0.1
    head = nn.Sequential(nn.Linear(some.shape[1], 64), nn.GELU(), nn.Linear(64, 2))
    steps = epochs * -(-len(read) // 32)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(read)).split(32):
            x = nn.utils.rnn.pad_sequence([(read[i] - mean) / spread for i in batch], batch_first=True)
            lengths = torch.tensor([len(read[i]) for i in batch])
            absent = torch.arange(x.shape[1])[None] >= lengths[:, None]
            scores = head(x).masked_fill(absent[..., None], -1e9)
            wanted = torch.tensor([spans[i] for i in batch])
            loss = sum(nn.functional.cross_entropy(scores[..., k], wanted[:, k]) for k in (0, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    first = head[0]
    with torch.no_grad():  # the head then takes the features as they are
        first.weight /= spread
        first.bias -= first.weight @ mean
    return head.eval()


@torch.no_grad()
def found(head: nn.Module, read: Tensor, places: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last character of the best span."""
    first, last = best_span(*head(read).T)
    return places[first][0], places[last][1]


# ---------------------------------------------------------------- summaries


def sentences(document: str) -> list[str]:
    """A document's sentences: one ends with . ! or ? before a space and a capital, a quote or a bracket."""
    return [text for text in re.split(r"(?<=[.!?])\s+(?=[A-Z`\"'(\[])", document) if text]


def sentence_features(reader: Reader, document: str) -> np.ndarray:
    """(sentences, features): mean vector, place, length."""
    rows, parts = [], sentences(document)
    for number, text in enumerate(parts):
        vector = reader(reader.tokenizer(text)["input_ids"][:tasks.CONTEXT]).mean(0).numpy()
        words = len(text.split())
        rows.append(np.r_[vector, number == 0, number == len(parts) - 1, number, np.log(words), words < 5])
    return np.array(rows)


def rouge_l(wanted: str, given: str, scorer: RougeScorer | None = None) -> float:
    return (scorer or RougeScorer(["rougeL"])).score(wanted, given)["rougeL"].fmeasure


def chosen_sentences(reader: Reader, train: Sequence, dev: Sequence, test: Sequence) -> list[int]:
    """Number of the sentence chosen in each test document; the ridge's penalty is chosen on dev."""
    read = [[sentence_features(reader, item[0]) for item in part] for part in (train, dev, test)]
    scorer = RougeScorer(["rougeL"])
    gains = [np.array([rouge_l(item[1], text, scorer) for text in sentences(item[0])]) for item in train]
    known = [[rouge_l(item[1], text, scorer) for text in sentences(item[0])] for item in dev]
    rows, gained = np.vstack(read[0]), np.concatenate(gains)
    models = [Ridge(penalty).fit(rows, gained) for penalty in (10, 100, 1000, 10000)]
    best = max(models, key=lambda model: sum(
        scores[int(model.predict(x).argmax())] for scores, x in zip(known, read[1], strict=True)))
    return [int(best.predict(x).argmax()) for x in read[2]]


# ---------------------------------------------------------------- the record


def run(full: bool, path: Path, command: str) -> None:
    """Do it and write the file."""
    began = time.process_time()
    train_n, seeds, test_n = (1500, (0, 1, 2), None) if full else (40, (0,), 20)
    settings = {"train": train_n, "seeds": list(seeds), "test": test_n, "code": code_hash(*CODE)}
    result = record_file.begin(path, command, settings, answers=[], summaries=[], generated={})
    train, test = tasks.items("answer", "train"), tasks.items("answer", "test")[:test_n]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:train_n].tolist()
    train = [train[i] for i in order]
    for way, blocks in WAYS.items():
        reader = Reader(way, blocks)
        read = [features(reader, *item[:2]) for item in train]
        spans = [target(*item[:3], places) for item, (_, places) in zip(train, read, strict=True)]
        shown = {form: [features(reader, change(item[0]), item[1]) for item in test]
                 for form, change in FORMS.items() if form == "numpydoc" or way == "one block"}
        for seed in seeds:
            if (way, seed) not in {(run["way"], run["seed"]) for run in result["answers"]}:
                head = fit([x for x, _ in read], spans, seed)
                result["answers"].append({"way": way, "seed": seed} | {
                    form: [found(head, *x) for x in those] for form, those in shown.items()})
                right = [item[0][a:b].strip() == item[2]
                         for item, (a, b) in zip(test, result["answers"][-1]["numpydoc"], strict=True)]
                print(f"{way}, seed {seed}: {np.mean(right):.1%} of {len(test)} answers exact", flush=True)
                record_file.write(path, result)
    summaries = [tasks.items("summarize", part) for part in ("train", "dev", "test")]
    if not result["summaries"]:
        result["summaries"] = chosen_sentences(Reader("one block", 1), summaries[0][:None if full else 40],
                                               *(part[:test_n] for part in summaries[1:]))
        record_file.write(path, result)
    if TUNED.exists() and not result["generated"]:
        model = AutoModelForCausalLM.from_pretrained(TUNED, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(TUNED)
        for name, items in (("answer", test), ("summarize", summaries[2][:test_n])):
            prompts = [prompt for prompt, _ in tasks.rows(tokenizer, name, items)]
            result["generated"][name] = tasks.answers(model, tokenizer, name, prompts)
    result["seconds"] = round(time.process_time() - began)
    record_file.write(path, result)
    print(f"written to {path}, {result['seconds']} s of one core", flush=True)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("extract.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--full", action="store_true", help="1,500 questions, three seeds (some minutes)")
    p.add_argument("--out", type=Path, required=True, help="file for the record; an old one is continued")
    return p


def main(flags: list[str]) -> None:
    torch.set_num_threads(1)
    args = parser().parse_args(flags)
    run(args.full, args.out, " ".join(["python", "labs/lab06_three_tasks/extract.py", *flags]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: call it again with the same --out to go on")
