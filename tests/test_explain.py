"""labkit config: every key has words, the words are DeepSpeed's truth, the understood file reads the same."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest

from labkit import config_keys, configs, env, explain, plan, ranks
from labkit.cli import main

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import this file

AS_A_WHOLE = ("compile", "hybrid_engine", "autotuning", "weight_quantization", "expert_parallel",
              "data_efficiency", "comet", "checkpoint.writer", "zero_optimization.zenflow",
              "zero_optimization.leaf_module", "tensor_parallel.tp", "tensor_parallel.tensor_parallel")
"""Sections whose keys have no words of their own."""
READ_ELSEWHERE = {"data_parallel_size", "allgather_size", "bfloat16"}
"""Keys with words that are not in the schema, or stand there under another name."""

ADAMW = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}
BASE = {"train_micro_batch_size_per_gpu": 2, "optimizer": ADAMW}
CPU = {"device": "cpu"}


def zero(stage, **keys):
    return {"zero_optimization": {"stage": stage, **keys}}


FILES = {
    "nothing": {"train_batch_size": 8},
    "plain Adam": {"train_batch_size": 8, "optimizer": {"type": "Adam", "params": {"lr": 1e-3}}},
    "really Adam": {"train_batch_size": 8, "optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}},
    "SGD": {"train_batch_size": 16, "optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}}},
    "no params": {"train_batch_size": 16, "optimizer": {"type": "AdamW"}},
    "three numbers": {**BASE, "train_batch_size": 12, "gradient_accumulation_steps": 3},
    "micro and batch": {**BASE, "train_batch_size": 24},
    "sequence parallel": {**BASE, "sequence_parallel_size": 2},
    "bf16 ZeRO-1": {**BASE, "bf16": {"enabled": True}, **zero(1, overlap_comm=True)},
    "old bfloat16": {**BASE, "bfloat16": {"enabled": True}},
    "nulls": {**BASE, "bf16": None, "aio": None, **zero(2, offload_optimizer=None)},
    "old true": {**BASE, "zero_optimization": True, "allgather_size": 1e6},
    "old false": {**BASE, "zero_optimization": False},
    "old names": {**BASE, **zero(3, cpu_offload=True, cpu_offload_param=True, cpu_offload_use_pin_memory=True,
                                 stage3_gather_fp16_weights_on_model_save=True)},
    "old name, off": {**BASE, **zero(2, cpu_offload=False)},
    "names without stage3_": {**BASE, **zero(3, prefetch_bucket_size=10, param_persistence_threshold=0)},
    "text for numbers": {**BASE, **zero("2", reduce_bucket_size=2e8)},
    "offload": {**BASE, "gradient_accumulation_steps": 4, **zero(
        2, offload_optimizer=CPU, contiguous_gradients=False)},
    "Adam on the host": {"train_batch_size": 8, "optimizer": {"type": "Adam", "params": {}},
                         **zero(2, offload_optimizer={"device": "cpu", "pin_memory": False})},
    "Lion on the host": {"train_batch_size": 8, "optimizer": {"type": "Lion", "params": {"lr": 1e-4}},
                         **zero(3, offload_optimizer=CPU, offload_param=CPU)},
    "schedule": {**BASE, "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}}},
    "cosine": {**BASE, "scheduler": {"type": "WarmupCosineLR", "params": {"total_num_steps": 99}}},
    "one cycle": {**BASE, "scheduler": {
        "type": "OneCycle", "params": {"cycle_min_lr": 0, "cycle_max_lr": 1, "cycle_momentum": False}}},
    "torch's schedule": {**BASE, "scheduler": {"type": "StepLR", "params": {"step_size": 3}}},
    "comments inside": {**BASE, "activation_checkpointing": {"_why": "memory", "cpu_checkpointing": True}},
    "fp16, off": {**BASE, "fp16": {"enabled": False, "loss_scale": 128}, **zero(1)},
    "the rest": {**BASE, "flops_profiler": {"enabled": True}, "comms_logger": {"prof_all": True},
                 "csv_monitor": {"enabled": True, "output_path": "x"},
                 "checkpoint": {"tag_validation": "Fail"},
                 "timers": {"throughput": {"enabled": False}}, "data_types": {"grad_accum_dtype": "fp32"},
                 "torch_autocast": {"enabled": True, "dtype": "bfloat16"}, "pipeline": {"stages": 2},
                 "communication_data_type": "fp32", "dump_state": False, "vocabulary_size": 64,
                 "tensor_parallel": {"autotp_size": 1}, "compile": {"debug_log": False}},
}


@pytest.fixture(params=FILES)
def config(request):
    return FILES[request.param]


# --- Words --------------------------------------------------------------------------------------


def paths(section, path=""):
    """Every key that the installed DeepSpeed reads, whole sections as one."""
    for key, inner in section.keys.items():
        here = explain.known_path(path, key)
        yield here
        if isinstance(inner, config_keys.Section) and here not in AS_A_WHOLE:
            yield from paths(inner, here)


def known():
    from deepspeed.runtime.config import _REMOVED_TOP_LEVEL_CONFIG_KEYS

    return [path for path in paths(config_keys.schema()) if path not in _REMOVED_TOP_LEVEL_CONFIG_KEYS]


def test_every_key_that_deepspeed_reads_has_words():
    missing = [path for path in known() if path not in explain.WORDS and not path.startswith("bfloat16.")]
    assert not missing


def test_words_are_of_keys_that_deepspeed_reads():
    there = set(known()) | READ_ELSEWHERE
    assert not [path for path in explain.WORDS if path not in there and ".params." not in path]


def test_optimizer_and_schedule_arguments_exist():
    import inspect

    import torch
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
    from deepspeed.runtime import lr_schedules

    from labkit.config_trial import MUON_KEYS

    def arguments(*kinds):
        return {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}

    optimizers = torch.optim.AdamW, torch.optim.SGD, FusedAdam, DeepSpeedCPUAdam
    schedules = (getattr(lr_schedules, name) for name in lr_schedules.VALID_LR_SCHEDULES)
    taken = {"optimizer": arguments(*optimizers) | MUON_KEYS, "scheduler": arguments(*schedules)}
    for path in explain.WORDS:
        section, _, key = path.partition(".params.")
        assert not key or key in taken[section], path


def test_every_sentence_can_be_said():
    u, there = explain.understand(FILES["bf16 ZeRO-1"], 2), known()
    for path, words in explain.WORDS.items():
        listed = {key for key in words if key not in ("says", "place", "needs")}
        assert ("says" in words) != bool(listed), path
        values = [json.loads(key) if re.fullmatch(r"\d+|true|false|null", key) else key
                  for key in listed - {"other"}]
        if listed <= {"true", "false"}:
            assert not listed or listed == {"true", "false"}, path
            values += [0, 1, None]
        elif "other" in listed:
            values += [2, 0.5, 10**9, "text", None, [1]]
        if path in there:
            values.append(config_keys.default(path))
        for value in values:
            said, place = explain.sentence(path, value, u)
            assert said or path.endswith(".params"), (path, value)
            assert "{v" not in said and place == words.get("place", ""), (path, value)
    needs = {words["needs"] for words in explain.WORDS.values() if "needs" in words}
    assert needs == {*explain.NEEDS, "enabled"}


def headings():
    """``{"7.3": {"Optimizers", …}, "Lab 3": …, "A.1": …}`` from the notebooks and appendices."""
    texts = [cell["source"] for path in sorted((env.ROOT / "chapters").glob("*.ipynb"))
             for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"]
    texts += [path.read_text().splitlines() for path in (env.ROOT / "book").glob("appendix_*.md")]
    found, section = {}, ""
    for line in itertools.chain.from_iterable(texts):
        level = re.match(r"(#+) (.*?)(?: \([^)]*\))?\s*$", line)
        if level and len(level[1]) == 2:
            number = re.match(r"(Lab \d+|[A-Z\d]+\.\d+)", level[2])
            section = number[1] if number else ""
            found.setdefault(section, {level[2].removeprefix(section).lstrip(": ")})
        elif level:
            found[section].add(level[2]) if section else None
    return found


def test_every_place_exists():
    there = headings()
    assert len(there) > 20
    for path, words in explain.WORDS.items():
        section, _, title = re.fullmatch(r"(Lab \d+|\S+)( )(.*)|", words.get("place", "")).groups()
        assert not title or title in there[section], (path, words["place"])


# --- What the words say is so --------------------------------------------------------------------


def test_comms_logger_is_on_by_its_presence():
    read = configs.read({**BASE, "comms_logger": {"enabled": False}})
    assert read.comms_config.comms_logger_enabled
    assert not configs.read(BASE).comms_config.comms_logger_enabled


def test_datastates_is_on_unless_false():
    assert configs.read({**BASE, "datastates_ckpt": None}).datastates_config.enabled
    assert not configs.read({**BASE, "datastates_ckpt": False}).datastates_config.enabled


def test_progress_lines_are_below_the_level_that_shows():
    """log_dist, which steps_per_print uses, logs at INFO; DeepSpeed's logger shows WARNING and above."""
    import inspect
    import logging

    from deepspeed.utils import logging as deepspeeds

    assert inspect.signature(deepspeeds.log_dist).parameters["level"].default == logging.INFO
    maker = inspect.signature(deepspeeds.LoggerFactory.create_logger)
    assert maker.parameters["level"].default == logging.WARNING
    words, _ = explain.sentence("steps_per_print", 10, explain.understand({**BASE, "steps_per_print": 10}, 1))
    assert words.startswith("No effect here: it logs at level info")
    loud = explain.understand({**BASE, "steps_per_print": 10, "log_level": "info"}, 1)
    assert explain.sentence("steps_per_print", 10, loud)[0].endswith("every 10 steps.")


def test_the_profiler_turns_the_clocks_on():
    assert configs.read({**BASE, "flops_profiler": {"enabled": True}}).wall_clock_breakdown


@pytest.mark.parametrize("prescale, factor, sent", [(False, 1.0, 6.0), (False, 3.0, 2.0), (True, 3.0, 3.0)])
def test_prescale_and_predivide(monkeypatch, prescale, factor, sent):
    """On two ranks, a gradient of 6: what is handed to the all-reduce."""
    import torch
    from deepspeed.runtime import engine

    handed = []
    monkeypatch.setattr(engine.dist, "all_reduce", lambda tensor, group: handed.append(tensor.item()))
    stub = SimpleNamespace(flatten=lambda bucket: bucket[0].clone(), communication_data_type=torch.float32,
                           gradient_average=True, postscale_gradients=lambda: not prescale,
                           gradient_predivide_factor=lambda: factor)
    engine.DeepSpeedEngine.allreduce_bucket(stub, [torch.tensor([6.0])], None, dp_world_size=2)
    assert handed == [sent]


def test_the_first_two_updates_have_the_start_rate():
    import torch
    from deepspeed.runtime.lr_schedules import WarmupLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupLR(optimizer, warmup_min_lr=0.25, warmup_num_steps=4, warmup_type="linear")
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates[:2] == [0.25, 0.25] and rates[2] > 0.25


def test_hysteresis_counts_overflows(monkeypatch):
    from deepspeed.runtime.fp16 import loss_scaler

    monkeypatch.setattr(loss_scaler.dist, "get_rank", lambda: 0)
    scaler = loss_scaler.DynamicLossScaler(2.0**8, 1000, 1, 2, False)
    scales = []
    for _ in range(3):
        scaler.update_scale(overflow=True)
        scales.append(scaler.cur_scale)
    assert scales == [256, 128, 64]


def world(monkeypatch, size):
    from deepspeed.runtime import config as module

    monkeypatch.setattr(module.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(module.dist, "get_world_size", lambda *_: size)
    return module.DeepSpeedConfig


def test_the_batch_counts_tensor_parallel_ranks(monkeypatch):
    read = world(monkeypatch, 4)({**BASE, "tensor_parallel": {"autotp_size": 2}})
    assert read.train_batch_size == 2 * 4


@pytest.mark.parametrize("name, given, offloaded", [
    (name, {**torch_adam, **mode}, offloaded) for name in ("Adam", "AdamW")
    for torch_adam in ({}, {"torch_adam": True}) for mode in ({}, {"adam_w_mode": False})
    for offloaded in (False, True)])
def test_the_optimizer_that_deepspeed_makes(name, given, offloaded):
    from deepspeed.runtime.engine import DeepSpeedEngine

    made, params = [], {}

    class Recorder(DeepSpeedEngine):
        def __init__(self):
            self.zenflow, self.has_moe_layers, self.checkpoint_engine = None, False, None

        optimizer_params = staticmethod(lambda: {"lr": 1e-3, **given})
        optimizer_name = staticmethod(name.lower)
        zero_use_cpu_optimizer = staticmethod(lambda: offloaded)
        bf16_optimizer_states = staticmethod(lambda: False)
        destroy = __del__ = lambda self: None

        def get_optimizer_configuration(self, *args, **kwargs):
            kind, more = super().get_optimizer_configuration(*args, **kwargs)
            made.append(kind)
            return (lambda _, **all_params: params.update(all_params)), more

    Recorder()._configure_basic_optimizer([])
    config = {"train_batch_size": 2, "optimizer": {"type": name, "params": {"lr": 1e-3, **given}}}
    u = explain.understand(config | (zero(2, offload_optimizer=CPU) if offloaded else {}), 1)
    assert u.made.split(" as ")[0].removeprefix("torch.optim.") == made[0].__name__
    form = params.get("adam_w_mode", params.get("adamw_mode"))
    if form is not None:
        assert u.made.endswith("as AdamW" if form else "as Adam")


# --- The understood file --------------------------------------------------------------------------


def plain(value):
    """What a DeepSpeedConfig holds, comparable."""
    if hasattr(value, "model_dump"):
        old = {name for name, field in type(value).model_fields.items() if field.json_schema_extra}
        return {name: plain(each) for name, each in vars(value).items() if name not in old}
    if hasattr(value, "__dict__") and type(value).__module__.startswith("deepspeed"):
        return {key: plain(each) for key, each in vars(value).items()}
    return value


def test_the_understood_file_reads_the_same(config):
    u = explain.understand(config, 2)
    before, after = (plain(configs.read(each)) for each in (config, json.loads(json.dumps(u.config))))
    for found in (before, after):
        del found["_param_dict"], found["optimizer_params"], found["scheduler_params"]
        found["activation_checkpointing_config"].pop("_why", None)
    assert before == after
    assert configs.faults(u.config, 2) == configs.faults(config, 2) == []
    assert explain.understand(u.config, 2).config == u.config


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_batch_is_deepspeeds(monkeypatch, size):
    for name, config in FILES.items():
        if name in ("three numbers", "sequence parallel") and size != 2:
            continue
        u = explain.understand(config, size)
        with monkeypatch.context() as patch:
            read = world(patch, size)(dict(config))
        assert [u.config[key] for key in configs.BATCH_KEYS] == [
            getattr(read, key) for key in configs.BATCH_KEYS], name


def test_defaults_of_the_optimizers_arguments():
    u = explain.understand(FILES["no params"], 1)  # FusedAdam does not decay, torch's AdamW does
    assert u.config["optimizer"]["params"] == {"torch_adam": False, "adam_w_mode": True, "lr": 1e-3,
                                               "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0}
    config = {**FILES["no params"], "optimizer": {"type": "AdamW", "params": {"torch_adam": True}}}
    assert explain.understand(config, 1).config["optimizer"]["params"]["weight_decay"] == 0.01


def test_old_names_and_ignored_values_are_noted():
    u = explain.understand(FILES["old names"], 2)
    assert u.get("zero_optimization.offload_optimizer.device") == "cpu"
    assert u.get("zero_optimization.offload_param.device") == "cpu"
    assert u.notes["zero_optimization.offload_optimizer"] == "was cpu_offload"
    assert not [key for key in u.config["zero_optimization"] if key.startswith("cpu_") or "fp16" in key]
    assert explain.understand(FILES["old bfloat16"], 1).notes["bf16"] == "was bfloat16"
    offload = explain.understand(FILES["offload"], 1)
    assert offload.notes["zero_optimization.contiguous_gradients"].startswith("taken as true")
    assert offload.get("zero_force_ds_cpu_optimizer") is True


def test_the_defaults_that_matter_stand_there():
    u = explain.understand({"train_batch_size": 8, **zero(3)}, 2)
    assert u.config["gradient_clipping"] == 1.0 and u.notes["gradient_clipping"] == "default"
    assert u.get("bf16.enabled") is False and "fp32" in u.notes["bf16.enabled"]
    assert u.get("zero_optimization.overlap_comm") is True
    assert u.get("zero_optimization.stage3_param_persistence_threshold") == 100_000
    u = explain.understand({"train_batch_size": 8, **zero(1)}, 2)
    assert u.get("zero_optimization.overlap_comm") is False
    assert explain.understand({"train_batch_size": 8}, 2).get("zero_optimization.stage") == 0


# --- Memory -----------------------------------------------------------------------------------


def held(config, num_params=1, gpus=1):
    rows, _ = explain.memory(explain.understand(config, 1), num_params, gpus)
    return {what: sum(row.get(place, 0) for row in rows.values()) for what, place in
            (("GPU", "GPU"), ("host", "host"), ("disk", "disk"))}, rows


SMALL = {"reduce_bucket_size": 1, "stage3_param_persistence_threshold": 0}


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("stage", range(4))
def test_states_of_adam_are_those_of_the_plan(stage, dtype):
    config = {**BASE, **zero(stage, **SMALL), "bf16": {"enabled": dtype == "bf16"}}
    _, rows = held(config, 7e9, 8)
    expected = plan.deepspeed_states(7e9, 8, stage, dtype)
    assert rows["parameters"]["GPU"] == expected.parameters
    assert rows["optimizer"]["GPU"] == expected.optimizer
    # The plan counts after the step's last backward; stage 1 held whole gradients until then.
    width = 2 if dtype == "bf16" else 4
    assert rows["gradients"]["GPU"] == (7e9 * width if stage == 1 else expected.gradients)


def test_stages_below_three_use_no_disk_and_no_other_place_for_parameters():
    config = {**BASE, **zero(2, offload_optimizer={"device": "nvme", "nvme_path": "/x"}, offload_param=CPU)}
    everything, _ = held(config)
    assert everything["disk"] == 0 and everything["GPU"] >= 4
    config = {**BASE, **zero(3, offload_optimizer={"device": "nvme", "nvme_path": "/x"}, **SMALL)}
    assert held(config)[0]["disk"] == 12


def test_bucket_and_second_copy():
    _, rows = held({**BASE, "bf16": {"enabled": True}, **zero(2)})
    assert rows["gradient bucket"]["GPU"] == 1e9
    _, rows = held({**BASE, "bf16": {"enabled": True}, **zero(2, overlap_comm=True)})
    assert rows["gradient bucket"]["GPU"] == 2e9
    _, rows = held({**BASE, **zero(3, contiguous_gradients=False, zero_hpz_partition_size=2)}, 100, 4)
    assert rows["gradient bucket"]["GPU"] == 0 and rows["second copy"]["GPU"] == 200


def states(case, layers=16, size=64):
    """Bytes a parameter that lie in tensors after a backward pass, at their most, on this rank."""
    import gc

    import deepspeed
    import torch

    def tensors():
        gc.collect()
        found = {}
        for each in gc.get_objects():
            if isinstance(each, torch.Tensor):
                grad = each.grad if each.is_leaf else None
                for tensor in (each, grad) if grad is not None else (each,):
                    found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return sum(found.values())

    before, most, passes = tensors(), 0, 2 * case.get("gradient_accumulation_steps", 1)
    model = torch.nn.Sequential(*[torch.nn.Linear(size, size, bias=False) for _ in range(layers)])
    engine, *_ = deepspeed.initialize(model=model, config=json.loads(json.dumps(case)))
    x = torch.ones(1, size, dtype=next(engine.module.parameters()).dtype)
    for number in range(passes):
        engine.backward(engine(x).float().square().mean())
        if number >= passes // 2:  # the first step makes the optimizer's states
            most = max(most, tensors() - before)
        engine.step()
    engine.destroy()
    return most / (layers * size * size)


MEASURED = {
    "momentum, ZeRO-1": {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}},
                         "zero_allow_untested_optimizer": True, **zero(1, **SMALL)},
    "bf16 summed in fp32, ZeRO-2": {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"},
                                    **zero(2, **SMALL)},
    "offload, ZeRO-2, accumulation": {"bf16": {"enabled": True}, "gradient_accumulation_steps": 2,
                                      **zero(2, offload_optimizer=CPU, **SMALL)},
    "offload of both, ZeRO-3": {**zero(3, offload_optimizer=CPU, offload_param=CPU, **SMALL)},
}


@pytest.fixture(scope="module")
def pool():
    yield ranks.start(1, timeout=600)
    ranks.stop()


@pytest.mark.parametrize("case", MEASURED)
def test_memory_against_deepspeeds_tensors(pool, case):
    """On one rank device and host are the same memory, so the sum is compared."""
    config = {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0, "optimizer": ADAMW,
              **MEASURED[case]}
    everything, _ = held(config, 10**6)
    # On top: two buffers of the largest parameter, 1/16 of all, in at most 4 bytes; x and Adam's counters.
    more = pool.run(states, config)[0] - sum(everything.values()) / 10**6
    assert 0 <= more < 2 * 4 / 16 + 0.1


# --- The command -----------------------------------------------------------------------------------


def write(tmp_path, config):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(config))
    return path


def test_each_line_of_the_file_is_said_and_nothing_is_wider_than_100(tmp_path, capsys, config):
    assert main(["config", str(write(tmp_path, config)), "--params", "7e9", "--ranks", "2"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 100
    for key in config:
        assert re.search(rf"^{key}\b", said, re.M), key
    assert "Memory for each of 2 ranks" in said and "Not counted: activations" in said


def test_the_printed_file_can_be_read_by_deepspeed(tmp_path, capsys, config):
    assert main(["config", str(write(tmp_path, config)), "--ranks", "2"]) == 0
    said = capsys.readouterr().out
    copy = tmp_path / "copy.json"
    copy.write_text(said[said.index("\n{\n"):])
    assert configs.load(copy) == json.loads(json.dumps(explain.understand(config, 2).config))


def test_what_has_no_effect_is_said(tmp_path, capsys):
    config = {**BASE, **zero(2, stage3_prefetch_bucket_size=5, offload_param=CPU)}
    assert main(["config", str(write(tmp_path, config))]) == 0
    said = capsys.readouterr().out
    assert said.count("No effect here: only stage 3 uses it.") == 3  # the key, the section, its device


def test_a_fault_of_this_machine_alone_does_not_stop_it(tmp_path, capsys):
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().is_fp16_supported():
        pytest.skip("this machine computes in fp16")
    path = write(tmp_path, {**BASE, "fp16": {"enabled": True}})
    assert main(["config", str(path), "--params", "1e9"]) == 0
    said = capsys.readouterr().out
    assert "On this machine it would not run: asks for fp16" in said and "Weights in fp16" in said
    assert '"initial_scale_power": 16' in said


@pytest.mark.parametrize("arguments, words", [
    (["nowhere.json"], "nowhere.json"),
    ([__file__], "is not JSON"),
    (["{file}", "--gpus", "0"], "--gpus is 0: give a number of at least 1"),
    (["{file}", "--params", "nan"], "--params is nan"),
    (["{file}", "--ranks", "3"], "cannot be divided by 3 ranks"),
    (["{file}", "--size", "3"], "unknown argument '--size'"),
])
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, words):
    path = write(tmp_path, {"train_batch_size": 8})
    assert main(["config", *(each.format(file=path) for each in arguments)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_json_is_all_that_is_printed(tmp_path):
    """In a process of its own: DeepSpeed's logger keeps the stdout that it found."""
    path = write(tmp_path, FILES["old names"])
    labkit = Path(sys.executable).with_name("labkit")
    done = subprocess.run([labkit, "config", path, "--json", "--ranks", "2"],
                          capture_output=True, text=True, check=True, timeout=120)
    expected = explain.understand(FILES["old names"], 2).config
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))
