"""Lab 4's scores on held-out reviews: masked loss, accuracy, and naive Bayes beside it."""

from __future__ import annotations

import math
import os

import numpy as np
import reviews
import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from labkit import env
from labkit.records import Run

AT_ONCE = 64  # texts


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], context: int) -> tuple[Tensor, Tensor]:
    """(tokens, mask), each (texts, longest), on the CPU; a text is cut to `context` tokens."""
    read = tokenizer(texts, padding=True, truncation=True, max_length=context, return_tensors="pt")
    return read["input_ids"], read["attention_mask"]


def hidden(tokenizer: PreTrainedTokenizerBase, tokens: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """(inputs, targets): BERT's corruption of these tokens. The seed decides what is hidden."""
    return reviews.hide(tokens, len(tokenizer), torch.Generator().manual_seed(seed),
                        mask=tokenizer.mask_token_id, special=tuple(tokenizer.all_special_ids))


def share(items: list) -> list[list]:
    """This rank's batches: of all batches, in order of length, each rank takes every N-th."""
    ordered = sorted(items, key=lambda item: len(item if isinstance(item, str) else item[0]))
    batches = [ordered[i:i + AT_ONCE] for i in range(0, len(ordered), AT_ONCE)]
    return batches[distributed.get_rank()::distributed.get_world_size()]


def total(*numbers: float) -> list[float]:
    """Sums over all ranks, in float64."""
    sums = torch.tensor(numbers, dtype=torch.float64).to(env.device())
    distributed.all_reduce(sums)
    return sums.tolist()


@torch.no_grad()
def masked_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str],
                context: int) -> float:
    """Nats per hidden token, over all hidden tokens of all ranks."""
    model.eval()
    nats = count = 0.0
    for batch in share(texts):
        tokens, mask = tokenize(tokenizer, batch, context)
        inputs, targets = hidden(tokenizer, tokens, len(batch[0]))
        here = int((targets != reviews.IGNORED).sum())
        if here:
            loss = model(input_ids=inputs.to(model.device), attention_mask=mask.to(model.device),
                         labels=targets.to(model.device)).loss
            nats, count = nats + loss.item() * here, count + here
    model.train()
    nats, count = total(nats, count)
    return nats / max(count, 1)


@torch.no_grad()
def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[tuple[str, int]],
             context: int) -> dict[str, float]:
    """Accuracy over all ranks with its 95 % interval; `loss` in nats per review."""
    model.eval()
    right = nats = 0.0
    for batch in share(items):
        tokens, mask = tokenize(tokenizer, [text for text, _ in batch], context)
        logits = model(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device)).logits
        labels = torch.tensor([label for _, label in batch], device=logits.device)
        right += float((logits.argmax(1) == labels).sum())
        nats += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
    model.train()
    right, nats = total(right, nats)
    low, high = wilson(int(right), len(items))
    return {"accuracy": right / len(items), "low": low, "high": high, "loss": nats / len(items)}


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22): 95 % for z = 1.96."""
    p, shrink = right / count, 1 + z * z / count
    middle = (p + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def naive_bayes(train: list[tuple[str, int]], test: list[tuple[str, int]]) -> dict[str, float]:
    """The same score for naive Bayes on bags of characters and of their pairs, one added to each count."""
    known, place = np.unique(np.concatenate([_bag(text) for text, _ in train]), return_inverse=True)
    owner = np.repeat([label for _, label in train], [len(_bag(text)) for text, _ in train])
    counts = np.stack([np.bincount(place[owner == label], minlength=len(known)) + 1 for label in (0, 1)])
    odds = np.diff(np.log(counts / counts.sum(1, keepdims=True)), axis=0)[0]  # of pos against neg
    positive = sum(label for _, label in train)
    right = 0
    for text, label in test:
        at = np.searchsorted(known, _bag(text)).clip(max=len(known) - 1)
        score = odds[at] @ (known[at] == _bag(text)) + math.log(positive / (len(train) - positive))
        right += (score > 0) == label
    low, high = wilson(int(right), len(test))
    return {"accuracy": int(right) / len(test), "low": low, "high": high}


def _bag(text: str) -> np.ndarray:
    """A text's characters and pairs of neighbours, each as one number."""
    codes = np.frombuffer(text.lower().encode("utf-32-le"), np.uint32).astype(np.int64)
    return np.concatenate([codes, (codes[:-1] << 21) + codes[1:]])


def text(run: Run) -> str:
    """A run's records as lines."""
    metrics = {r.values["name"]: r.values for r in run.ranks[min(run.ranks)] if r.event == "metric"}
    lines = []
    if "masked after" in metrics:
        before, after = (metrics[f"masked {when}"]["loss"] for when in ("before", "after"))
        lines.append(f"masked loss on held-out reviews, nats per hidden token: {before:.3f} → {after:.3f}")
    for when, name in (("after fine-tuning", "accuracy"), ("naive Bayes, same labels", "naive Bayes")):
        if name in metrics:
            found = metrics[name]
            lines.append(f"accuracy {when:25}{found['accuracy']:8.1%}"
                         f"   95 % interval {found['low']:.1%} to {found['high']:.1%}")
    for phase in ("pretraining", "fine-tuning"):
        if f"{phase} states" in metrics:
            held = metrics[f"{phase} states"]
            lines.append(f"bytes of states on a rank, {phase}: " + ", ".join(
                f"{part} {held['measured'][part]:,} (predicted {held['predicted'][part]:,})"
                for part in held["measured"]))
    folder = os.path.relpath(run.folder)
    lines.append(f"{run.tokens_per_second:,.0f} tokens/s; models: {folder}/pretrained, …/classifier"
                 if "masked after" in metrics else
                 f"{run.tokens_per_second:,.0f} tokens/s; model: {folder}/classifier")
    return "\n".join(lines)
