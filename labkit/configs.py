"""Checks a DeepSpeed configuration before anything starts.

DeepSpeed ignores a key it does not know, so a misspelt ``"zero_optimisation"`` means stage 0
without a word. The keys it does know are learnt from DeepSpeed itself: it reads a dictionary that
takes notes.
"""

import difflib
import functools
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from labkit.env import UserError

BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
SECTION_KEYS = ("type", "params", "legacy_fusion")


class _NotingDict(dict):
    """A dictionary that remembers which keys it was asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def keys(self) -> "_NotingDict":
        return self  # `key in config.keys()` takes a note too

    def __copy__(self) -> "_NotingDict":
        return self  # DeepSpeed copies the dictionary first; the notes must stay in one place


@functools.cache
def known_keys() -> frozenset[str]:
    """The top-level keys that the installed DeepSpeed reads."""
    from deepspeed.runtime.config import DeepSpeedConfig

    notes = _NotingDict({"train_batch_size": 1})
    DeepSpeedConfig(notes)
    return frozenset(notes.asked | {"sequence_parallel_size"})  # read only next to a device mesh


def load(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON file. Raises UserError if it is missing, no JSON, or no object."""
    path = Path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no DeepSpeed configuration at {path} ({error.strerror}): check --config") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a JSON object {{…}}, not a {type(config).__name__}")
    return config


def check(config: dict[str, Any], ranks: int, *, where: str = "the DeepSpeed configuration") -> None:
    """Refuse what DeepSpeed would ignore, or find out only after every rank has started.

    ``ranks`` is the number of data-parallel ranks. Raises UserError with the cure.
    """
    for key in config:
        if key not in known_keys():
            near = difflib.get_close_matches(key, known_keys(), 1, 0.6)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            raise UserError(f"{where} has the key {key!r}, which DeepSpeed would ignore: {hint}")
    _check_batch(config, ranks, where)
    if isinstance(config.get("fp16"), dict) and config["fp16"].get("enabled"):
        from deepspeed.accelerator import get_accelerator

        if not get_accelerator().is_fp16_supported():
            raise UserError(f"{where} asks for fp16, which this device cannot compute in: use bf16 or fp32")
    for section in ("optimizer", "scheduler"):
        values = config.get(section) or {}
        if not isinstance(values, dict):
            raise UserError(f"{where}: {section} must be an object {{…}}, not {values!r}")
        for key in values:
            if key not in SECTION_KEYS:
                raise UserError(f"{where}: {section} has the key {key!r}, which DeepSpeed would "
                                f"ignore: it reads {', '.join(SECTION_KEYS)}")
    clipping = config.get("gradient_clipping", 0.0)
    if not isinstance(clipping, int | float) or clipping < 0:
        raise UserError(f"{where}: gradient_clipping must be a number of at least 0, not {clipping!r}")
    _check_sections(config, where)


def _check_batch(config: dict[str, Any], ranks: int, where: str) -> None:
    """train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × ranks."""
    for key in BATCH_KEYS:
        value = config.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{where}: {key} must be a whole number of at least 1, not {value!r}")
    batch, micro, accumulation = (config.get(key) for key in BATCH_KEYS)
    if batch is None and micro is None:
        raise UserError(f"{where} gives no batch: set train_batch_size or "
                        "train_micro_batch_size_per_gpu")
    if batch is None:
        return
    if batch % (ranks * (micro or 1) * (accumulation or 1)):
        parts = [f"{ranks} ranks"]
        parts += [f"micro batch {micro}"] if micro else []
        parts += [f"accumulation {accumulation}"] if accumulation else []
        raise UserError(f"train_batch_size {batch} cannot be divided by {' × '.join(parts)}: "
                        "change one of them")
    if micro and accumulation and batch != micro * accumulation * ranks:
        raise UserError(f"train_batch_size {batch} is not micro batch {micro} × accumulation "
                        f"{accumulation} × {ranks} ranks = {micro * accumulation * ranks}")


def global_batch(config: dict[str, Any], ranks: int) -> int:
    """Sequences per optimizer step over all ranks, whichever of BATCH_KEYS the configuration gives."""
    batch, micro, accumulation = (config.get(key) for key in BATCH_KEYS)
    return batch or micro * (accumulation or 1) * ranks


def _check_sections(config: dict[str, Any], where: str) -> None:
    """Let DeepSpeed's own models read every section (ZeRO, bf16, …)."""
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    rest = {key: value for key, value in config.items() if key not in BATCH_KEYS}
    try:
        with redirect_stdout(io.StringIO()):
            DeepSpeedConfig({**rest, "train_batch_size": 1})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        fields = _fields(error.title)
        near = difflib.get_close_matches(key, fields, 1, 0.6) if first["type"] == "extra_forbidden" else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{where}: {error.title}.{key}: {first['msg']}.{hint}") from None
    except Exception as error:  # DeepSpeed raises many kinds; the reader needs its sentence
        raise UserError(f"{where}: DeepSpeed refuses it: {str(error).splitlines()[0]}") from None


def _fields(model_name: str) -> list[str]:
    """Field names of DeepSpeed's pydantic model of that name."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    todo = list(DeepSpeedConfigModel.__subclasses__())
    while todo:
        model = todo.pop()
        if model.__name__ == model_name:
            return list(model.model_fields)
        todo += model.__subclasses__()
    return []
