"""The check of a DeepSpeed file: what DeepSpeed would ignore, drop, or find out too late is said at once.

The sentences are held against DeepSpeed itself: a file that is accepted here makes an engine.
"""

import json
from pathlib import Path

import deepspeed
import pytest

from labkit import config_autos, config_keys, configs, env

BASE = {"train_batch_size": 16, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}}


def laid_over(base: dict, top: dict) -> dict:
    both = {key: laid_over(base[key], value) for key, value in top.items()
            if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return base | top | both


REFUSED = {  # a change of BASE → words that its one sentence must hold
    "misspelt at the top": ({"zero_optimisation": {"stage": 1}}, "ignore: did you mean 'zero_optimization'?"),
    "hyphens": ({"gradient-clipping": 1.0}, "did you mean 'gradient_clipping'?"),
    "belongs inside": ({"offload_optimizer": {"device": "cpu"}}, "belongs inside zero_optimization"),
    "belongs at the top": ({"zero_optimization": {"gradient_clipping": 1.0}}, "at the file's top level"),
    "belongs inside params": ({"optimizer": {"eps": 1e-8}}, "belongs inside optimizer.params"),
    "nothing like it": ({"zzz": 1}, "'zzz', which DeepSpeed would ignore: remove it"),
    "not suggested twice": ({"zero_optimization": {"stage": 1}, "memory_optimization": {}},
                            "'zero_optimization' is there already: remove it"),
    "turned on by its presence": ({"comms_logger": {"enabled": False}}, "whatever enabled says"),
    "a CUDA optimizer": ({"optimizer": {"type": "Lion", "params": {"torch_adam": None}}}, "CUDA kernel"),
    "a setting of fp16 in bf16": ({"bf16": {"enabled": True, "loss_scale": 0}}, "only fp16 scales its loss"),
    "no effect any more": ({"disable_allgather": True}, "no effect"),
    "misspelt in a model": ({"zero_optimization": {"overlap_com": True}}, "did you mean 'overlap_comm'?"),
    "misspelt two deep": ({"zero_optimization": {"stage": 3, "offload_param": {"devise": "cpu"}}},
                          "zero_optimization.offload_param has the key 'devise'"),
    "misspelt checkpointing": ({"activation_checkpointing": {"partition_activation": True}},
                               "did you mean 'partition_activations'?"),
    "misspelt data types": ({"data_types": {"grad_accum_type": "bf16"}}, "did you mean 'grad_accum_dtype'?"),
    "misspelt autocast": ({"torch_autocast": {"enable": True}}, "did you mean 'enabled'?"),
    "misspelt profiler": ({"flops_profiler": {"enable": True}}, "did you mean 'enabled'?"),
    "misspelt aio": ({"aio": {"thread_count": 1}}, "intra_op_parallelism"),
    "misspelt writer": ({"checkpoint": {"writer": {"kind": "fast"}}}, "writer has the key 'kind'"),
    "misspelt sampling": ({"data_efficiency": {"data_sampling": {"epochs": 2}}}, "data_sampling has the key"),
    "misspelt pipeline": ({"pipeline": {"activation_checkpoint_intervall": 1}}, "checkpoint_interval'?"),
    "misspelt timers": ({"timers": {"throughput": {"enable": False}}}, "did you mean 'enabled'?"),
    "text for a truth value": ({"wall_clock_breakdown": "false"}, "must be true or false, not 'false'"),
    "text for a number": ({"flops_profiler": {"profile_step": "2"}}, "must be a number, not '2'"),
    "text for a number without a default": ({"steps_per_print": "inf"}, "steps_per_print must be a number"),
    "text for the rate": ({"optimizer": {"params": {"lr": "3e-4"}}}, "the number 0.0003, without quotation"),
    "true for a section": ({"fp16": True}, 'fp16 must be an object such as {"enabled": true}, not true'),
    "a number for a section": ({"zero_optimization": 2}, 'such as {"stage": 1}, not 2'),
    "null for a section": ({"scheduler": None}, "scheduler must be an object"),
    "null for a number": ({"gradient_clipping": None}, "must be a number of at least 0, not null"),
    "stage 4": ({"zero_optimization": {"stage": 4}}, "stage is 4: must be one of 0, 1, 2, 3"),
    "unknown device": ({"zero_optimization": {"offload_optimizer": {"device": "gpu"}}},
                       "zero_optimization.offload_optimizer.device is 'gpu'"),
    "a truth value for a number": ({"zero_optimization": {"reduce_bucket_size": True}}, "would take for 1"),
    "a truth value for the stage": ({"zero_optimization": {"stage": True}}, "stage must be a number"),
    "auto for the rate": ({"optimizer": {"params": {"lr": "auto"}}}, '"auto" stands at optimizer.params.lr'),
    "auto in a model": ({"bf16": {"enabled": "auto"}}, '"auto" stands at bf16.enabled'),
    "auto for the batch": ({"train_batch_size": "auto"}, '"auto" stands at train_batch_size'),
    "removed optimizer": ({"optimizer": {"type": "OneBitAdam"}}, "was removed from DeepSpeed: take 'AdamW'"),
    "no such optimizer": ({"optimizer": {"type": "Adam8bit"}}, "none of DeepSpeed's optimizers nor torch's"),
    "torch's name in another case": ({"optimizer": {"type": "sgd"}}, "did you mean 'SGD'?"),
    "no such parameter": ({"optimizer": {"params": {"weightdecay": 0.1}}}, "did you mean 'weight_decay'?"),
    "clipping as a parameter": ({"optimizer": {"params": {"max_grad_norm": 1.0}}}, "gradient_clipping"),
    "a negative rate": ({"optimizer": {"params": {"lr": -1}}}, "Invalid learning rate"),
    "params without type": ({"optimizer": {"type": None}}, "no type"),
    "untested under ZeRO": ({"optimizer": {"type": "SGD", "params": {"torch_adam": None}},
                             "zero_optimization": {"stage": 1}}, '"zero_allow_untested_optimizer": true'),
    "no such schedule": ({"scheduler": {"type": "WarmupCosine", "params": {}}}, "'WarmupCosineLR'?"),
    "no such parameter of a schedule": ({"scheduler": {"type": "WarmupLR", "params": {"warmup_steps": 9}}},
                                        "did you mean 'warmup_num_steps'?"),
    "a schedule lacks its length": ({"scheduler": {"type": "WarmupDecayLR", "params": {}}},
                                     "no total_num_steps"),
    "torch's schedule under ZeRO": ({"scheduler": {"type": "StepLR", "params": {"step_size": 5}},
                                     "zero_optimization": {"stage": 1}}, "takes no optimizer that ZeRO"),
    "warm-up of 0": ({"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 0}}},
                     "positive integer"),
    "removed feature": ({"progressive_layer_drop": {"enabled": True}}, "has been removed"),
    "removed in ZeRO": ({"zero_optimization": {"mics_shard_size": 2}}, "MiCS"),
    "autotuning": ({"autotuning": {"enabled": True}}, "ends a run as soon as it has measured"),
    "inputs cast alone": ({"fp16": {"enabled": False, "auto_cast": True}}, "cast inputs and not the weights"),
    "the old name beside the new": ({"bf16": {"enabled": True}, "bfloat16": {"enabled": True}}, "keep bf16"),
    "missing monitor": ({"wandb": {"enabled": True}}, "pip install wandb"),
    "tensor-parallel ranks do not": ({"train_batch_size": 1, "tensor_parallel": {"autotp_size": 2}},
                                     "cannot be divided by 2 ranks"),
    "a batch of nothing": ({"train_batch_size": 0}, "a whole number of at least 1, not 0"),
    "half a batch": ({"train_batch_size": 16.5}, "a whole number of at least 1, not 16.5"),
    "accumulation": ({"gradient_accumulation_steps": 3}, "set it to 12 or 18"),
    "the equation": ({"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}, "--ranks 4"),
    "negative clipping": ({"gradient_clipping": -1}, "at least 0, not -1"),
}
ACCEPTED = {
    "BASE": {},
    "a comment": {"_comment": "two ranks", "//": "x"},
    "an empty section": {"flops_profiler": {}},
    "stage as text": {"zero_optimization": {"stage": "2"}},
    "the old boolean": {"zero_optimization": True, "allgather_size": 5e8},
    "bf16 null": {"bf16": None},
    "offload null": {"zero_optimization": {"stage": 1, "offload_optimizer": None}},
    "DeepSpeed's own auto": {"data_types": {"keep_in_fp32_modules": "auto"}},
    "fp16 off": {"fp16": {"enabled": False, "loss_scale": 0}},
    "untested, and allowed": {"optimizer": {"type": "SGD", "params": {"torch_adam": None}},
                              "zero_optimization": {"stage": 1}, "zero_allow_untested_optimizer": True},
    "SGD": {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "torch_adam": None}}},
    "DeepSpeed's own name in another case": {"optimizer": {"type": "adamw"}},
    "Adam with L2": {"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}},
    "deprecated names": {"zero_optimization": {"stage": 3, "stage3_gather_fp16_weights_on_model_save": True}},
    "a schedule of torch's": {"scheduler": {"type": "StepLR", "params": {"step_size": 5}}},
    "sequence-parallel ranks share a batch": {"train_batch_size": 1, "sequence_parallel_size": 2},
}


def changed(change: dict) -> dict:
    """BASE with a change laid over it; a parameter None is left out."""
    config = laid_over(BASE, change)
    params = config["optimizer"]["params"]
    return config | {"optimizer": config["optimizer"] | {
        "params": {key: value for key, value in params.items() if value is not None}}}


@pytest.mark.parametrize("name", REFUSED)
def test_a_fault_is_one_sentence(name):
    change, words = REFUSED[name]
    found = configs.faults(changed(change), 2)
    assert len(found) == 1 and words in found[0], found
    with pytest.raises(env.UserError, match=r"^mine\.json: "):
        configs.check(changed(change), 2, where="mine.json")


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_sound_file_is_accepted(name, tmp_path):
    path = tmp_path / "sound.json"
    path.write_text(json.dumps(changed(ACCEPTED[name])), encoding="utf-8")
    assert configs.faults(configs.load(path), 2) == []


def test_all_faults_come_at_once():
    config = BASE | {"train_batch_size": "auto", "gradient_clip": 1, "fp16": {"enabled": "auto"}}
    with pytest.raises(env.UserError) as error:
        configs.check(config, 2, where="hf.json")
    said = str(error.value)
    for words in ("hf.json has 2 faults", "train_batch_size, fp16.enabled", "'gradient_clipping'?"):
        assert words in said


READINGS = {
    "comments": '{ // two ranks\n "train_batch_size": 16, /* and */ # more\n}',
    "a trailing comma": '{"train_batch_size": 16,}',
    "a byte-order mark": '\ufeff{"train_batch_size": 16}',
    "a whole number with a point": '{"train_batch_size": 16.0}',
    "no braces": "train_batch_size: 16",
}


@pytest.mark.parametrize("name", READINGS)
def test_a_file_is_read_as_deepspeed_reads_it(name, tmp_path):
    path = tmp_path / "read.json"
    path.write_text(READINGS[name], encoding="utf-8")
    theirs = deepspeed.DeepSpeedConfig(str(path))
    assert configs.load(path) == {"train_batch_size": 16} == {"train_batch_size": theirs.train_batch_size}


UNREADABLE = {
    "a key twice": ('{"train_batch_size": 16, "train_batch_size": 8}', "may stand once"),
    "a key twice, deep": ('{"bf16": {"enabled": true, "enabled": false}}', "may stand once"),
    "no object": ("[1]", "must hold a JSON object"),
    "cut off": ('{"a": {"b": 1}', "line 1"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_deepspeed_cannot_read_is_told(name, tmp_path):
    text, words = UNREADABLE[name]
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(env.UserError, match=words):
        configs.load(path)
    with pytest.raises(Exception):  # noqa: B017, whatever DeepSpeed raises: it does not read it either
        deepspeed.DeepSpeedConfig(str(path))


def test_every_section_that_deepspeed_reads_is_known():
    """A section without keys would let every misspelling pass."""
    empty = [name for name, found in config_keys.schema().keys.items()
             if isinstance(found, config_keys.Section) and not found.keys]
    assert empty == []
    assert config_keys.default("gradient_clipping") == 1.0
    assert config_keys.default("zero_optimization.stage3_param_persistence_threshold") == 100_000
    assert config_keys.places("offload_optimizer") == ["zero_optimization"]


def leaves(tree: dict) -> list[str]:
    return [leaf for key, value in tree.items()
            for leaf in (leaves(value) if isinstance(value, dict) else [key])]


@pytest.mark.parametrize("key", leaves(config_keys.READ_LATER))
def test_keys_that_are_read_later_stand_in_deepspeeds_source(key):
    sources = Path(deepspeed.__file__).parent.rglob("*.py")
    assert any(f"'{key}'" in text or f'"{key}"' in text
               for text in (path.read_text(encoding="utf-8") for path in sources))


def test_auto_is_filled_in_as_the_trainer_does():
    config = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto",
              "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "bf16": {"enabled": "auto"},
              "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto",
                                                        "weight_decay": "auto"}},
              "scheduler": {"type": "WarmupDecayLR", "params": {
                  "total_num_steps": "auto", "warmup_min_lr": "auto", "warmup_max_lr": "auto",
                  "warmup_num_steps": "auto"}},
              "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "sub_group_size": "auto",
                                    "stage3_prefetch_bucket_size": "auto",
                                    "stage3_param_persistence_threshold": "auto"}}
    filled, values = config_autos.fill(config, 2, hidden_size=100, steps=50)
    assert values == {
        "train_batch_size": 16, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0, "bf16.enabled": False, "optimizer.params.lr": 5e-5,
        "optimizer.params.betas": [0.9, 0.999], "optimizer.params.eps": 1e-8,
        "optimizer.params.weight_decay": 0.0,
        "scheduler.params.total_num_steps": 50, "scheduler.params.warmup_min_lr": 0,
        "scheduler.params.warmup_max_lr": 5e-5, "scheduler.params.warmup_num_steps": 1,
        "zero_optimization.reduce_bucket_size": 10_000,
        "zero_optimization.stage3_prefetch_bucket_size": 9_000,
        "zero_optimization.stage3_param_persistence_threshold": 1_000,
        "zero_optimization.sub_group_size": 10**9}  # left by the Trainer: DeepSpeed takes its default
    assert configs.auto_keys(filled) == [] and configs.faults(filled, 2) == []
    assert config["train_batch_size"] == "auto"  # the reader's own is left alone


def test_auto_keeps_to_the_numbers_that_the_file_gives():
    filled, _ = config_autos.fill({"train_batch_size": 32, "train_micro_batch_size_per_gpu": "auto",
                                   "gradient_accumulation_steps": 2}, 4)
    assert filled["train_micro_batch_size_per_gpu"] == 4
    assert configs.faults(filled, 4) == []
