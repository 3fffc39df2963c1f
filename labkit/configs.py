"""Reads and checks a DeepSpeed configuration before anything starts.

DeepSpeed ignores a key it does not know, so a misspelt ``"zero_optimisation"`` means stage 0
without a word; it drops an ``"auto"``; and much of the rest it finds out only when every rank has
started. Here each fault is one sentence: what, which value, what to do.
"""

import copy
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit import config_keys, config_trial
from labkit.config_keys import Section
from labkit.env import UserError

BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
COMMENT_WORDS = ("comment", "comments", "description")
ALWAYS_ON = ("comms_logger", "datastates_ckpt")
"""Sections whose presence turns them on."""
NULL_MEANS_NOTHING = ("bf16", "bfloat16", "aio")
"""Sections that DeepSpeed takes for absent when they are null."""
FORMER_KEYS = {
    "fp32_allreduce": "write \"communication_data_type\": \"fp32\"",
    "allreduce_always_fp32": "write \"communication_data_type\": \"fp32\"",
    "gradient_noise_scale": "DeepSpeed no longer has it: remove it",
    "disable_allgather": "DeepSpeed reads it and does nothing with it: remove it",
    "aio.thread_count": "its name is intra_op_parallelism now",
}
"""Keys that DeepSpeed once used; what to do."""
COMMON_WORDS = ("seed", "num_layers", "hidden_size", "project", "group", "team", "mode", "metric", "device")
"""Names too general to tell the section that was meant."""
LOSS_SCALE_KEYS = ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale",
                   "auto_cast", "consecutive_hysteresis")


def load(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON file as DeepSpeed does (Hjson: comments, trailing commas; no key twice).

    Top-level comment keys (``"_comment"``, ``"//"``) are left out, and whole batch numbers written
    as 16.0 or 1e3 become integers. Raises UserError if the file is missing, cannot be read, or holds
    no object.
    """
    import hjson
    from deepspeed.runtime.config_utils import dict_raise_error_on_duplicate_keys

    path = Path(path)
    try:
        config = hjson.loads(path.read_text(encoding="utf-8-sig"),
                             object_pairs_hook=dict_raise_error_on_duplicate_keys)
    except OSError as error:
        raise UserError(f"no DeepSpeed configuration at {path} ({error.strerror}): check the path") from None
    except hjson.HjsonDecodeError as error:
        raise UserError(f"{path} is not JSON, line {error.lineno} column {error.colno}: "
                        f"{error.msg}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; a key may stand once: remove one") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold a JSON object {{…}}, not a {type(config).__name__}")
    for key in BATCH_KEYS:
        if isinstance(config.get(key), float) and config[key].is_integer():
            config[key] = int(config[key])
    return {key: value for key, value in config.items() if not is_comment(key)}


def is_comment(key: str) -> bool:
    """True for a key that people write notes under; DeepSpeed ignores it at the top level."""
    return key.startswith(("_", "//", "#")) or key.lower() in COMMENT_WORDS


def check(config: dict[str, Any], ranks: int, *, where: str = "the DeepSpeed configuration") -> None:
    """Refuse what DeepSpeed would ignore, drop, or find out only after every rank has started.

    ``ranks`` is the number of all ranks. Raises UserError with every fault and its cure.
    """
    found = faults(config, ranks)
    if len(found) == 1:
        raise UserError(f"{where}: {found[0]}")
    if found:
        raise UserError(f"{where} has {len(found)} faults:" + "".join(f"\n  - {fault}" for fault in found))


def faults(config: dict[str, Any], ranks: int) -> list[str]:
    """A sentence for each fault; empty if DeepSpeed does on this machine what the file says."""
    found = [*_removed(config), *_shapes(config, config_keys.schema()), *_batch_faults(config, ranks)]
    autos = auto_keys(config)
    if autos:
        found.append(f"\"auto\" stands at {', '.join(autos)}: DeepSpeed knows no such value. transformers' "
                     "Trainer and Accelerate put numbers there before DeepSpeed sees the file; put your own, "
                     "or --fill-auto to put the Trainer's defaults")
    return found or list(_deepspeeds_faults(config))


def auto_keys(config: Any, path: str = "") -> list[str]:
    """The paths at which the file says ``"auto"``, where DeepSpeed itself does not."""
    if config == "auto":
        return [path] if config_keys.default(path) != "auto" else []
    if isinstance(config, dict):
        return [each for key, value in config.items()
                for each in auto_keys(value, f"{path}.{key}".lstrip("."))]
    if isinstance(config, list):
        return [path] if "auto" in config else []
    return []


def _removed(config: dict[str, Any]) -> Iterator[str]:
    """Features that DeepSpeed took out, in its own words."""
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, _REMOVED_ZERO_CONFIG_KEYS

    zero = config.get("zero_optimization")
    for there, removed, path in ((config, _REMOVED_TOP_LEVEL_CONFIG_KEYS, ""),
                                 (zero, _REMOVED_ZERO_CONFIG_KEYS, "zero_optimization.")):
        for key in there if isinstance(there, dict) else ():
            if key in removed:
                yield f"{path}{key}: {removed[key].split(' See http')[0]}"


def _shapes(config: dict[str, Any], section: Section, path: str = "") -> Iterator[str]:
    """Unknown keys and values of the wrong kind, at every depth."""
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS, _REMOVED_ZERO_CONFIG_KEYS

    for key, value in config.items():
        here, known = f"{path}.{key}".lstrip("."), section.keys.get(key)
        if key in (_REMOVED_ZERO_CONFIG_KEYS if path else _REMOVED_TOP_LEVEL_CONFIG_KEYS):
            continue
        if here == "allgather_size" and isinstance(config.get("zero_optimization"), bool):
            continue  # DeepSpeed reads it beside the old `"zero_optimization": true`
        if here in FORMER_KEYS:
            yield f"{here} has no effect: {FORMER_KEYS[here]}"
        elif known is None:
            if not (is_comment(key) and section.model is None):
                yield _unknown(key, config, section, path)
        elif isinstance(known, Section):
            if isinstance(value, dict):
                yield from _shapes(value, known, here)
            elif not _means_something(here, value):
                example = "{\"stage\": 1}" if key == "zero_optimization" else "{\"enabled\": true}" \
                    if "enabled" in known.keys else "{…}"
                yield f"{here} must be an object such as {example}, not {_json(value)}"
        elif section.model is None:
            yield from _plain_value(here, value, known.default)
        elif isinstance(value, bool) and isinstance(known.default, int | float) \
                and not isinstance(known.default, bool):
            yield f"{here} must be a number, not {_json(value)}, which DeepSpeed would take for {int(value)}"


def _means_something(path: str, value: Any) -> bool:
    """Values that DeepSpeed takes in the place of a section."""
    optional = path.startswith("zero_optimization.") or path in NULL_MEANS_NOTHING
    return value == "auto" or (value is None and optional) or (
        path == "zero_optimization" and isinstance(value, bool))


def _plain_value(path: str, value: Any, default: Any) -> Iterator[str]:
    """A value in a section that DeepSpeed does not check: text where a number or a truth value belongs."""
    if path in BATCH_KEYS or value == "auto" or (value is None and not default):
        return
    kinds = {bool: "true or false", int: "a number", float: "a number"}
    wanted = kinds.get(type(default))
    fits = isinstance(value, bool | int | float) if wanted else True
    if isinstance(default, dict):
        wanted, fits = "an object {…}", isinstance(value, dict)
    if path == "steps_per_print":
        wanted, fits = "a number", value is None or isinstance(value, int | float)
    if path == "gradient_clipping":
        wanted, fits = "a number of at least 0", fits and not isinstance(value, bool) and value >= 0
    if not fits:
        yield f"{path} must be {wanted}, not {_json(value)}"


def _unknown(key: str, config: dict[str, Any], section: Section, path: str) -> str:
    """What to do about a key that nobody reads here."""
    elsewhere = [place for place in config_keys.places(key) if place != path]
    if path in ("bf16", "bfloat16") and key in LOSS_SCALE_KEYS:
        elsewhere, key_hint = [], "only fp16 scales its loss: remove it"
    elif path in ("optimizer", "scheduler"):
        key_hint = f"it belongs inside {path}.params"
    else:
        key_hint = "remove it"
    near = difflib.get_close_matches(key.replace("-", "_"), section.keys, 1, 0.75)
    if near:
        there = near[0] in config
        hint = f"{near[0]!r} is there already: remove it" if there else f"did you mean {near[0]!r}?"
    elif len(elsewhere) == 1 and key not in COMMON_WORDS:
        hint = f"it belongs inside {elsewhere[0]}" if elsewhere[0] else "it belongs at the file's top level"
    else:
        hint = key_hint
    verb = "refuse" if section.model else "ignore"
    inside = f"{path} has the key" if path else "there is the key"
    return f"{inside} {key!r}, which DeepSpeed would {verb}: {hint}"


def _batch_faults(config: dict[str, Any], ranks: int) -> Iterator[str]:
    """train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × ranks."""
    wrong = [key for key in BATCH_KEYS if config.get(key) not in (None, "auto") and not _whole(config[key])]
    for key in wrong:
        yield f"{key} must be a whole number of at least 1, not {_json(config[key])}"
    batch, micro, accumulation = (config.get(key) for key in BATCH_KEYS)
    if batch is None and micro is None:
        yield "gives no batch: set train_batch_size or train_micro_batch_size_per_gpu"
    if batch is None or wrong or "auto" in (batch, micro, accumulation):
        return
    sequence = config.get("sequence_parallel_size")  # ranks that share a sample; AutoTP's count fully
    ranks = max(1, ranks // sequence) if _whole(sequence) else ranks
    micro_batches = (micro or 1) * (accumulation or 1)  # of one rank; their product with ranks must be batch
    exact = bool(micro and accumulation)
    if batch == micro_batches * ranks if exact else batch % (micro_batches * ranks) == 0:
        return
    parts = [f"{ranks} rank{'s' if ranks > 1 else ''}"]
    parts += [f"micro batch {micro}"] if micro else []
    parts += [f"accumulation {accumulation}"] if accumulation else []
    unit = micro_batches * ranks
    verb = f"is not {' × '.join(parts)} = {unit}" if exact else f"cannot be divided by {' × '.join(parts)}"
    near = [unit] if exact else sorted({max(1, batch // unit) * unit, (batch // unit + 1) * unit})
    fitting = [n for n in range(1, 1025) if (batch == micro_batches * n if exact
                                             else batch % (micro_batches * n) == 0)]
    close = sorted(sorted(fitting, key=lambda n: abs(n - ranks))[:3])
    or_ranks = f", or take --ranks {_or(close)}" if close else ""
    yield f"train_batch_size {batch} {verb}: set it to {_or(near)}{or_ranks}"


def _or(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers)) if len(numbers) < 3 else \
        f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def global_batch(config: dict[str, Any], ranks: int) -> int:
    """Sequences per optimizer step over all ranks, whichever of BATCH_KEYS the configuration gives."""
    batch, micro, accumulation = (config.get(key) for key in BATCH_KEYS)
    return batch or micro * (accumulation or 1) * ranks


def read(config: dict[str, Any]) -> Any:
    """DeepSpeed's own DeepSpeedConfig of a file without faults. Raises whatever DeepSpeed raises."""
    from deepspeed.runtime.config import DeepSpeedConfig

    rest = {key: value for key, value in copy.deepcopy(config).items() if key not in BATCH_KEYS}
    with config_trial.quietly():
        return DeepSpeedConfig({**rest, "train_batch_size": 1})


def offloads_optimizer(made: Any) -> bool:
    """True if ZeRO keeps the optimizer on the CPU. ``made`` is DeepSpeed's DeepSpeedConfig."""
    offload = made.zero_config.offload_optimizer
    return bool(offload) and offload.device != "none"


def _deepspeeds_faults(config: dict[str, Any]) -> Iterator[str]:
    """What DeepSpeed's own models refuse, then what an engine would, then what this device cannot do."""
    from pydantic import ValidationError

    try:
        made = read(config)
    except ValidationError as error:
        yield from (_model_fault(error.title, each) for each in error.errors())
        return
    except Exception as error:  # DeepSpeed raises many kinds; the reader needs its sentence
        yield f"DeepSpeed refuses it: {(str(error).splitlines() or [type(error).__name__])[0]}"
        return
    if made.autotuning_config.enabled:
        yield ("autotuning is enabled, so DeepSpeed ends a run as soon as it has measured it: set its "
               "enabled to false, or start with `deepspeed --autotuning`")
    if made.float16_config.auto_cast and not made.float16_config.enabled:
        yield ("fp16.auto_cast is on while fp16 is off: DeepSpeed would cast inputs and not the weights, so "
               "set it to false")
    if config.get("bf16") is not None and config.get("bfloat16") is not None:
        yield "bfloat16 stands beside bf16, so DeepSpeed would ignore it: keep bf16 alone"
    for key in ALWAYS_ON:
        if isinstance(config.get(key), dict) and config[key].get("enabled") is False:
            yield f"{key} is turned on by its section, whatever enabled says: remove the section"
    stage = int(made.zero_optimization_stage)
    yield from config_trial.optimizer_faults(config, offloads_optimizer(made), stage)
    half = made.float16_config.enabled or made.bfloat16_config.enabled
    yield from config_trial.schedule_faults(config, bool(half or stage))
    yield from config_trial.device_faults(made)


def _model_fault(model: str, error: Any) -> str:
    """A pydantic error with the path as it stands in the file."""
    path = ".".join(filter(None, (config_keys.model_path(model), *map(str, error["loc"]))))
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if error["type"] == "enum":
        words = dict.fromkeys(error["ctx"]["expected"].replace(" or ", ", ").split(", "))
        message = f"must be one of {', '.join(words)}"
    given = error.get("input")
    return f"{path} is {_json(given)}: {message}" if not isinstance(given, dict) else f"{path}: {message}"


def _json(value: Any) -> str:
    """A value as it stands in the file."""
    names = {True: "true", False: "false", None: "null"}
    return names[value] if value is None or isinstance(value, bool) else repr(value)
