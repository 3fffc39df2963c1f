"""Explains a DeepSpeed configuration: each line in a sentence, what it takes, what DeepSpeed makes of it.

`understand` gives the file as DeepSpeed reads it: present names, the numbers of the batch, the defaults
that matter. `report` prints that, a table of memory, and the sentences of config_words.toml.
"""

import contextlib
import inspect
import json
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit import config_keys, config_trial, configs, plan

WIDTH = 98
WORDS: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("config_words.toml").read_text(encoding="utf-8"))
"""Path of a key → its sentence, or a sentence for each value, and where the course treats it."""
ZERO_DEFAULTS = {
    0: ("stage",),
    1: ("stage", "reduce_bucket_size", "overlap_comm", "contiguous_gradients",
        "use_multi_rank_bucket_allreduce"),
    3: ("stage", "reduce_bucket_size", "overlap_comm", "contiguous_gradients", "stage3_prefetch_bucket_size",
        "stage3_param_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance",
        "sub_group_size", "stage3_gather_16bit_weights_on_model_save"),
}
"""Defaults of zero_optimization that matter, by stage; 2 is as 1."""
OFFLOAD_DEFAULTS = {"none": ("device",), "cpu": ("device", "pin_memory"),
                    "nvme": ("device", "nvme_path", "pin_memory", "buffer_count")}
SCALE_DEFAULTS = ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale")
ARGUMENTS = ("lr", "betas", "eps", "weight_decay", "momentum")
MOMENTS = {"lion": 4, "rmsprop": 4, "sgd": 0}
"""Bytes of optimizer states a parameter, in fp32; 8 (two averages) for all others."""


@dataclass
class Understood:
    """A file as DeepSpeed reads it. ``notes``: path → why it is so, where the file did not say it."""

    config: dict[str, Any]
    ranks: int
    made: str = "no optimizer of its own"
    notes: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path, or ``default``."""
        there: Any = self.config
        for key in path.split("."):
            if not isinstance(there, dict) or key not in there:
                return default
            there = there[key]
        return there

    @property
    def stage(self) -> int:
        return self.get("zero_optimization.stage", 0)

    def offload(self, what: str) -> str:
        """Where ``optimizer`` or ``param`` lies: none, cpu or nvme."""
        section = self.get(f"zero_optimization.offload_{what}") or {}
        usable = self.stage >= (3 if what == "param" else 1)
        return section.get("device", "none") if usable else "none"

    def add(self, path: str, value: Any, note: str = "default") -> None:
        """Write ``value`` with a note, if nothing stands there."""
        *sections, key = path.split(".")
        there = self.config
        for section in sections:
            there = there.setdefault(section, {})
        if key not in there:
            there[key], self.notes[path] = value, note


def understand(config: dict[str, Any], ranks: int) -> Understood:
    """What DeepSpeed makes of a file without faults on ``ranks`` ranks. Reading it again changes nothing."""
    read = configs.read(config)
    u = Understood(_batch(config, ranks), ranks)
    u.notes |= {key: "computed" for key in configs.BATCH_KEYS if config.get(key) is None}
    for key, value in config.items():
        name = "bf16" if key == "bfloat16" else key
        if key in (*configs.BATCH_KEYS, "zero_optimization", "allgather_size") or name in u.config:
            continue
        if value is not None or key not in configs.NULL_MEANS_NOTHING:
            u.config[name] = _plain(value, config_keys.schema().keys.get(key))
            if name != key:
                u.notes[name] = f"was {key}"
    for name, model in (("bf16", read.bfloat16_config), ("fp16", read.float16_config)):
        if name in u.config:
            u.config[name] = _section(model, u.config[name], (), name, u.notes)
    u.add("gradient_clipping", read.gradient_clipping)
    _precision(u, read)
    _zero(u, read, config)
    _optimizer(u)
    if u.get("optimizer.type"):
        u.notes["optimizer.type"] = u.made
    _scheduler(u)
    if u.get("flops_profiler.enabled"):
        u.add("wall_clock_breakdown", True, "the FLOPs profiler turns it on")
    return u


def _batch(config: dict[str, Any], ranks: int) -> dict[str, Any]:
    """The three numbers, as DeepSpeed completes them (runtime/config.py, _set_batch_related_parameters)."""
    ranks = max(1, ranks // (config.get("sequence_parallel_size") or 1))
    batch, micro, accumulation = (config.get(key) for key in configs.BATCH_KEYS)
    if batch and micro:
        accumulation = accumulation or batch // micro // ranks
    accumulation = accumulation or 1
    micro = micro or batch // ranks // accumulation
    batch = batch or micro * accumulation * ranks
    return dict(zip(configs.BATCH_KEYS, (batch, micro, accumulation), strict=True))


def _plain(value: Any, known: Any) -> Any:
    """A copy without comments."""
    if not isinstance(value, dict):
        return value
    keys = known.keys if isinstance(known, config_keys.Section) else {}
    return {key: _plain(each, keys.get(key)) for key, each in value.items()
            if key in keys or not keys or not configs.is_comment(key)}


def _section(model: Any, given: dict[str, Any], defaults: tuple[str, ...], path: str,
             notes: dict[str, str]) -> dict[str, Any]:
    """A section that DeepSpeed reads with a pydantic model: the file's keys, renamed; then ``defaults``."""
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python

    fields = type(model).model_fields
    written = {name: each.alias or name for name, each in fields.items()}
    names = {alias: name for name, alias in written.items()} | {name: name for name in fields}
    found: dict[str, Any] = {}
    for key in [*given, *defaults]:
        name = names[key]
        renamed = fields[name].json_schema_extra or {}
        if renamed.get("deprecated"):
            if not renamed.get("set_new_param", True):
                continue
            name = renamed["new_param"]
        here = f"{path}.{written[name]}"
        if written[name] in found:
            continue
        if key not in given:
            notes[here] = "default"
        elif renamed.get("deprecated"):
            notes[here] = f"was {key}"
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            inner = given[key] if isinstance(given.get(key), dict) else {}
            inner = {"device": None} if renamed.get("deprecated") else inner
            more = OFFLOAD_DEFAULTS[value.device] if name.startswith("offload_") else ()
            value = _section(value, inner, more, here, notes)
        found[written[name]] = to_jsonable_python(value)
    return found


def _precision(u: Understood, read: Any) -> None:
    if read.float16_config.enabled:
        dynamic = read.float16_config.loss_scale == 0
        for key in SCALE_DEFAULTS if dynamic else SCALE_DEFAULTS[:1]:
            u.add(f"fp16.{key}", getattr(read.float16_config, key))
    elif not read.bfloat16_config.enabled:
        u.add("bf16.enabled", False, "default: all is fp32")
    elif read.zero_optimization_stage in (1, 2):
        u.add("bf16.check_grad_overflow", read.bfloat16_config.check_grad_overflow)


def _zero(u: Understood, read: Any, config: dict[str, Any]) -> None:
    given = config.get("zero_optimization") or {}
    stage = int(read.zero_config.stage)
    u.config["zero_optimization"] = _section(
        read.zero_config, given if isinstance(given, dict) else {}, ZERO_DEFAULTS[1 if stage == 2 else stage],
        "zero_optimization", u.notes)
    if isinstance(given, bool):
        u.notes["zero_optimization.stage"] = f"was \"zero_optimization\": {_json(given)}"
        if "allgather_size" in config:
            size = int(config["allgather_size"])
            u.add("zero_optimization.allgather_bucket_size", size, "was allgather_size")
    if u.offload("optimizer") != "none":
        u.add("zero_force_ds_cpu_optimizer", True)
        if not u.get("zero_optimization.contiguous_gradients") and stage < 3:
            u.notes["zero_optimization.contiguous_gradients"] = "taken as true: offload needs it"
    if u.get("zero_optimization.stage3_allgather_sequential") and stage == 3:
        u.notes["zero_optimization.stage3_prefetch_bucket_size"] = "taken as 1: gathering is sequential"


def _optimizer(u: Understood) -> None:
    """Names the class that DeepSpeed makes, and adds the defaults of its arguments."""
    name = config_trial.optimizer_name(u.config)
    if name is None:
        return
    params = u.config["optimizer"]["params"] = dict(u.config["optimizer"].get("params") or {})
    where = (u.get("zero_optimization.offload_optimizer") or {}).get("device", "none")
    if name in ("adam", "adamw", "muon"):
        u.add("optimizer.params.torch_adam", False, "default: compiled on first use")
        u.add("optimizer.params.adam_w_mode", True)
    form = "AdamW" if name == "adamw" or params.get("adam_w_mode") else "Adam"
    if form == "AdamW" and not params.get("adam_w_mode", True):
        u.notes["optimizer.params.adam_w_mode"] = "no effect: \"AdamW\" stays AdamW"
    kind = config_trial.optimizer_class("adamw" if name == "muon" else name, params, where != "none")
    if kind is None:
        u.made = f"{u.config['optimizer']['type']}, from another package"
        return
    ours = kind.__module__.startswith("deepspeed")
    u.made = kind.__name__ if ours else f"torch.optim.{kind.__name__}"
    if kind.__name__ in ("FusedAdam", "DeepSpeedCPUAdam"):
        u.made += f" as {form}"
    if name == "muon":
        u.made = f"Muon for matrices, {u.made} for the rest"
        return
    for key, argument in inspect.signature(kind.__init__).parameters.items():
        plain = isinstance(argument.default, int | float | tuple) and not isinstance(argument.default, bool)
        if key in ARGUMENTS and plain:
            default = argument.default
            u.add(f"optimizer.params.{key}", list(default) if isinstance(default, tuple) else default)


def _scheduler(u: Understood) -> None:
    import torch
    from deepspeed.runtime import lr_schedules

    name = u.get("scheduler.type")
    if name is None:
        return
    kind = getattr(lr_schedules, name, None) or getattr(torch.optim.lr_scheduler, name)
    for key, argument in inspect.signature(kind.__init__).parameters.items():
        if isinstance(argument.default, int | float | str) and not key.startswith("last_"):
            u.add(f"scheduler.params.{key}", argument.default)
    if u.get("scheduler.params.warmup_num_steps") == 1:
        u.notes["scheduler.params.warmup_num_steps"] = "taken as 2"


# --- Memory -------------------------------------------------------------------------------------


def memory(u: Understood, num_params: float, gpus: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Bytes for each rank, ``{row: {"GPU" or "host" or "disk": bytes}}``, and what to know about them.

    `labkit.plan.zero_states` with the widths that DeepSpeed 0.19 uses: fp32 training in stages 1 to 3
    keeps a second copy of the weights; offload keeps gradients on the host in fp32, beside a buffer.
    Raises ValueError for numbers that make no sense.
    """
    tensor = max(1, u.get("tensor_parallel.autotp_size") or 1)
    ranks, stage = max(1, gpus // tensor), u.stage
    kind = _precision_of(u)
    width = 4 if kind == "fp32" else 2
    halved = u.get("bf16.bf16_master_weights_and_grads") or u.get("fp16.fp16_master_weights_and_grads")
    master = 2 if halved else 4 if stage or width == 2 else 0
    optimizer = (config_trial.optimizer_name(u.config) or "AdamW").lower()
    moments = MOMENTS.get(optimizer, 8)
    if u.get("optimizer.params.momentum") and optimizer in ("sgd", "rmsprop"):
        moments += 4
    if u.get("bf16.bf16_optimizer_states"):
        moments /= 2
    sums = str(u.get("data_types.grad_accum_dtype") or kind)
    wide = width == 2 and sums.removeprefix("torch.") in ("fp32", "float32", "float")
    gradient = (6 if stage == 1 else 4) if wide else width
    states = plan.zero_states(num_params / tensor, ranks, stage, parameter_bytes=width,
                              gradient_bytes=gradient, optimizer_bytes=master + moments)
    rows = {"parameters": {"GPU": states.parameters}, "gradients": {"GPU": states.gradients},
            "optimizer": {"GPU": states.optimizer}, "gradient bucket": {"GPU": _bucket(u)}}
    places = {"cpu": "host", "nvme": "disk" if stage == 3 else "host"}
    where = u.offload("optimizer")
    if where != "none":
        share = u.get("zero_optimization.offload_optimizer.ratio", 1.0) if stage == 3 else 1.0
        adds_up = u.get("gradient_accumulation_steps") > 1  # stage 1 on the device, stage 2 on the host
        staged = (2 if halved else 4) + width + (width if stage == 2 and adds_up else 0)
        rows["gradients"] = {"GPU": states.gradients * (1 if stage == 1 and adds_up else 1 - share),
                             "host": num_params / tensor / ranks * share * staged}
        rows["optimizer"] = {"GPU": states.optimizer * (1 - share), places[where]: states.optimizer * share}
    if u.offload("param") != "none":
        rows["parameters"] = {places[u.offload("param")]: states.parameters}
    group = u.get("zero_optimization.zero_hpz_partition_size", 1)
    if stage == 3 and group > 1:
        rows["second copy"] = {"GPU": plan.hpz_bytes(num_params / tensor, group, parameter_bytes=width)}
    if not u.get("optimizer.type"):
        optimizer = "adam, as no optimizer is named"
    words = [f"Weights in {kind}; the optimizer ({optimizer}) keeps {master} bytes of weights and "
             f"{moments:g} of averages a parameter.",
             "Not counted: activations, layers that stage 3 gathers, temporary buffers, what CUDA and the "
             "allocator keep. GB are 1e9 bytes."]
    if tensor > 1:
        words.append(f"AutoTP of {tensor}: counted as if every parameter were cut.")
    return rows, words


def _precision_of(u: Understood) -> str:
    return "bf16" if u.get("bf16.enabled") else "fp16" if u.get("fp16.enabled") else "fp32"


def _bucket(u: Understood) -> float:
    """Bytes of the buffers in which gradients wait to be reduced."""
    offloaded = u.stage < 3 and u.offload("optimizer") != "none"
    if not (u.stage and (offloaded or u.get("zero_optimization.contiguous_gradients"))):
        return 0.0
    return plan.deepspeed_bucket_bytes(
        u.stage, u.get("zero_optimization.reduce_bucket_size", 0),
        "fp32" if _precision_of(u) == "fp32" else "bf16",
        overlap_comm=bool(u.get("zero_optimization.overlap_comm")))


def _memory_lines(u: Understood, num_params: float, gpus: int) -> Iterator[str]:
    rows, words = memory(u, num_params, gpus)
    places = [place for place in ("GPU", "host", "disk") if any(row.get(place) for row in rows.values())]
    rows = {name: row for name, row in rows.items() if sum(row.values())}
    rows["in all"] = {place: sum(row.get(place, 0) for row in rows.values()) for place in places}
    yield f"Memory for each of {gpus:,} ranks, {num_params / plan.GB:,.3g} B parameters, in GB"
    yield "  " + f"{'':16}" + "".join(f"{place:>10}" for place in places)
    for name, row in rows.items():
        yield "  " + f"{name:16}" + "".join(f"{row.get(place, 0) / plan.GB:>10,.3g}" for place in places)
    if rows["in all"].get("host") and gpus > 1:
        host = gpus * rows["in all"]["host"] / plan.GB
        words = [f"All {gpus:,} ranks on one machine need {host:,.3g} GB of its host memory.", *words]
    for each in words:
        yield from textwrap.wrap(each, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")


# --- Words --------------------------------------------------------------------------------------


def _optimizes(u: Understood, *places: str) -> bool:
    return u.offload("optimizer") in (places or ("cpu", "nvme"))


NEEDS: dict[str, tuple[Callable[[Understood], Any], str]] = {
    "ZeRO": (lambda u: u.stage >= 1, "only stages 1 to 3 use it"),
    "stages 1 and 2": (lambda u: u.stage in (1, 2), "only stages 1 and 2 use it"),
    "stage 3": (lambda u: u.stage == 3, "only stage 3 uses it"),
    "param offload": (lambda u: u.offload("param") != "none", "parameters are not offloaded"),
    "param nvme": (lambda u: u.offload("param") == "nvme", "parameters do not lie on a disk"),
    "optimizer offload": (_optimizes, "the optimizer is not offloaded"),
    "optimizer offload 3": (lambda u: _optimizes(u) and u.stage == 3, "only offload in stage 3 uses it"),
    "optimizer nvme": (lambda u: _optimizes(u, "nvme") and u.stage == 3,
                       "the optimizer does not lie on a disk"),
    "super offload": (lambda u: u.get("zero_optimization.offload_optimizer.super_offload"),
                      "super_offload is not on"),
    "any nvme": (lambda u: "nvme" in (u.offload("optimizer"), u.offload("param")) and u.stage == 3,
                 "nothing is offloaded to a disk"),
    "CPU Adam": (lambda u: "CPUAdam" in u.made, "the optimizer is no CPU Adam"),
    "bf16": (lambda u: u.get("bf16.enabled"), "bf16 is not enabled"),
    "fp16": (lambda u: u.get("fp16.enabled"), "fp16 is not enabled"),
    "dynamic scale": (lambda u: u.get("fp16.enabled") and not u.get("fp16.loss_scale"),
                      "only fp16 with loss_scale 0 uses it"),
    "autocast": (lambda u: u.get("torch_autocast.enabled"), "torch_autocast is not enabled"),
    "profiler": (lambda u: u.get("flops_profiler.enabled"), "the profiler is not enabled"),
    "info": (lambda u: str(u.get("log_level")).lower() in ("info", "debug"),
             "it logs at level info, and without \"log_level\": \"info\" only warnings show"),
    "AutoTP": (lambda u: (u.get("tensor_parallel.autotp_size") or 0) > 1, "autotp_size is not above 1"),
}
"""``needs`` of config_words.toml → (whether it holds, what to say where it does not)."""


def known_path(path: str, key: str) -> str:
    """The path of a key; DeepSpeed also takes stage 3's keys without their ``stage3_``."""
    here, alias = f"{path}.{key}".lstrip("."), f"{path}.stage3_{key}"
    return alias if here not in WORDS and alias in WORDS else here


def sentence(path: str, value: Any, u: Understood) -> tuple[str, str]:
    """(what the value at ``path`` of a file does, the place in the course); both empty without words."""
    words = WORDS.get(path, {})
    key = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else _json(value)
    text = words.get("says") or words.get(key) or words.get("other") or words.get(_json(bool(value)), "")
    bucket = f", in {_bucket(u) / plan.GB:.3g} GB that are allocated whole, however small the model"
    batch, micro, accumulation = (u.get(key) for key in configs.BATCH_KEYS)
    said = text.format(v=_said(value), micro=micro, accumulation=accumulation, made=u.made,
                        ranks=_ranks(batch // micro // accumulation), shards=f"ranks (here {u.ranks})",
                        bucket=bucket if _bucket(u) else "")
    need = words.get("needs")
    if need == "enabled":  # of its own section
        holds, why = u.get(f"{path.rpartition('.')[0]}.enabled"), "it is not enabled"
    elif need:
        test, why = NEEDS[need]
        holds = test(u)
    if need and not holds:
        said = f"No effect here: {why}."
    return said, words.get("place", "")


def _ranks(number: int) -> str:
    return f"{number:,} rank{'s' if number > 1 else ''}"


def _said(value: Any) -> str:
    """A value inside a sentence: 500,000,000 and not 5e8."""
    if isinstance(value, int | float) and value >= 1000 and value == int(value):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _explained(section: dict[str, Any], u: Understood, path: str = "", depth: int = 0,
               around: str = "") -> Iterator[str]:
    """Lines: each key of the file with its value, the place on the right, the sentence below."""
    for key, value in section.items():
        here = known_path(path, key)
        inner = isinstance(value, dict) and any(known.startswith(here + ".") for known in WORDS)
        said, place = sentence(here, u.get(here, value), u)
        head = "  " * depth + (key if inner else f"{key}: {textwrap.shorten(_json(value), 90 - len(key))}")
        shown = "" if place == around else place
        if len(head) + len(shown) + 2 > WIDTH:
            said, shown = f"{said} ({shown})", ""
        yield f"{head}{shown:>{WIDTH - len(head)}}".rstrip()
        margin = "  " * depth + "    "
        yield from textwrap.wrap(said, WIDTH, initial_indent=margin, subsequent_indent=margin)
        if inner:
            yield from _explained(value, u, here, depth + 1, place or around)


def _noted(value: Any, notes: dict[str, str], path: str = "", depth: int = 0, end: str = "") -> Iterator[str]:
    """JSON with the notes behind it as comments, which DeepSpeed's reader allows."""
    if not isinstance(value, dict) or not value:
        yield f"{_json(value)}{end}"
        return
    yield "{"
    for number, (key, each) in enumerate(value.items(), 1):
        here = f"{path}.{key}".lstrip(".")
        comma = "," if number < len(value) else ""
        first, *rest = _noted(each, notes, here, depth + 1, comma)
        line = "  " * (depth + 1) + f"{_json(key)}: {first}"
        if here in notes and len(f"{line:56}  // {notes[here]}") > WIDTH:
            yield "  " * (depth + 1) + f"// {notes[here]}:"
            yield line
        else:
            yield f"{line:56}  // {notes[here]}" if here in notes else line
        yield from rest
    yield "  " * depth + "}" + end


def report(config: dict[str, Any], name: str, ranks: int, *, num_params: float | None = None,
           gpus: int | None = None, here: list[str] | None = None) -> str:
    """All that `labkit config` prints. ``here``: sentences about what this machine cannot do."""
    u = understand(config, ranks)
    batch, micro, accumulation = (u.config[key] for key in configs.BATCH_KEYS)
    head = (f"batch {batch:,} = micro-batch {micro:,} × accumulation {accumulation:,} × "
            f"{_ranks(batch // micro // accumulation)}; {_precision_of(u)}; ZeRO stage {u.stage}; {u.made}")
    lines = [f"{name} on {_ranks(ranks)}", *textwrap.wrap(head, WIDTH), ""]
    lines += _explained(config, u)
    if num_params is not None:
        lines += ["", *_memory_lines(u, num_params, gpus or ranks)]
    lines += ["", "As DeepSpeed understands it, with the defaults that matter:", *_noted(u.config, u.notes)]
    for each in here or ():
        lines += ["", *textwrap.wrap(f"On this machine it would not run: {each}", WIDTH)]
    return "\n".join(lines)


def check(config: dict[str, Any], ranks: int, *, where: str) -> list[str]:
    """Refuse a file with faults (UserError); return those that only this machine has, such as no fp16."""
    found = configs.faults(config, ranks)
    if found:
        with contextlib.suppress(Exception):  # a file that cannot be read at all has other faults
            here = list(config_trial.device_faults(configs.read(config)))
            if all(fault in here for fault in found):
                return here
        configs.check(config, ranks, where=where)
    return []
