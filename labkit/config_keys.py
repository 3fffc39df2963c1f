"""Which keys the installed DeepSpeed reads, at every depth, and what it takes where a file is silent.

DeepSpeed reads its JSON in two ways. Some sections are pydantic models: an unknown key is refused,
but the value ``"auto"`` is dropped without a word. The others are read with ``dict.get``: whatever
is not asked for is ignored. The first kind is learnt from the models' fields, the second from
DeepSpeed itself, which reads a dictionary that takes notes.
"""

import functools
import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, get_args

READ_WITH_GET: dict[str, Any] = {
    "activation_checkpointing": {}, "flops_profiler": {}, "aio": {}, "data_types": {}, "torch_autocast": {},
    "autotuning": {"model_info": {}}, "checkpoint": {"writer": {}, "parallel_write": {}},
    "optimizer": {"type": "AdamW", "params": {}}, "scheduler": {"type": "WarmupLR", "params": {}},
    "expert_parallel": {"enabled": False},
    "data_efficiency": {"data_sampling": {"curriculum_learning": {}, "dynamic_batching": {}},
                        "data_routing": {"random_ltd": {}}},
}
"""Sections without a model, filled so far that DeepSpeed asks for all of their keys."""

READ_LATER: dict[str, Any] = {
    "pipeline": {"pipe_partitioned": True, "grad_partitioned": True, "activation_checkpoint_interval": 0,
                 "use_reentrant": True,  # runtime/pipe/engine.py
                 # DeepSpeed keeps these for the script, which gives them to PipelineModule or does not
                 "stages": "auto", "partition": "best", "seed_layers": False},
    "sequence_parallel_size": 1, "data_parallel_size": None,  # deepspeed/__init__.py, for the device mesh
    "data_efficiency": {
        "data_sampling": {
            "curriculum_learning": dict.fromkeys(("data_cluster_path", "curriculum_metrics")),
            "dynamic_batching": dict.fromkeys(("metrics_path", "max_tokens", "max_batch_size"))},
        "data_routing": {"random_ltd": dict.fromkeys(
            ("total_layer_num", "random_ltd_layer_num", "random_ltd_layer_id", "model_mask_name",
             "model_type", "hidden_state_order", "random_ltd_schedule", "layer_token_lr_schedule",
             "global_batch_size", "micro_batch_size"))}},  # runtime/data_pipeline/**
}
"""Keys that are asked for only when an engine or a data loader is made; tests hold them to the source."""


@dataclass(frozen=True)
class Key:
    """A key with a plain value. ``default`` is what DeepSpeed takes where the file is silent."""

    default: Any = None


@dataclass(frozen=True)
class Section:
    """A key that holds an object. ``model`` names DeepSpeed's pydantic model, if it has one."""

    keys: dict[str, "Key | Section"]
    model: str | None = None


class _Notes(dict):
    """A dictionary that remembers which keys it was asked for, and with which default."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__({key: _Notes(value) if isinstance(value, dict) else value
                          for key, value in values.items()})
        self.asked: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        self.asked[key] = default
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.setdefault(str(key), None)
        return super().__contains__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(super().get(key), _Notes):  # what DeepSpeed makes of a section is of no interest
            super().__setitem__(key, value)

    def keys(self) -> "_Notes":
        return self  # `key in config.keys()` takes a note too

    def __copy__(self) -> "_Notes":
        return self  # DeepSpeed copies the dictionary first; the notes must stay in one place

    def section(self) -> Section:
        plain = {key: Key(default) for key, default in self.asked.items()}
        inner = {key: value.section() for key, value in self.items() if isinstance(value, _Notes)}
        return Section(plain | inner)


@functools.cache
def schema() -> Section:
    """Everything that the installed DeepSpeed reads."""
    from deepspeed.runtime.config import DeepSpeedConfig

    notes = _Notes(READ_WITH_GET | {"train_batch_size": 1})
    with redirect_stdout(io.StringIO()):
        DeepSpeedConfig(notes)
    known = notes.section()
    known.keys.update(_models())
    _add(known, READ_LATER)
    for section in ("optimizer", "scheduler"):
        known.keys[section].keys["params"] = Key({})  # their keys are the class's arguments
    return known


def _models() -> dict[str, Section]:
    """The sections that DeepSpeed reads with a pydantic model."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.compile.config import CompileConfig
    from deepspeed.inference.config import WeightQuantConfig
    from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig
    from deepspeed.runtime.config import HybridEngineConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    models = {"zero_optimization": DeepSpeedZeroConfig, "fp16": DeepSpeedFP16Config,
              "bf16": DeepSpeedBF16Config, "bfloat16": DeepSpeedBF16Config,
              "comms_logger": CommsLoggerConfig, "tensorboard": TensorBoardConfig, "wandb": WandbConfig,
              "csv_monitor": CSVConfig, "comet": CometConfig, "compile": CompileConfig,
              "hybrid_engine": HybridEngineConfig, "tensor_parallel": TPTrainingConfig,
              "weight_quantization": WeightQuantConfig}
    found = {name: _of_model(model) for name, model in models.items()}
    return found | {"timers": Section({"throughput": _of_model(DeepSpeedThroughputTimerConfig)})}


def _of_model(model: type) -> Section:
    """A pydantic model's fields, under their names and their aliases."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    keys: dict[str, Key | Section] = {}
    for name, field in model.model_fields.items():
        inner = [kind for kind in (field.annotation, *get_args(field.annotation))
                 if isinstance(kind, type) and issubclass(kind, DeepSpeedConfigModel)]
        found = _of_model(inner[0]) if inner else Key(field.get_default(call_default_factory=True))
        keys |= dict.fromkeys(filter(None, (name, field.alias)), found)
    return Section(keys, model.__name__)


def _add(section: Section, more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            if not isinstance(section.keys.get(key), Section):
                section.keys[key] = Section({})
            _add(section.keys[key], value)
        else:
            section.keys[key] = Key(value)


def default(path: str) -> Any:
    """What DeepSpeed takes at a path such as ``zero_optimization.stage`` where the file is silent."""
    section: Any = schema()
    for key in path.split("."):
        section = section.keys.get(key) if isinstance(section, Section) else None
    return getattr(section, "default", None)


def places(name: str, section: Section | None = None, path: str = "") -> list[str]:
    """The paths of all sections that hold a key ``name``; the top level is ``""``."""
    section = section or schema()
    found = [path] if name in section.keys else []
    for key, inner in section.keys.items():
        if isinstance(inner, Section):
            found += places(name, inner, f"{path}.{key}".lstrip("."))
    return found


def model_path(model: str, section: Section | None = None, path: str = "") -> str | None:
    """The path of the section that DeepSpeed reads with the pydantic model of that name."""
    section = section or schema()
    if section.model == model:
        return path
    for key, inner in section.keys.items():
        if isinstance(inner, Section):
            found = model_path(model, inner, f"{path}.{key}".lstrip("."))
            if found:
                return found
    return None
