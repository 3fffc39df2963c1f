"""Reviews and news as an encoder reads them: characters in, hidden characters or a label out."""

import random
from collections import Counter
from functools import cache

import torch
from torch import Tensor
from transformers import BertTokenizerFast, ModernBertConfig

from labkit import data, splits

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = ("neg", "pos")
IGNORED = -100  # cross-entropy skips these targets


@cache
def labelled() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(train, test) reviews with labels 0 (neg) and 1 (pos); no train review is like a test review.

    Exact copies are dropped when the corpus is read, near copies of test reviews here, by exact Jaccard
    similarity of their character 3-grams. The test set is part of the frozen one of `labkit.splits`.
    """
    sides = [[(text, LABELS.index(label)) for text, label in side.items]
             for side in data.load("chinese-reviews").split(0.1)]
    train, test = ([text for text, _ in side] for side in sides)
    copies = splits.near_copies(train, test, grams=_grams)
    return [item for item, copy in zip(sides[0], copies, strict=True) if not copy], sides[1]


def _grams(text: str) -> set[str]:
    """Character 3-grams of all texts, none of shorter ones: the rule behind the lab's figures."""
    text = splits.normalized(text)
    return {text[i:i + 3] for i in range(len(text) - 2)}


def unlabelled(train: list[tuple[str, int]]) -> list[str]:
    """Text to pre-train on: the training reviews without their labels, and the news."""
    return [text for text, _ in train] + list(data.load("peoples-daily").items)


def make_tokenizer(texts: list[str], least: int = 5) -> BertTokenizerFast:
    """bert-base-chinese's way with text: a Chinese character is a token. Knows what comes `least` times."""
    counts = Counter("\n".join(texts).lower())
    known = sorted(character for character, times in counts.items()
                   if times >= least and not character.isspace())
    latin = [f"##{character}" for character in known if character.isalnum() and character.isascii()]
    return BertTokenizerFast(vocab={token: i for i, token in enumerate(SPECIAL + known + latin)})


def encoder(vocab_size: int, hidden: int = 128, layers: int = 2, context: int = 128) -> ModernBertConfig:
    """A small ModernBERT (Warner et al. 2024): pre-norm, rotary positions, gated MLP, no dropout."""
    return ModernBertConfig(
        vocab_size=vocab_size, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 32,
        intermediate_size=2 * hidden, max_position_embeddings=context, local_attention=context,
        classifier_pooling="mean", sparse_prediction=True, num_labels=len(LABELS),
        pad_token_id=0, cls_token_id=2, bos_token_id=2, sep_token_id=3, eos_token_id=3)


def pieces(tokenizer: BertTokenizerFast, texts: list[str], context: int) -> list[list[int]]:
    """Token numbers of each text, [CLS] first and [SEP] last; long texts are cut into several."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    room = context - 2
    return [[2, *row[i:i + room], 3] for row in rows for i in range(0, max(len(row), 1), room)]


def first_piece(tokenizer: BertTokenizerFast, texts: list[str], context: int) -> list[list[int]]:
    """One row a text, for classification: [CLS], the first tokens that there is room for, [SEP]."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [[2, *row[:context - 2], 3] for row in rows]


def epoch(lengths: list[int], batch_size: int, seed: int, near: int = 50) -> list[list[int]]:
    """Item numbers in batches of equal size and similar length, in random order; a random rest is left out.

    Sorted by length within `near` batches: little padding, still random.
    """
    chooser = random.Random(seed)
    order = chooser.sample(range(len(lengths)), len(lengths) // batch_size * batch_size)
    near *= batch_size
    order = [i for start in range(0, len(order), near)
             for i in sorted(order[start:start + near], key=lengths.__getitem__)]
    batches = [order[i:i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]
    chooser.shuffle(batches)
    return batches


def pad(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(tokens, mask), each (rows, longest): mask is 1 on text and 0 on padding."""
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return tokens, (tokens != 0).long()


def hide(tokens: Tensor, vocab_size: int, generator: torch.Generator, rate: float = 0.15,
         mask: int = SPECIAL.index("[MASK]"), special: tuple[int, ...] = tuple(range(len(SPECIAL))),
         ) -> tuple[Tensor, Tensor]:
    """BERT's corruption (Devlin et al. 2019): (inputs, targets) from tokens (rows, length).

    `rate` of the tokens are targets: of these 80 % read [MASK], 10 % a random token, 10 % stay.
    Special tokens never are targets. `mask` and `special` are numbers in the tokenizer's vocabulary.
    """
    draw = torch.rand(tokens.shape, generator=generator)
    how = torch.rand(tokens.shape, generator=generator)
    chosen = (draw < rate) & ~torch.isin(tokens, torch.tensor(special))
    inputs = tokens.masked_fill(chosen & (how < 0.8), mask)
    other = torch.randint(len(SPECIAL), vocab_size, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (how >= 0.9), other, inputs)
    return inputs, tokens.masked_fill(~chosen, IGNORED)
