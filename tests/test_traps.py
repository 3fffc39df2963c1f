"""Traps of DeepSpeed 0.19.8 that Appendix A.2 names: each is sprung on real ranks, its cure beside it.

A test here fails when a later DeepSpeed mends the trap: then the book must change with it.
"""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import psutil
import pytest

from labkit import configs, env, ranks

APPENDIX = Path(__file__).resolve().parent.parent / "book" / "appendix_a_tools.md"
STAGES = range(4)
SGD = {"type": "SGD", "params": {"lr": 1.0}}
BF16 = {"bf16": {"enabled": True}}
UNMANAGED = {"managed_gradient_accumulation": False}
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import this file


@pytest.fixture(scope="module")
def pool():
    pool = ranks.Pool(2, timeout=120)
    yield pool
    pool.stop()


@pytest.fixture
def pool_to_spoil(pool):
    """The same ranks. They end afterwards, for what they leave behind; the next ``run`` starts fresh ones."""
    yield pool
    pool.stop()


# On the ranks. The model is y = w·x with w = 0, and the loss is y: a micro-batch's gradient is x itself.
# With SGD at a rate of 1 the weights tell, with the sign turned, what a step has counted.


def make_engine(stage, **more):
    import deepspeed
    import torch

    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    zero = {"stage": stage, "reduce_bucket_size": 10**4, "stage3_param_persistence_threshold": 0}
    config = {"train_micro_batch_size_per_gpu": 1, "gradient_clipping": 0.0, "optimizer": SGD,
              "zero_optimization": zero, "zero_allow_untested_optimizer": True, **more}
    engine, *_ = deepspeed.initialize(model=model, config=config)
    return engine


def whole(engine, writer=None):
    """All weights on every rank, also in stage 3; ``writer`` is the rank whose changes count."""
    import deepspeed

    weight = engine.module.weight
    return deepspeed.zero.GatheredParameters([weight], modifier_rank=writer, enabled=hasattr(weight, "ds_id"))


def counted(engine):
    """What the steps so far have counted: four numbers."""
    with whole(engine):
        return [-w for w in engine.module.weight.detach().float().flatten().tolist()]


def loss_of(engine, index, size=1.0):
    """The loss of a micro-batch. Its gradient, averaged over both ranks, is ``size`` at ``index``, else 0."""
    import torch
    import torch.distributed as dist

    x = torch.zeros(1, 4, dtype=engine.module.weight.dtype)
    x[0, index] = size * 2 * dist.get_rank()
    return engine(x).sum()


# Accumulation


def several_backwards_one_step(stage, more):
    engine = make_engine(stage, **more)
    for index in range(4):
        engine.backward(loss_of(engine, index) / 4)
    engine.step()
    return counted(engine)


def a_step_after_each_backward(stage):
    engine = make_engine(stage, gradient_accumulation_steps=4)
    for index in range(4):
        engine.backward(loss_of(engine, index))
        engine.step()
    return counted(engine)


@pytest.mark.parametrize("stage", STAGES)
def test_several_backwards_before_one_step_keep_the_last_in_stages_1_and_2(pool, stage):
    mean = [0.25] * 4
    kept = [0, 0, 0, 0.25] if stage in (1, 2) else mean
    assert pool.run(several_backwards_one_step, stage, {}) == [kept] * 2
    assert pool.run(several_backwards_one_step, stage, UNMANAGED) == [mean] * 2
    assert pool.run(a_step_after_each_backward, stage) == [mean] * 2


def step_every_second_time(stage, more):
    engine, seen = make_engine(stage, **more), []
    for index in range(4):
        engine.backward(loss_of(engine, index))
        if index % 2:
            engine.step()
        seen.append(counted(engine))
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_a_loop_that_counts_micro_batches_itself_accumulates_twice(pool, stage):
    two = {"gradient_accumulation_steps": 2}
    after_4 = [0, 0, 0, 0.5] if stage in (1, 2) else [0.5] * 4  # stages 1 and 2 lose the rest besides
    assert pool.run(step_every_second_time, stage, two) == [[[0] * 4] * 3 + [after_4]] * 2
    right = [[0] * 4, [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0.5] * 4]
    assert pool.run(step_every_second_time, stage, {**two, **UNMANAGED}) == [right] * 2


def two_epochs_of_six(stage):
    """The weights' change at each step of an accumulation of 4: {(epoch, micro-batch): change}."""
    engine, changes, before = make_engine(stage, gradient_accumulation_steps=4), {}, [0] * 4
    for epoch, size in enumerate((1.0, 10.0)):
        for index in range(6):
            engine.backward(loss_of(engine, index % 4, size))
            engine.step()
            now = counted(engine)
            if now != before:
                changes[epoch, index] = [a - b for a, b in zip(now, before, strict=True)]
            before = now
    return changes


def six_in_steps_of_its_own(stage):
    engine, seen = make_engine(stage, **UNMANAGED), []
    for part in (range(4), range(2)):
        for index in part:
            engine.backward(loss_of(engine, index) / len(part))
        engine.step()
        seen.append(counted(engine))
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_an_incomplete_last_accumulation_goes_into_the_next_epochs_first_step(pool, stage):
    mixed = [(1 + 10) / 4] * 2 + [0, 0]  # two micro-batches of the first epoch, two of the second
    steps = {(0, 3): [0.25] * 4, (1, 1): mixed, (1, 5): [2.5] * 4}
    assert pool.run(two_epochs_of_six, stage) == [steps] * 2
    assert pool.run(six_in_steps_of_its_own, stage) == [[[0.25] * 4, [0.75, 0.75, 0.25, 0.25]]] * 2


def accumulate_in_bf16(stage, more):
    """One gradient of 1 and 63 of 2⁻⁹; returns their sum as the step has counted it."""
    engine = make_engine(stage, gradient_accumulation_steps=64, **BF16, **more)
    for index in range(64):
        engine.backward(loss_of(engine, 0, 2.0**-9 if index else 1.0))
        engine.step()
    return counted(engine)[0] * 64


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_sums_its_micro_batches_in_bf16(pool, stage):
    assert pool.run(accumulate_in_bf16, stage, {}) == [1.0] * 2  # each small one is rounded away
    if stage:  # stage 0 refuses the key
        summed = pool.run(accumulate_in_bf16, stage, {"data_types": {"grad_accum_dtype": "fp32"}})
        assert summed == pytest.approx([1 + 63 * 2.0**-9] * 2, rel=2.0**-8)  # the weight itself is bf16


# Clipping


def clip_by_hand(stage, more):
    """(norm that torch's function finds, norm of the update, gradient as DeepSpeed hands it out)."""
    import torch
    from deepspeed.utils import safe_get_full_grad

    engine = make_engine(stage, **more)
    engine.backward(loss_of(engine, 0, 100.0))
    gradient = safe_get_full_grad(engine.module.weight).flatten().tolist() if stage else None
    found = torch.nn.utils.clip_grad_norm_(engine.module.parameters(), 1.0).item()
    engine.step()
    return found, counted(engine)[0], gradient


@pytest.mark.parametrize("stage", STAGES)
def test_torchs_clipping_finds_no_gradient_under_zero(pool, stage):
    if not stage:
        assert pool.run(clip_by_hand, stage, {}) == [(100, pytest.approx(1), None)] * 2
        return
    gradient = [100, 0, 0, 0]
    assert pool.run(clip_by_hand, stage, {}) == [(0, 100, gradient)] * 2
    asked = pool.run(clip_by_hand, stage, {"gradient_clipping": 1.0})
    assert asked == [(0, pytest.approx(1), gradient)] * 2


def clip_in_a_pipeline(clipping, more):
    """Norm of the update of this rank's stage; the gradients are large."""
    import io
    from contextlib import redirect_stdout

    import deepspeed
    import torch
    from deepspeed.pipe import LayerSpec, PipelineModule

    with redirect_stdout(io.StringIO()):
        module = PipelineModule([LayerSpec(torch.nn.Linear, 8, 8) for _ in range(4)], num_stages=2,
                                loss_fn=lambda y, target: 50 * (y - target).square().sum())
    torch.manual_seed(torch.distributed.get_rank())
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    config = {"train_batch_size": 2, "gradient_clipping": clipping, "optimizer": SGD,
              "zero_allow_untested_optimizer": True, **more}
    engine, *_ = deepspeed.initialize(model=module, config=config)
    before = torch.nn.utils.parameters_to_vector(module.parameters()).detach().float().clone()
    batch = torch.ones(2, 2, 8, dtype=before.dtype if not engine.bfloat16_enabled() else torch.bfloat16)
    engine.train_batch(iter([tuple(batch)]))
    after = torch.nn.utils.parameters_to_vector(module.parameters()).detach().float()
    engine.destroy()
    deepspeed.utils.groups.mpu = None  # or the next engine takes this pipeline's grid
    return (after - before).norm().item()


def test_a_pipeline_in_fp32_clips_by_the_norm_of_its_first_stage(pool):
    def norm(clipping, **more):
        first, last = pool.run(clip_in_a_pipeline, clipping, more)
        return first, (first**2 + last**2) ** 0.5

    first, total = norm(0.0)
    assert 1 < first < 0.9 * total
    assert norm(1.0) == pytest.approx((1, total / first), rel=1e-4)  # 1 was asked for the whole model
    zero1 = {"zero_optimization": {"stage": 1, "reduce_bucket_size": 10**4}}
    assert norm(1.0, **zero1) == pytest.approx((first / total, 1), rel=1e-4)
    assert norm(1.0, **BF16)[1] == pytest.approx(1, rel=2.0**-7)  # weights of 8 bits


# Weights and checkpoints


def change_weights_after_initialize(stage, more, refresh):
    """The first weight after it was set to 7, and after a step without any gradient."""
    import torch

    engine = make_engine(stage, **more)
    with whole(engine, writer=0), torch.no_grad():
        engine.module.weight.fill_(7.0)
    set_to = -counted(engine)[0]
    if refresh:
        engine.optimizer.refresh_fp32_params()
    engine.backward(loss_of(engine, 0, 0.0))
    engine.step()
    return set_to, -counted(engine)[0]


@pytest.mark.parametrize("more", [{}, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_weights_changed_after_initialize_are_back_after_one_step(pool, stage, more):
    master_copy = bool(stage or more)  # of the weights, from which the step writes them anew
    after = 0 if master_copy else 7
    assert pool.run(change_weights_after_initialize, stage, more, False) == [(7, after)] * 2
    if master_copy:
        assert pool.run(change_weights_after_initialize, stage, more, True) == [(7, 7)] * 2


def resume(folder, tag):
    import torch.distributed as dist

    engine = make_engine(2)
    engine.backward(loss_of(engine, 0))
    engine.step()
    engine.save_checkpoint(f"{folder}/there")
    dist.barrier()
    fresh = make_engine(2)
    missing = fresh.load_checkpoint(f"{folder}/elsewhere"), counted(fresh)
    try:
        fresh.load_checkpoint(f"{folder}/there", tag=tag)
        wrong_tag = None
    except AssertionError as error:
        wrong_tag = str(error)
    path, _ = fresh.load_checkpoint(f"{folder}/there")
    return missing, wrong_tag, Path(path).parent.name, counted(fresh)


def test_a_checkpoint_that_is_not_there_is_loaded_without_an_error(pool, tmp_path):
    for result in pool.run(resume, str(tmp_path), "no-such-tag"):
        assert result == (((None, None), [0] * 4), "", "global_step1", [1, 0, 0, 0])


# Configuration


def with_auto(more):
    """What the engine makes of it: (type of the weights, stage), or where it fails and how."""
    place = "initialize"
    try:
        engine = make_engine(more.pop("stage", 0), **more)
        place = "step"
        engine.backward(loss_of(engine, 0))
        engine.step()
        return str(engine.module.weight.dtype), engine.zero_optimization_stage()
    except TypeError:
        return place, "TypeError"


def test_deepspeed_drops_auto_or_fails_on_it(pool):
    def each(**more):
        config = {"train_micro_batch_size_per_gpu": 1, "optimizer": SGD, **more}
        config["zero_optimization"] = {"stage": config.pop("stage", 0)}
        if "auto" in json.dumps(config):
            with pytest.raises(env.UserError, match='"auto"'):
                configs.check(config, 2)
        (answer,) = set(pool.run(with_auto, more))
        return answer

    assert each(**BF16) == ("torch.bfloat16", 0)
    assert each(bf16={"enabled": "auto"}) == ("torch.float32", 0)
    assert each(stage="auto") == ("torch.float32", 0)
    assert each(stage=2) == ("torch.float32", 2)
    assert each(train_micro_batch_size_per_gpu="auto") == ("initialize", "TypeError")
    assert each(optimizer={"type": "SGD", "params": {"lr": "auto"}}) == ("initialize", "TypeError")
    assert each(gradient_clipping="auto") == ("step", "TypeError")


def test_the_trainer_fills_in_what_the_appendix_says():
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    box = APPENDIX.read_text("utf-8").split("(what-is-auto)=")[1].split("\n### ")[1]
    rows = re.findall(r"^\| (`.+?`) \| (.+?) \| .+ \|$", box, re.MULTILINE)
    given = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5, "world_size": 2,
             "max_grad_norm": 0.7, "learning_rate": 2e-4, "adam_beta1": 0.8, "adam_beta2": 0.91,
             "adam_epsilon": 1e-7, "weight_decay": 0.03, "warmup_steps": 11, "bf16": True, "fp16": False,
             "steps": 100, "h": 10}
    keys = [key for cell, _ in rows for key in re.findall("`(.+?)`", cell)]
    config = {"zero_optimization": {"stage": 3}}
    for key in keys:
        *sections, last = key.split(".")
        there = config
        for section in sections:
            there = there.setdefault(section, {})
        there[last] = "auto"
    arguments = SimpleNamespace(**given, save_on_each_node=False, fp16_full_eval=False, bf16_full_eval=False,
                                get_warmup_steps=lambda _: given["warmup_steps"])
    filled = HfTrainerDeepSpeedConfig(config)
    filled.trainer_config_process(arguments)
    filled.trainer_config_finalize(arguments, SimpleNamespace(config=SimpleNamespace(hidden_size=10)), 100)
    assert len(keys) == 17
    for cell, formula in rows:
        expected = eval(formula.replace("`", "").replace("×", "*").replace("²", "**2"), {}, given)
        for key in re.findall("`(.+?)`", cell):
            assert filled.get_value(key) == (list(expected) if isinstance(expected, tuple) else expected), key


def test_a_warm_up_of_no_steps_is_refused():
    import torch
    from deepspeed.runtime.lr_schedules import WarmupLR

    def rates(**more):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        schedule, seen = WarmupLR(optimizer, warmup_max_lr=0.5, **more), []
        for _ in range(4):
            seen.append(optimizer.param_groups[0]["lr"])
            schedule.step()
        return seen

    with pytest.raises(ValueError, match="warmup_num_steps must be a positive integer, got 0"):
        rates(warmup_num_steps=0)
    assert rates(warmup_num_steps=1) == [0, 0, 0.5, 0.5]
    assert rates(warmup_num_steps=1, warmup_min_lr=0.5) == [0.5] * 4


def test_adam_without_a_weight_decay_has_torchs_or_none():
    import inspect

    import torch
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

    decay = [inspect.signature(optimizer).parameters["weight_decay"].default
             for optimizer in (torch.optim.AdamW, FusedAdam, DeepSpeedCPUAdam)]
    assert decay == [0.01, 0, 0]


def test_a_hostfile_may_say_max_slots_after_slots_and_deepspeed_ignores_it():
    from deepspeed.launcher.runner import _parse_hostfile

    assert _parse_hostfile(["node1 slots=8 max_slots=2"]) == {"node1": 8}
    with pytest.raises(ValueError, match="bad entry: node1 max_slots=8 slots=8"):
        _parse_hostfile(["node1 max_slots=8 slots=8"])


# Starting; tensor parallelism


def test_gloo_says_which_interface_it_cannot_find(monkeypatch, tmp_path):
    import torch.distributed as dist

    def join(interface):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", interface)
        dist.init_process_group("gloo", init_method=f"file://{tmp_path / interface}", rank=0, world_size=1)
        dist.destroy_process_group()

    with pytest.raises(RuntimeError, match="Unable to find address for: nosuch0"):
        join("nosuch0")
    join(next(name for name in psutil.net_if_addrs() if name.startswith("lo")))


def autotp(case):
    """Output of a small AutoTP model on ``case``'s batch, the whole model's on it, or the error."""
    import deepspeed
    import torch
    from deepspeed.utils import groups
    from torch.utils.data import DistributedSampler

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    one, other = torch.randn(2, 2, 4)
    layers = [{"patterns": [r"^0\.weight$"], "partition_type": "column"},
              {"patterns": [r"^2\.weight$"], "partition_type": "row"}]
    config = {"train_micro_batch_size_per_gpu": 2, "gradient_clipping": 0.0, "optimizer": SGD,
              "tensor_parallel": {"autotp_size": 2, "partition_config": {
                  "use_default_specs": False, "layer_specs": layers}}}
    with torch.no_grad():
        right = model(one), model(other)
    engine, *_ = deepspeed.initialize(model=model, config=config)
    shares = {}  # every rank takes another part, as in data parallelism
    if case == "by data-parallel rank":
        shares = {"num_replicas": groups.get_data_parallel_world_size(),
                  "rank": groups.get_data_parallel_rank()}
    mine = next(iter(DistributedSampler(range(2), shuffle=False, **shares)))
    if case == "later":
        engine(one)
    try:
        with torch.no_grad():
            return (engine((one, other)[mine]) - right[mine]).abs().max().item()
    except AssertionError as error:
        return str(error)
    finally:
        engine.destroy()


def test_ranks_that_share_layers_must_read_the_same_batch_and_only_the_first_is_checked(pool_to_spoil):
    said = pool_to_spoil.run(autotp, "all ranks")
    assert all(re.match("Data inconsistency within the TP group", text) for text in said)
    assert max(pool_to_spoil.run(autotp, "by data-parallel rank")) < 1e-6
    assert min(pool_to_spoil.run(autotp, "later")) > 0.01  # no error, and wrong numbers
