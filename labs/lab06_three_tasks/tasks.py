"""Five tasks as text to text: a template makes a prompt of each item, and the model writes the answer.

A **row** is (tokens of the prompt, tokens of the answer and `<end>`). Only the answer's tokens are targets.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from labkit import splits
from labkit.env import UserError

CONTEXT, IGNORED, END, PAD = 256, -100, 0, 1
Row = tuple[list[int], list[int]]
DOMAINS = {"hotel": "酒店", "book": "图书", "computer": "电脑"}
OPINIONS = {"pos": "好评", "neg": "差评"}
CHOICES = tuple(f"{domain}，{opinion}" for domain in DOMAINS.values() for opinion in OPINIONS.values())


@dataclass(frozen=True)
class Task:
    """`source` is what is clipped where a prompt is too long; `asks` follows it."""

    corpus: str
    source: Callable[[tuple], str]
    asks: Callable[[tuple], str]
    answer: Callable[[tuple], str]
    longest: int  # tokens of an answer
    metric: str
    wanted: Callable[[tuple], bool] = lambda item: True


TASKS: dict[str, Task] = {
    "classify": Task("review-domains", lambda r: r[0], lambda r: "\n类别：",
                     lambda r: f"{DOMAINS[r[1]]}，{OPINIONS[r[2]]}", 12, "accuracy"),
    "translate": Task("home-assistant", lambda r: r[0], lambda r: "\n中文：", lambda r: r[1], 60, "chrF"),
    "numbers": Task("number-words", lambda r: r[0], lambda r: "\n数字：", lambda r: r[1], 40, "exact match"),
    "summarize": Task("docstring-summaries", lambda r: r[0], lambda r: "\nSummary:", lambda r: " " + r[1], 40,
                      "ROUGE-L"),
    "answer": Task("docstring-questions", lambda r: r[0], lambda r: f"\n{r[1]}\nAnswer:",
                   lambda r: " " + r[2], 40, "exact match", lambda r: len(r[0]) <= 560),
}


def items(name: str, part: str = "train") -> list[tuple]:
    """The items of a task in a part of its frozen split; of questions, those whose context is short."""
    if name not in TASKS:
        raise UserError(f"no task is called {name!r}: choose from {', '.join(TASKS)}")
    return [item for item in getattr(splits.split(TASKS[name].corpus), part) if TASKS[name].wanted(item)]


def rows(tokenizer: PreTrainedTokenizerBase, name: str, chosen: Sequence[tuple]) -> list[Row]:
    """Each item's row, at most `CONTEXT` tokens: the source's end is cut first, then the answer's."""
    if not chosen:
        return []
    task = TASKS[name]
    sources, asks, answers = (tokenizer([part(item) for item in chosen])["input_ids"]
                              for part in (task.source, task.asks, task.answer))
    made = []
    for source, ask, answer in zip(sources, asks, answers, strict=True):
        answer = [*answer[:task.longest - 1], END]
        made.append(([*source[:CONTEXT - len(ask) - len(answer)], *ask], answer))
    return made


def pad(batch: Sequence[Row]) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask`, `labels`, each (rows, longest): labels are the answers, else ignored.

    A model of transformers shifts the labels by itself.
    """
    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    made: dict[str, list] = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, answer in batch:
        empty = longest - len(prompt) - len(answer)
        made["input_ids"].append([*prompt, *answer, *[PAD] * empty])
        made["attention_mask"].append([1] * (longest - empty) + [0] * empty)
        made["labels"].append([IGNORED] * len(prompt) + answer + [IGNORED] * empty)
    return {name: torch.tensor(values) for name, values in made.items()}


def batches(lengths: Sequence[int], tokens: int, seed: int) -> list[list[int]]:
    """An epoch: numbers of rows of about equal length, at most `tokens` in a batch with its padding."""
    chance = random.Random(seed)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i] // 8, chance.random()))
    made: list[list[int]] = [[]]
    for i in order:
        if made[-1] and max(lengths[j] for j in [*made[-1], i]) * (len(made[-1]) + 1) > tokens:
            made.append([])
        made[-1].append(i)
    chance.shuffle(made)
    return [batch for batch in made if batch]


# ---------------------------------------------------------------- what a model answers


@torch.no_grad()
def answers(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, name: str,
            prompts: Sequence[list[int]], size: int = 32, **how: object) -> list[str]:
    """What the model writes after each prompt, greedily unless `how` says otherwise (`generate`'s flags)."""
    found: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), size):
        some = order[start:start + size]
        longest = max(len(prompts[i]) for i in some)
        tokens = torch.tensor([[PAD] * (longest - len(prompts[i])) + prompts[i] for i in some])
        room = min(TASKS[name].longest, CONTEXT - longest)
        written = model.generate(input_ids=tokens, attention_mask=(tokens != PAD).long(),
                                 **{"do_sample": False, "max_new_tokens": room, "pad_token_id": PAD} | how)
        for i, row in zip(some, written[:, longest:].tolist(), strict=True):
            found[i] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return [found[i] for i in range(len(prompts))]


@torch.no_grad()
def likelihoods(model: GPT2LMHeadModel, prompts: Sequence[list[int]], choices: Sequence[list[int]],
                size: int = 16) -> Tensor:
    """(prompts, choices): log p(choice | prompt) in nats, summed over the choice's tokens."""
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    found = torch.zeros(len(pairs))
    order = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))
    for start in range(0, len(order), size * len(choices)):
        some = order[start:start + size * len(choices)]
        batch = pad([pairs[i] for i in some])
        scores = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        wanted = batch["labels"][:, 1:]
        each = scores.float().log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        found[some] = (each * (wanted != IGNORED)).sum(-1)
    return found.view(len(prompts), len(choices))


# ---------------------------------------------------------------- how good an answer is


def score(name: str, found: Sequence[str], wanted: Sequence[str]) -> float:
    """The task's metric from 0 to 100 of all answers together."""
    metric, wanted = TASKS[name].metric, [text.strip() for text in wanted]
    if metric in ("exact match", "accuracy"):
        return 100 * sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)
    if metric == "chrF":
        return CHRF().corpus_score(list(found), [wanted]).score
    scorer = RougeScorer(["rougeL"])
    each = [scorer.score(b, a)["rougeL"].fmeasure for a, b in zip(found, wanted, strict=True)]
    return 100 * sum(each) / len(each)


def mixed(sizes: dict[str, int], ratio: dict[str, float], count: int, seed: int) -> list[str]:
    """`count` names of tasks in random order, in proportion to `ratio` (1 for each if empty)."""
    shares = {name: ratio.get(name, 1.0) if ratio else 1.0 for name in sizes}
    if not any(shares.values()):
        raise UserError("the mixing ratio leaves no task: give at least one a share above 0")
    return random.Random(seed).choices(list(shares), list(shares.values()), k=count)


def by_length(made: Sequence[Row]) -> dict[int, int]:
    """{tokens: rows}"""
    counts: dict[int, int] = defaultdict(int)
    for prompt, answer in made:
        counts[len(prompt) + len(answer)] += 1
    return dict(counts)
