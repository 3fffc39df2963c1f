"""Lab 6's verdict: what a model answers, how good that is, and what no model at all would have reached."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tasks
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase


def chosen(name: str, part: str, count: int) -> list[tuple]:
    """At most `count` items of a part, drawn once and for all."""
    items = tasks.items(name, part)
    return random.Random(0).sample(items, min(count, len(items)))


def answers(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, name: str,
            items: Sequence[tuple]) -> list[str]:
    """What the model answers to each item, greedily."""
    return tasks.answers(model, tokenizer, name, [prompt for prompt, _ in tasks.rows(tokenizer, name, items)])


def wanted(name: str, items: Sequence[tuple]) -> list[str]:
    return [tasks.TASKS[name].answer(item).strip() for item in items]


def interval(name: str, found: Sequence[str], right: Sequence[str]) -> list[float]:
    """95 % interval of the score over other items of the same kind; other trainings are not in it.

    Of shares the score interval (Wilson), of the other metrics a bootstrap: the items drawn anew.
    """
    if len(right) < 2:
        return [0.0, 100.0]
    if tasks.TASKS[name].metric in ("exact match", "accuracy"):
        exact = sum(a == b for a, b in zip(found, right, strict=True))
        return [100 * min(1.0, max(0.0, bound)) for bound in wilson(exact, len(right))]
    many = tasks.TASKS[name].metric != "chrF"  # which is no mean over items, and slow
    drawn = np.random.default_rng(0).integers(len(right), size=(1000 if many else 200, len(right)))
    if many:
        scorer = RougeScorer(["rougeL"])
        each = [scorer.score(b, a)["rougeL"].fmeasure for a, b in zip(found, right, strict=True)]
        scores = 100 * np.array(each)[drawn].mean(1)
    else:
        scores = [CHRF().corpus_score([found[i] for i in some], [[right[i] for i in some]]).score
                  for some in drawn]
    return np.percentile(scores, [2.5, 97.5]).tolist()


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927): it does not shrink to a point where all are right."""
    p, shrink = right / count, 1 + z * z / count
    middle = (p + z * z / (2 * count)) / shrink
    half = z / shrink * (p * (1 - p) / count + (z / (2 * count)) ** 2) ** 0.5
    return middle - half, middle + half


# ---------------------------------------------------------------- without a model


def baselines(name: str, items: Sequence[tuple]) -> dict[str, list[str]]:
    """{opponent: its answers}: what a model has to beat before it is worth its keep."""
    if name == "classify":
        most = Counter(wanted(name, tasks.items(name))).most_common(1)[0][0]
        return {"most frequent label": [most] * len(items)}
    if name == "summarize":
        return {"first sentence": [re.split(r"(?<=[.!?])\s", item[0].strip())[0] for item in items]}
    if name == "answer":
        return {"look-up rule": [look_up(context, question) for context, question, *_ in items]}
    copies = {"copy": [item[0].strip() for item in items]}
    return copies | ({"nearest known string": nearest(name, items)} if name == "translate" else {})


def nearest(name: str, items: Sequence[tuple]) -> list[str]:
    """The translation of the most similar training source: cosine of tf-idf, runs of 2 to 4 characters."""
    known = tasks.items(name)
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    table = counts.fit_transform([item[0] for item in known])
    best = (counts.transform([item[0] for item in items]) @ table.T).toarray().argmax(1)
    return wanted(name, [known[i] for i in best])


def look_up(context: str, question: str) -> str:
    """What stands after the name and a colon; of a default, what stands after that word."""
    asked = re.search(r"`(.+?)`", question)
    line = asked and re.search(
        rf"^[ \t]*(?:.*\W)?{re.escape(asked[1])}(?!\w)[^:\n]*:[ \t]*(.*)$", context, re.M)
    if not line:
        return ""
    default = re.search(r"default\s*(?:=|:|is)?\s*([^\s,]+)", line[1], re.I)
    return (default[1] if default else "") if "default" in question.partition("`")[0] else line[1].strip()


# ---------------------------------------------------------------- the verdict


def verdict(name: str, items: Sequence[tuple], found: Sequence[str],
            opponents: dict[str, list[str]]) -> dict:
    """Score and interval, the opponents' scores, and three samples."""
    right = wanted(name, items)
    return {"metric": tasks.TASKS[name].metric, "n": len(items),
            "score": round(tasks.score(name, found, right), 2),
            "interval": [round(bound, 2) for bound in interval(name, found, right)],
            "baselines": {way: round(tasks.score(name, texts, right), 2) for way, texts in opponents.items()},
            "samples": [{"asked": " ".join(tasks.TASKS[name].source(item).split())[-80:], "wanted": right[i],
                         "answered": found[i]} for i, item in enumerate(items[:3])]}


def table(verdicts: dict[str, dict]) -> str:
    """The verdicts as lines, beside the better opponent."""
    lines = [f"{'task':10}{'metric':13}{'items':>6}{'model':>8}   {'95 % interval':16}without a model"]
    for name, v in verdicts.items():
        best = max(v["baselines"], key=v["baselines"].get)
        low, high = v["interval"]
        lines.append(f"{name:10}{v['metric']:13}{v['n']:6}{v['score']:8.1f}   {f'{low:.1f} to {high:.1f}':16}"
                     f"{v['baselines'][best]:.1f} ({best})")
    return "\n".join(lines)


def samples(verdicts: dict[str, dict]) -> str:
    """A wanted and an answered line for some items."""
    return "\n".join(f"{name}: … {s['asked']}\n    wanted   {s['wanted']}\n    answered {s['answered']}"
                     for name, v in verdicts.items() for s in v["samples"])
