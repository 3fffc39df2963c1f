"""Lab 6's backbone: its batches, a pre-training that is stopped and goes on, and the long one's record."""

import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit.env import UserError
from labkit.launch import find_lab

LAB = find_lab("lab06")
sys.path.insert(0, str(LAB))
import pretrain  # noqa: E402
from code_hash import code_hash  # noqa: E402

TOKENS = torch.arange(5, 5 + 40 * pretrain.CONTEXT)


def test_a_continued_row_predicts_each_next_token_from_those_before():
    inputs, targets, mask = pretrain.batch(TOKENS, 3)
    rows = slice(pretrain.FILLED, None)
    assert torch.equal(inputs[rows, 1:], targets[rows, :-1])
    assert torch.equal(inputs[rows] + 1, targets[rows])
    allowed = mask[rows] == 0
    assert torch.equal(allowed, torch.ones_like(allowed).tril())


def test_a_filled_row_hides_its_targets_and_nothing_else():
    inputs, targets, mask = pretrain.batch(TOKENS, 3)
    rows = slice(0, pretrain.FILLED)
    asked = targets[rows] != pretrain.IGNORED
    assert 0.25 < asked.float().mean() < 0.35
    hidden = inputs[rows] == pretrain.SPECIAL.index("<mask>")
    assert torch.equal(hidden[:, 1:], asked[:, :-1])  # the place before predicts it
    assert (mask[rows] == 0).all()


def test_a_step_has_its_batch_whenever_it_is_asked_for_and_an_epoch_has_each_window_once():
    first, again = pretrain.batch(TOKENS, 1), pretrain.batch(TOKENS, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    steps = ((len(TOKENS) - 1) // pretrain.CONTEXT - 1) // pretrain.BATCH

    def starts(begin):
        return [int(row[0]) for step in range(begin, begin + steps)
                for row in pretrain.batch(TOKENS, step, filled=0)[0]]

    assert len(set(starts(0))) == steps * pretrain.BATCH
    assert set(starts(steps)) != set(starts(0))  # another offset
    with pytest.raises(UserError, match="too few for batches of 16"):
        pretrain.batch(TOKENS[:900], 0)


@pytest.fixture
def small(monkeypatch):
    """A corpus of a page, a model of two narrow layers, a checkpoint every second step."""
    texts = tuple(f"第{i}页：the {i * 7919 % 997}th page {'好' * (i % 9)} and {i**3}." for i in range(600))
    monkeypatch.setattr(pretrain.splits, "pretraining_texts", lambda: texts)
    monkeypatch.setattr(pretrain, "held_out", lambda: {"pages": list(texts[:3])})
    for name, value in {"VOCAB": 600, "LAYERS": 1, "HIDDEN": 24, "EVERY": 2}.items():
        monkeypatch.setattr(pretrain, name, value)


def test_a_stopped_pretraining_goes_on_as_if_nothing_had_happened(small, tmp_path, monkeypatch):
    pretrain.Pretraining(tmp_path / "whole", 6, False, "").run()

    def stop(self, model, optimizers, tokens, step, old=pretrain.Pretraining.step):
        if step == 5:
            raise KeyboardInterrupt
        return old(self, model, optimizers, tokens, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pretrain.Pretraining, "step", stop)
        pretrain.Pretraining(tmp_path / "stopped", 6, False, "").run()
    assert not (tmp_path / "stopped" / "record.json").exists()
    with pytest.raises(UserError, match="with other steps"):
        pretrain.Pretraining(tmp_path / "stopped", 7, False, "").run()
    pretrain.Pretraining(tmp_path / "stopped", 6, False, "").run()
    whole, stopped = (json.loads((tmp_path / name / "record.json").read_text())
                      for name in ("whole", "stopped"))
    assert whole["curve"] == stopped["curve"]
    assert whole["held out"] == stopped["held out"]
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("whole", "stopped")]
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))
    assert AutoTokenizer.from_pretrained(tmp_path / "whole").decode([0, 2]) == "<end><mask>"


# ---------------------------------------------------------------- what is shipped


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((pretrain.SHIPPED / "record.json").read_text())


def test_the_shipped_backbone_is_small_and_of_todays_code(record):
    assert record["code"] == code_hash(*pretrain.CODE), "the record is stale: pre-train anew"
    assert sum(file.stat().st_size for file in pretrain.SHIPPED.glob("*.safetensors")) < 10e6
    assert record["curve"][-1][0] == record["settings"]["steps"]
    assert record["held out"][-1][1].keys() == pretrain.HELD_OUT.keys()


def test_the_shipped_backbone_knows_unread_texts_as_well_as_its_record_says(record):
    model = AutoModelForCausalLM.from_pretrained(pretrain.SHIPPED, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(pretrain.SHIPPED)
    title = "Chinese reviews"
    said = record["held out"][-1][1][title]
    texts = pretrain.held_out()[title]
    half = pretrain.bits_a_character(model, tokenizer, texts)
    assert half == pytest.approx(said, rel=0.01)
    torch.manual_seed(0)
    untrained = pretrain.bits_a_character(pretrain.make_model().eval(), tokenizer, texts)
    assert untrained > 1.5 * said


def test_code_is_hashed_as_it_runs(tmp_path):
    file, others = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text('"""Says."""\ndef f(x):\n    """Adds."""\n    return x + 1  # one\n')
    others.write_text('"""Says more."""\n\ndef f(x):\n    return (x\n            + 1)\n')
    assert code_hash(file) == code_hash(others)
    others.write_text("def f(x):\n    return x + 2\n")
    assert code_hash(file) != code_hash(others)
