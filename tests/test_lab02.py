"""Lab 2: every cut gives one curve, another computation is named, wrong flags get a sentence."""

import importlib.util
import json

import pytest
import torch
from cells import run, sources

from labkit import configs, env, launch
from labkit.records import read_run

LAB = env.ROOT / "labs" / "lab02_data_parallel"
NUM_PARAMS = 160 + 4640 + 2890  # two convolutions and a linear layer


@pytest.fixture(scope="module")
def lab():
    """The lab's train.py, imported."""
    spec = importlib.util.spec_from_file_location("lab02_train", LAB / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """(message, run): DeepSpeed is told to clip gradients, which the others do not."""
    folder = tmp_path_factory.mktemp("lab02")
    clips = json.loads((LAB / "ds_config.json").read_text()) | {"gradient_clipping": 0.01}
    (folder / "clips.json").write_text(json.dumps(clips))
    with pytest.raises(launch.LabFailed) as caught:
        launch.run("lab02", ranks=2, config=folder / "clips.json", out=folder / "run",
                   args=["--steps", "6", "--micro", "16,2", "--seed", "3"])
    return str(caught.value), read_run(folder / "run")


def test_a_way_that_computes_something_else_makes_the_lab_fail(failed):
    first = failed[0].splitlines()[0]
    assert "raised CurvesDiffer: DeepSpeed 16×1 is " in first and "; DeepSpeed 2×8 is " in first
    assert "by hand" not in first


def test_the_other_ways_agree_and_every_way_is_recorded(failed):
    ways = [[r.values for r in records if r.event == "metric"] for records in failed[1].ranks.values()]
    assert [(way["way"], way["micro"], way["accumulation"]) for way in ways[0]] == [
        ("whole batch", 32, 1), ("by hand", 16, 1), ("by hand", 2, 8),
        ("DeepSpeed", 16, 1), ("DeepSpeed", 2, 8)]
    for one, other in zip(*ways, strict=True):
        for key in ("losses", "predictions", "sent"):
            assert one[key] == other[key], (one["name"], key)
        assert len(one["losses"]) == 6 and len(one["predictions"]) == 901 and one["seconds"] > 0
        clips = one["way"] == "DeepSpeed"  # which needs one number more, the norm
        assert one["sent"] == (0 if one["way"] == "whole batch" else NUM_PARAMS + clips)
        # the first gradient: clipping comes after the average, and only DeepSpeed clips
        assert (one["apart"]["gradient"] < 3e-5) == (not clips)
        assert (one["apart"]["weights"] < 3e-5) == (not clips)


def test_the_report_has_a_line_for_each_way(failed):
    lines = launch.report(failed[1]).splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("whole batch            32 × 1 × 1")
    assert lines[5].startswith("DeepSpeed")
    assert all(word in lines[5] for word in ("2 × 8 × 2", "/901", "7,691"))


@pytest.mark.parametrize(("flags", "says"), [
    (["--steps", "0"], "a whole number of at least 1, not '0'"),
    (["--micro", "8,0"], "a whole number of at least 1, not '0'"),
    (["--micros", "8"], "did you mean --micro"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab02", ranks=2, args=flags, out=tmp_path / "run")


def test_help_and_default_flags():
    assert launch._check_flags(LAB, []).steps == 40
    assert "--micro" in launch.lab_help("lab02")


def test_every_cut_is_the_same_global_batch(lab):
    config = configs.load(LAB / "ds_config.json")
    assert lab.cuts(config, 2)[1:4] == [("by hand", 16, 1), ("by hand", 8, 2), ("by hand", 4, 4)]
    for ranks in (1, 2, 4, 8, 16, 32):
        configs.check(config, ranks)
        whole, *ways = lab.cuts(config, ranks)
        assert whole == ("whole batch", 32, 1)
        assert all(micro * accumulation * ranks == 32 for _, micro, accumulation in ways)


@pytest.mark.parametrize(("change", "micros", "says"), [
    ({}, [8, 5], "--micro 5 does not divide 16, a rank's share of 32"),
    ({"train_batch_size": 1024}, None, "is 1024: there are 896 images"),
    ({"zero_optimization": {"stage": 1}}, None, "leave zero_optimization out"),
    ({"bf16": {"enabled": True}}, None, "leave bf16 out"),
    ({"optimizer": {"type": "Adam", "params": {"lr": 0.1}}}, None, "type SGD, not Adam"),
    ({"optimizer": {}}, None, "type SGD, not None"),
])
def test_what_cannot_be_cut_gets_a_sentence(lab, change, micros, says):
    with pytest.raises(env.UserError, match=says):
        lab.cuts(configs.load(LAB / "ds_config.json") | change, 2, micros)


def test_the_chapter_and_the_lab_train_the_same_net_on_the_same_images(lab):
    chapter = run(sources("02"), ["imports", "dp-digits", "dp-net"])
    images, labels = lab.digits()
    assert torch.equal(images.cpu(), chapter["IMAGES"]) and torch.equal(labels.cpu(), chapter["LABELS"])
    for seed in (0, 5):
        mine, theirs = (lab.flat(make(seed).parameters()).cpu() for make in (lab.new_net, chapter["new_net"]))
        assert torch.equal(mine, theirs) and len(mine) == NUM_PARAMS
        ours = chapter["batches"](50, 40, seed)
        assert all(torch.equal(a, b) for a, b in zip(lab.batches(50, 40, seed), ours, strict=True))
