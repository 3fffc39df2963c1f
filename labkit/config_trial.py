"""What DeepSpeed would find out about a configuration only after every rank has started.

It makes the optimizer and the schedule that DeepSpeed would make (runtime/engine.py,
``_configure_basic_optimizer`` and ``_scheduler_from_config``), on one parameter, and asks this
device for what the file wants. Every function returns sentences; none raises.
"""

import contextlib
import difflib
import importlib.util
import inspect
import io
from collections.abc import Iterator
from typing import Any

REMOVED_OPTIMIZERS = {"onebitadam": "AdamW", "zerooneadam": "AdamW", "onebitlamb": "Lamb"}
"""DeepSpeed took its compressed optimizers out in 0.19; what to train with instead."""
MONITORS = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}
"""Section → the package it needs."""
ADAM_ONLY = {"adam_w_mode", "torch_adam", "fp32_optimizer_states"}
"""Parameters that DeepSpeed takes away before it makes an Adam."""
MUON_KEYS = {"lr", "momentum", "weight_decay", "ns_method", "betas", "eps", "muon_lr", "adam_lr"} | ADAM_ONLY
ELSEWHERE = {"max_grad_norm": "it is gradient_clipping, at the top of the file",
             "warmup_steps": "the name is warmup_num_steps", "total_steps": "the name is total_num_steps",
             "num_warmup_steps": "the name is warmup_num_steps", "max_lr": "the name is warmup_max_lr",
             "num_training_steps": "the name is total_num_steps", "min_lr": "the name is warmup_min_lr"}
"""Parameters under the name that another program gives them."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without DeepSpeed's warnings and prints on stdout: the ranks give them again."""
    from deepspeed.utils import logger

    level = logger.level
    logger.setLevel("ERROR")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def optimizer_name(config: dict[str, Any]) -> str | None:
    """The optimizer's type as DeepSpeed compares it: its own in lower case, torch's as written."""
    from deepspeed.runtime.config import DEEPSPEED_OPTIMIZERS

    name = (config.get("optimizer") or {}).get("type")
    return name.lower() if isinstance(name, str) and name.lower() in DEEPSPEED_OPTIMIZERS else name


def optimizer_class(name: str, params: dict[str, Any], offloaded: bool) -> type | None:
    """The class that DeepSpeed makes; None if it has none here.

    ``offloaded``: ZeRO keeps the optimizer on the CPU.
    """
    import torch
    from deepspeed.ops import adagrad, adam, lion

    if name in ("adam", "adamw"):
        if params.get("torch_adam"):
            adam_w = name == "adamw" or params.get("adam_w_mode", True)
            return torch.optim.AdamW if adam_w else torch.optim.Adam
        return adam.DeepSpeedCPUAdam if offloaded else adam.FusedAdam
    if name == "adagrad":
        return adagrad.DeepSpeedCPUAdagrad if offloaded else torch.optim.Adagrad
    if name == "lion":
        return lion.DeepSpeedCPULion if offloaded else lion.FusedLion
    return getattr(torch.optim, name, None)


def optimizer_faults(config: dict[str, Any], offloaded: bool, stage: int) -> list[str]:
    """What is wrong with the section ``optimizer``."""
    import torch
    from deepspeed.runtime.config import DEEPSPEED_OPTIMIZERS
    from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

    section = config.get("optimizer") or {}
    params = section.get("params") or {}
    name, written = optimizer_name(config), section.get("type")
    if name is None:
        return ["optimizer has params and no type, so DeepSpeed would make none: add \"type\": \"AdamW\""] \
            if params else []
    if not isinstance(name, str):
        return [f"optimizer.type must be a name such as \"AdamW\", not {written!r}"]
    if name.lower() in REMOVED_OPTIMIZERS:
        return [f"optimizer.type {written!r} was removed from DeepSpeed: take "
                f"{REMOVED_OPTIMIZERS[name.lower()]!r}"]
    real = [kind for kind in dir(torch.optim) if isinstance(getattr(torch.optim, kind), type)
            and issubclass(getattr(torch.optim, kind), torch.optim.Optimizer) and kind != "Optimizer"]
    if name not in DEEPSPEED_OPTIMIZERS and name not in real:
        near = [kind for kind in real if kind.lower() == name.lower()] or difflib.get_close_matches(
            name, [*real, "Lion", "Muon", "Lamb"], 1, 0.75)
        hint = ("take 'AdamW' with zero_optimization.offload_optimizer" if "cpuadam" in name.lower() else
                f"did you mean {near[0]!r}?" if near else
                "take AdamW, Adam, SGD, Lion, Muon or one of torch.optim")
        return [f"optimizer.type {written!r} is none of DeepSpeed's optimizers nor torch's: {hint}"]
    if name in ("muadam", "muadamw", "musgd") and not importlib.util.find_spec("mup"):
        return [f"optimizer.type {written!r} needs the package mup: pip install mup"]
    if name == "lamb" or (name == "lion" and not offloaded):
        return []  # CUDA kernels: device_faults
    if name == "muon":
        return [_unknown_parameter(key, sorted(MUON_KEYS)) for key in params if key not in MUON_KEYS]
    kind = optimizer_class(name, params, offloaded)
    taken = ADAM_ONLY if name in ("adam", "adamw") else set()
    faults = _parameter_faults(kind, {key: value for key, value in params.items() if key not in taken},
                               "optimizer", torch.nn.Parameter(torch.zeros(1)))
    if stage and kind not in ZERO_SUPPORTED_OPTIMIZERS and not config.get("zero_allow_untested_optimizer"):
        faults.append(f"ZeRO stage {stage} with optimizer {written!r} needs "
                      "\"zero_allow_untested_optimizer\": true at the top of the file")
    return faults


def schedule_faults(config: dict[str, Any], wrapped: bool) -> list[str]:
    """What is wrong with the section ``scheduler``.

    ``wrapped``: ZeRO, bf16 or fp16 puts an optimizer of DeepSpeed's around torch's.
    """
    import torch
    from deepspeed.runtime import lr_schedules

    section = config.get("scheduler") or {}
    name, params = section.get("type"), section.get("params") or {}
    if name is None:
        return ["scheduler has params and no type, so DeepSpeed would make none: add \"type\": "
                "\"WarmupLR\""] if params else []
    known = [*lr_schedules.VALID_LR_SCHEDULES, *torch.optim.lr_scheduler.__all__]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"take {', '.join(lr_schedules.VALID_LR_SCHEDULES)}"
        return [f"scheduler.type {name!r} is none of DeepSpeed's schedules nor torch's: {hint}"]
    kind = getattr(lr_schedules, name, None) or getattr(torch.optim.lr_scheduler, name)
    if "params" not in section:
        return [f"scheduler {name!r} has no params: give them, or {{}}"]
    if wrapped and not hasattr(lr_schedules, name):
        return [f"scheduler {name!r} is torch's and takes no optimizer that ZeRO, bf16 or fp16 has wrapped: "
                f"take one of {', '.join(lr_schedules.VALID_LR_SCHEDULES)}"]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    return _parameter_faults(kind, params, "scheduler", optimizer)


def _parameter_faults(kind: type, params: dict[str, Any], section: str, first: Any) -> list[str]:
    """What ``kind(first, **params)`` refuses, or takes and then trips over."""
    arguments = inspect.signature(kind.__init__).parameters
    known = [name for name in list(arguments)[2:]
             if arguments[name].kind is not inspect.Parameter.VAR_KEYWORD]
    faults = [_unknown_parameter(key, known, section) for key in params if key not in known]
    for key, value in params.items():
        if isinstance(value, str) and key in known and not isinstance(arguments[key].default, str):
            faults.append(f"{section}.params.{key} is the text {value!r}: write {_number(value)}")
    missing = [name for name in known if arguments[name].default is inspect.Parameter.empty
               and name not in params and arguments[name].kind is not inspect.Parameter.VAR_POSITIONAL]
    if missing and not faults:
        faults.append(f"{section}.params has no {missing[0]}, which {kind.__name__} needs")
    if faults:
        return faults
    if kind.__module__.startswith("deepspeed.ops"):  # making one would compile its kernel
        return _adam_value_faults(params, section)
    try:
        with quietly():
            kind([first] if section == "optimizer" else first, **params)
    except Exception as error:  # whatever a class says of its arguments
        return [f"{section} {kind.__name__}: {_first_line(error)}"]
    return []


def _adam_value_faults(params: dict[str, Any], section: str) -> list[str]:
    """DeepSpeed's own kernels check no value; torch's AdamW checks those they share."""
    import torch

    shared = {key: value for key, value in params.items() if key in ("lr", "betas", "eps", "weight_decay")}
    if "betas" in shared and not _two_numbers(shared["betas"]):
        return [f"{section}.params.betas must be two numbers, not {shared['betas']!r}"]
    if params.get("amsgrad"):
        return [f"{section}.params.amsgrad: DeepSpeed's Adam has no AMSGrad; add \"torch_adam\": true"]
    try:
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], **shared)
    except Exception as error:
        return [f"{section}: {_first_line(error)}"]
    return []


def device_faults(read: Any) -> Iterator[str]:
    """What only this machine cannot do. ``read`` is DeepSpeed's DeepSpeedConfig."""
    from deepspeed.accelerator import get_accelerator

    device = get_accelerator()
    if read.float16_config.enabled and not device.is_fp16_supported():
        yield "asks for fp16, which this device cannot compute in: use bf16 or fp32"
    if read.bfloat16_config.enabled and not device.is_bf16_supported():
        yield "asks for bf16, which this device cannot compute in: use fp32"
    for section, package in MONITORS.items():
        if getattr(read.monitor_config, section).enabled and not importlib.util.find_spec(package):
            yield f"{section} is enabled and the package {package} is not installed: pip install {package}"
    zero = read.zero_config
    if "nvme" in {part.device for part in (zero.offload_optimizer, zero.offload_param) if part}:
        from deepspeed.ops.op_builder import AsyncIOBuilder

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ready = AsyncIOBuilder().is_compatible(verbose=False)
        if not ready:
            yield "offloads to nvme, which needs libaio (Debian: apt install libaio-dev)"
    if device.device_name() != "cpu":
        return
    name, offload = str(read.optimizer_name), zero.offload_optimizer
    if name == "lamb" or (name == "lion" and not (offload and offload.device != "none")):
        yield (f"optimizer.type {name!r} is computed by a CUDA kernel, and this is a CPU: take "
               + ("lion with offload_optimizer, or AdamW" if name == "lion" else "AdamW"))
    for key in ("zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights"):
        if getattr(zero, key):
            yield f"zero_optimization.{key} needs a CUDA kernel, and this is a CPU: set it to false"
    if read.hybrid_engine.enabled:
        yield "hybrid_engine needs CUDA kernels, and this is a CPU: set its enabled to false"
    if read.compile_config.deepcompile:
        yield ("compile.deepcompile needs CUDA, and a script that calls engine.compile(); this is a CPU: "
               "set it to false")
    if offload and offload.super_offload:
        yield "super_offload needs a GPU, and this is a CPU: set it to false"


def _unknown_parameter(key: str, known: list[str], section: str = "optimizer") -> str:
    near = difflib.get_close_matches(key, known, 1, 0.7)
    hint = ELSEWHERE.get(key) if not near or key == "max_grad_norm" else f"did you mean {near[0]!r}?"
    return f"{section}.params has {key!r}, which it does not take: {hint or 'remove it'}"


def _number(text: str) -> str:
    try:
        return f"the number {float(text):g}, without quotation marks"
    except ValueError:
        return "a number"


def _two_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(
        isinstance(each, int | float) for each in value)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
