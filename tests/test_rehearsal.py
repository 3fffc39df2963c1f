"""What DeepSpeed finds out only by training is found on one rank, in one sentence."""

import pytest

from labkit import configs, env, rehearsal

BASE = {"train_batch_size": 16, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}}


@pytest.mark.parametrize("name, change, words", [
    ("two settings that do not go together", {"zero_optimization": {"stage": 2}, "prescale_gradients": True},
     "pre-scale gradients is not yet supported"),
    ("a mix of types", {"data_types": {"grad_accum_dtype": "bf16"}}, "unsupported mix"),
])
def test_a_fault_that_only_training_shows(name, change, words):
    assert configs.faults(BASE | change, 1) == []  # else the rehearsal would not be needed
    with pytest.raises(env.UserError, match=words) as error:
        rehearsal.rehearse(BASE | change, where="mine.json")
    assert str(error.value).startswith("mine.json: DeepSpeed cannot train with it: ")
    assert "\n" not in str(error.value)


def test_a_sound_file_trains_and_leaves_nothing(tmp_path):
    config = BASE | {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True},
                     "csv_monitor": {"enabled": True, "output_path": str(tmp_path)},
                     "tensor_parallel": {"autotp_size": 2}}
    rehearsal.rehearse(config, where="mine.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_leaves_the_optimizer_to_the_script_is_tried_with_one():
    rehearsal.rehearse({"train_batch_size": 2, "zero_optimization": {"stage": 2}}, where="mine.json")
