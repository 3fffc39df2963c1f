"""Lab 4's models: made new, taken by name, and kept as files that `from_pretrained` reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import reviews
import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.utils import get_session
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from labkit.env import UserError


def new(texts: list[str], hidden: int, layers: int, context: int,
        seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A small ModernBERT and a tokenizer of the characters in `texts`; a seed gives the same weights."""
    tokenizer = reviews.make_tokenizer(texts)
    torch.manual_seed(seed)
    return AutoModelForMaskedLM.from_config(
        reviews.encoder(len(tokenizer), hidden, layers, context)), tokenizer


def find(name: str) -> bool:
    """True if the model called `name` is on this machine: a folder, or the cache of a download.

    Raises UserError, soon, if it is not and the hub is out of reach: the hub's client would try for
    a minute.
    """
    try:
        local = Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:
        raise UserError(f"--model {name!r}: no such folder, and no name of the hub, which looks like "
                        "bert-base-chinese or owner/name") from None
    if not local:
        try:
            get_session().head(constants.ENDPOINT, timeout=5)
        except Exception as error:  # whatever the client calls it, there is no way to the hub
            raise UserError(f"--model {name}: no such folder, not in the cache of an earlier download, and "
                            f"{constants.ENDPOINT} cannot be reached ({error}): give the path of a folder "
                            "that save_pretrained wrote, or leave --model out") from None
    return local


def by_name(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A masked language model and its tokenizer from a folder, the hub's cache, or the hub."""
    local = find(name)
    try:
        model = AutoModelForMaskedLM.from_pretrained(name, local_files_only=local, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {name} is no masked language model with its tokenizer: "
                        f"{str(error).splitlines()[0]}") from None
    if tokenizer.mask_token_id is None:
        raise UserError(f"--model {name}: its tokenizer has no mask token, so it was not trained by "
                        "masking; give an encoder such as bert-base-chinese")
    return model, tokenizer


def classifier(source: str | Path | PreTrainedModel, seed: int) -> PreTrainedModel:
    """A classifier with a new head. From a folder its encoder is read, from a model only its shape."""
    torch.manual_seed(seed)
    if isinstance(source, PreTrainedModel):
        model = AutoModelForSequenceClassification.from_config(source.config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=len(reviews.LABELS), dtype=torch.float32, local_files_only=True)
    model.config.id2label = dict(enumerate(reviews.LABELS))
    model.config.label2id = {label: i for i, label in enumerate(reviews.LABELS)}
    return model


def keep(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files: all of them, or none."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)  # os.replace does not replace a folder with files in it
    os.replace(unfinished, folder)
