"""Puts numbers where a file says ``"auto"``, as transformers' Trainer does before DeepSpeed sees it."""

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

from labkit import config_keys, configs

HIDDEN_SIZE = 4096
"""Hidden size by which the Trainer sizes ZeRO's buckets, where no model is given."""
STEPS = 1000
"""Optimizer steps of a run, where none are given."""


def fill(config: dict[str, Any], ranks: int, *, hidden_size: int = HIDDEN_SIZE,
         steps: int = STEPS) -> tuple[dict[str, Any], dict[str, Any]]:
    """A copy of ``config`` without ``"auto"``, and what was put where: ``{"optimizer.params.lr": 5e-05}``.

    The work is done by transformers' own class, with the defaults of ``TrainingArguments``; numbers
    that the file gives itself (micro-batch, accumulation, learning rate) stand in their place. An
    ``"auto"`` that the Trainer does not know becomes DeepSpeed's default, which is what DeepSpeed
    makes of it.
    """
    from transformers import TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    class Filler(HfTrainerDeepSpeedConfig):
        def fill_match(self, key: str, value: Any, name: str | None = None, must_match: bool = True) -> None:
            super().fill_match(key, value, name, must_match=False)  # the file's own numbers may differ

    wanted = configs.auto_keys(config)
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    arguments = SimpleNamespace(**defaults | _given(config, ranks), world_size=ranks,
                                get_warmup_steps=lambda _: 0)
    filler = Filler(copy.deepcopy(config))
    filler.trainer_config_process(arguments)
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden_size))
    filler.trainer_config_finalize(arguments, model, steps)
    filled = filler.config
    for path in configs.auto_keys(filled):
        *sections, key = path.split(".")
        there = filled
        for section in sections:
            there = there[section]
        default = config_keys.default(path)
        if default is None:
            del there[key]
        else:
            there[key] = default
    return filled, {path: _value(filled, path) for path in wanted}


def sayings(values: dict[str, Any]) -> list[str]:
    """What `fill` put where, in words."""
    return [f"{path} = {value}" if value is not None else f"{path} left out"
            for path, value in values.items()]


def _given(config: dict[str, Any], ranks: int) -> dict[str, Any]:
    """Arguments of the Trainer that the file answers itself."""
    batch, micro, accumulation = (config.get(key) for key in configs.BATCH_KEYS)
    found: dict[str, Any] = {"per_device_train_batch_size": 8}
    if isinstance(accumulation, int):
        found["gradient_accumulation_steps"] = accumulation
    if isinstance(micro, int):
        found["per_device_train_batch_size"] = micro
    elif isinstance(batch, int):
        share = batch // (ranks * found.get("gradient_accumulation_steps", 1))
        found["per_device_train_batch_size"] = max(1, share)
    if isinstance(batch, int) and isinstance(micro, int) and not isinstance(accumulation, int):
        found["gradient_accumulation_steps"] = max(1, batch // (ranks * micro))
    lr = ((config.get("optimizer") or {}).get("params") or {}).get("lr")
    return found | ({"learning_rate": lr} if isinstance(lr, int | float) else {})


def _value(config: dict[str, Any], path: str) -> Any:
    there: Any = config
    for key in path.split("."):
        there = there.get(key) if isinstance(there, dict) else None
    return there
