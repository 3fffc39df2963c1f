"""Lab 5: damage is found and passed over, a killed run goes on to the bit, bad flags get a sentence."""

import importlib
import json
import random
import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import configs, env, launch
from labkit.records import Record, Recorder, Run, read_run

LAB = env.ROOT / "labs" / "lab05_trustworthy_run"
SMALL = ["--steps", "6", "--every", "2", "--context", "8", "--layers", "1", "--hidden", "16"]
FILES = st.dictionaries(st.sampled_from(["a.pt", "b.pt", "c.pt", "d.json"]),
                        st.binary(min_size=1, max_size=40), min_size=1)


@pytest.fixture(scope="module")
def lab():
    """The lab's modules."""
    sys.path.insert(0, str(LAB))
    yield {name: importlib.import_module(name) for name in ("manifest", "checkpoint", "accident", "curves")}
    sys.path.remove(str(LAB))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: run} on two ranks: left alone, killed in the writing of checkpoint 6, resumed."""
    folder = tmp_path_factory.mktemp("lab05")
    launch.run("lab05", ranks=2, args=SMALL, out=folder / "whole")
    with pytest.raises(launch.LabFailed, match=r"rank 0 .* was killed by SIGKILL"):
        launch.run("lab05", ranks=2, out=folder / "killed",
                   args=[*SMALL, "--kill-at", "5", "--kill-saving", "--kill-rank", "0"])
    launch.run("lab05", ranks=2, out=folder / "resumed",
               args=[*SMALL, "--resume", str(folder / "killed"), "--like", str(folder / "whole")])
    return {name: read_run(folder / name) for name in ("whole", "killed", "resumed")}


# ---------------------------------------------------------------- whole or not


def seal(lab, folder, files, **facts):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    lab["manifest"].write(folder, **facts)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(files=FILES, data=st.data())
def test_any_cut_deletion_or_flipped_bit_is_found(lab, tmp_path_factory, files, data):
    folder = tmp_path_factory.getbasetemp() / "sealed" / "step000004"
    seal(lab, folder, files, step=4)
    for name in [*files, lab["manifest"].NAME]:  # each file, in each way
        path, before = folder / name, (folder / name).read_bytes()
        assert lab["manifest"].problem(folder) == "" and lab["manifest"].read(folder)["step"] == 4
        place, bit = data.draw(st.integers(0, len(before) - 1)), 1 << data.draw(st.integers(0, 7))
        flipped = before[:place] + bytes([before[place] ^ bit]) + before[place + 1:]
        for damaged in (before[:place], before + b"x", flipped):
            path.write_bytes(damaged)
            assert lab["manifest"].problem(folder)
        path.unlink()
        assert lab["manifest"].problem(folder)
        path.write_bytes(before)


def test_the_newest_whole_one_is_chosen_and_the_others_are_named(lab, tmp_path):
    for step in (5, 10, 15, 20):
        seal(lab, tmp_path / f"step{step:06d}", {"a.pt": b"1234", "b.pt": b"5"}, step=step)
    (tmp_path / "step000020" / lab["manifest"].NAME).unlink()
    (tmp_path / "step000015" / "a.pt").write_bytes(b"123")
    path, skipped = lab["manifest"].newest_whole(tmp_path)
    assert path.name == "step000010"
    assert skipped == [("step000020", "it has no manifest: it was cut off while being written"),
                       ("step000015", "a.pt has 3 bytes, not 4")]
    (tmp_path / "step000010" / "b.pt").write_bytes(b"6")
    (tmp_path / "step000005" / "b.pt").unlink()
    path, skipped = lab["manifest"].newest_whole(tmp_path)
    assert path is None and [reason for _, reason in skipped[2:]] == [
        "b.pt holds other bytes than were written", "b.pt is missing"]
    assert lab["manifest"].newest_whole(tmp_path / "nothing") == (None, [])


def test_pruning_keeps_the_newest_sealed_ones(lab, tmp_path):
    for step in (1, 2, 3, 4):
        seal(lab, tmp_path / f"step{step:06d}", {"a": b"1"}, step=step)
    (tmp_path / "step000003" / lab["manifest"].NAME).unlink()
    lab["manifest"].prune(tmp_path, 2)
    assert [path.name for path in lab["manifest"].candidates(tmp_path)] == [
        "step000004", "step000003", "step000002"]


WRITER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
import manifest
folder, step = Path(sys.argv[2]), 0
while True:
    step += 1
    path = folder / f"step{step:06d}"
    path.mkdir()
    for name in "abc":
        (path / name).write_bytes(str(step).encode() * 5000)
    manifest.write(path, step=step)
    manifest.prune(folder, 2)
    print(step, flush=True)
"""


def test_killed_at_any_moment_of_writing_the_last_sealed_one_remains(lab, tmp_path):
    chooser = random.Random(0)
    for trial in range(12):
        folder = tmp_path / str(trial)
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", WRITER, str(LAB), str(folder)], text=True,
                              stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            writer.stdout.readline()
            time.sleep(chooser.random() * 0.02)
            writer.kill()
            told = [2, *map(int, writer.stdout.read().split())][-1]
        path, _ = lab["manifest"].newest_whole(folder)
        step = lab["manifest"].read(path)["step"]
        assert path.name == f"step{step:06d}" and step in (told, told + 1)
        assert all((path / name).read_bytes() == str(step).encode() * 5000 for name in "abc")


# ---------------------------------------------------------------- the run


def test_the_resumed_run_equals_the_one_left_alone(runs, lab):
    whole, killed, resumed = runs.values()
    assert len(whole.losses) == len(killed.losses) == 6 and len(resumed.losses) == 2
    assert resumed.metric("resumed") == {"checkpoint": "step000004", "done": 4, "skipped": [
        ["step000006", "it has no manifest: it was cut off while being written"]]}
    if whole.info.device == "cpu":
        for other in (whole, killed):
            assert lab["curves"].differences(resumed, other) == []
    assert set(lab["curves"].table(resumed)) == {(step, rank) for step in (4, 5) for rank in (0, 1)}
    seen, rates = whole.series("weights"), whole.series("lr")
    assert [seen[i] != seen[i - 1] for i in range(1, 6)] == [rate > 0 for rate in rates[1:]]
    assert whole.series("weights") == whole.series("weights", rank=1)
    assert whole.series("loss") != whole.series("loss", rank=1)


def test_ranks_get_other_samples_and_none_twice(runs):
    each = [sample for rank in (0, 1) for part in runs["whole"].series("samples", rank) for sample in part]
    assert len(each) == 6 * 16 == len(set(each))


def test_the_learning_rate_recorded_is_the_one_deepspeed_plans(runs):
    warm, down = [0, 0, 1 / 4, 2 / 4, 3 / 4], 0.1 + 0.9 / 2  # two steps at 0 first; then half a cosine
    assert runs["whole"].series("lr") == pytest.approx([0.003 * share for share in (*warm, down)], rel=1e-9)


def test_two_checkpoints_are_kept_and_whole(runs, lab):
    folder = runs["whole"].folder / "checkpoints"
    names = [path.name for path in lab["manifest"].candidates(folder)]
    assert names == ["step000006", "step000004"]
    assert all(lab["manifest"].problem(folder / name) == "" for name in names)
    files = lab["manifest"].read(folder / "step000006")["files"]
    assert {"random_rank0.pt", "random_rank1.pt", "mp_rank_00_model_states.pt"} < set(files)


def test_the_report_says_what_happened(runs):
    lines = launch.report(runs["resumed"]).splitlines()
    assert lines[1] == "passed over step000006: it has no manifest: it was cut off while being written"
    assert lines[2] == "resumed from step000004"
    if runs["whole"].info.device == "cpu":
        assert len(lines) == 5
        assert "steps 4 to 5: samples, loss, norm, lr, weights bit for bit as in" in lines[3]


def test_a_planted_difference_is_named(runs, lab):
    whole, resumed = runs["whole"], runs["resumed"]
    changed = json.loads(json.dumps([record.model_dump() for record in whole.ranks[1]]))
    for record in changed:
        if record["event"] == "step" and record["values"]["step"] == 5:
            record["values"]["samples"][0] += 1
    other = Run(whole.folder, whole.info, {**whole.ranks, 1: [Record(**record) for record in changed]})
    assert lab["curves"].differences(resumed, other) == [(5, 1, "samples")]
    assert "first at step 5, rank 1: samples" in lab["curves"].compare(resumed, other)
    empty = Run(whole.folder, whole.info, {0: []})
    assert "no step in common" in lab["curves"].compare(resumed, empty)


def test_where_all_are_damaged_it_may_start_from_the_beginning(runs, tmp_path, no_process_left):
    shutil.copytree(runs["whole"].folder, tmp_path / "run")
    for path in (tmp_path / "run").glob("checkpoints/*/random_rank1.pt"):
        path.write_bytes(b"damaged")
    run = launch.run("lab05", ranks=2, out=tmp_path / "again",
                     args=[*SMALL, "--resume", str(tmp_path / "run"), "--if-none", "start"])
    found = run.metric("resumed")
    assert found == run.metric("resumed", rank=1) and (found["checkpoint"], found["done"]) == (None, 0)
    assert [name for name, _ in found["skipped"]] == ["step000006", "step000004"]
    assert all(reason.startswith("random_rank1.pt has 7 bytes, not ") for _, reason in found["skipped"])
    if run.info.device == "cpu":
        assert run.losses == runs["whole"].losses


# ---------------------------------------------------------------- what is not resumed


@pytest.fixture
def as_rank(lab, monkeypatch):
    """as_rank(rank, world_size): the lab's modules believe to be it; what rank 0 sends, others get."""
    distributed, sent = lab["checkpoint"].distributed, {}

    def broadcast(objects):
        if distributed.get_rank() == 0:
            sent["last"] = list(objects)
        objects[:] = sent["last"]

    def become(rank, world_size):
        monkeypatch.setattr(distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(distributed, "get_world_size", lambda: world_size)

    monkeypatch.setattr(distributed, "broadcast_object_list", broadcast)
    return become


def test_all_ranks_take_what_rank_0_found(lab, as_rank, tmp_path):
    seal(lab, tmp_path / "step000005", {"a": b"1"}, step=5, ranks=2, settings={"seed": 0})
    (tmp_path / "step000010").mkdir()
    as_rank(0, 2)
    found = lab["checkpoint"].choose(tmp_path, {"seed": 0})
    assert found[:2] == (tmp_path / "step000005", 5) and [name for name, _ in found[2]] == ["step000010"]
    as_rank(1, 2)
    assert lab["checkpoint"].choose(tmp_path / "not seen from here", {"seed": 0}) == found


@pytest.mark.parametrize(("ranks", "now", "says"), [
    (1, {"seed": 0}, "was written by 2 ranks, this run has 1: give --ranks 2"),
    (2, {"seed": 1}, "was written with seed 0, this run has 1"),
    (2, {}, "was written with seed 0, this run has None"),
    (2, {"seed": 0, "steps": 9}, "was written with steps None, this run has 9"),
])
def test_another_runs_checkpoint_is_refused_on_every_rank(lab, as_rank, tmp_path, ranks, now, says):
    seal(lab, tmp_path / "step000005", {"a": b"1"}, step=5, ranks=2, settings={"seed": 0})
    for rank in range(ranks):
        as_rank(rank, ranks)
        with pytest.raises(env.UserError, match=says):
            lab["checkpoint"].choose(tmp_path, now)


def test_no_whole_checkpoint_is_an_error_that_names_each(lab, as_rank, tmp_path):
    seal(lab, tmp_path / "checkpoints" / "step000005", {"a.pt": b"1"}, step=5)
    (tmp_path / "checkpoints" / "step000005" / "a.pt").unlink()
    (tmp_path / "checkpoints" / "step000010").mkdir()
    as_rank(0, 2)
    train = launch._script(LAB)
    args = train.parser().parse_args(["--resume", str(tmp_path)])
    with Recorder(None, total_steps=1) as record, pytest.raises(env.UserError) as raised:
        train.resume(args, None, {}, record)
    assert str(raised.value) == (
        f"no whole checkpoint in {tmp_path}; step000010: it has no manifest: it was cut off while being "
        "written; step000005: a.pt is missing. Give another --resume, or --if-none start to begin from "
        "step 0")


# ---------------------------------------------------------------- flags


@pytest.mark.parametrize(("flags", "says"), [
    (["--kill-at", "never"], "a whole number of at least 1, not 'never'"),
    (["--every", "0"], "a whole number of at least 1, not '0'"),
    (["--if-none", "hope"], "invalid choice: 'hope'"),
    (["--resumes", "x"], "did you mean --resume"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab05", ranks=2, args=flags, out=tmp_path / "run")


def test_accidents(lab, monkeypatch):
    choose, Accident = lab["accident"].choose, lab["accident"].Accident
    monkeypatch.setattr(lab["accident"].distributed, "get_world_size", lambda: 4)
    assert choose(None, None, False, 24, 5, 0) is None
    assert choose("13", None, False, 24, 5, 0) == Accident(13, 3, False)
    assert choose("20", 1, True, 24, 5, 0) == Accident(20, 1, True)
    with pytest.raises(env.UserError, match="last checkpoint is written after 20 steps"):
        choose("21", None, True, 24, 5, 0)
    with pytest.raises(env.UserError, match="the run ends after 24 steps"):
        choose("25", None, False, 24, 5, 0)
    with pytest.raises(env.UserError, match="there are 4 ranks"):
        choose("2", 4, False, 24, 5, 0)
    chosen = [choose("random", None, False, 24, 5, seed) for seed in range(200)]
    assert {one.rank for one in chosen} == {0, 1, 2, 3} and {one.saving for one in chosen} == {True, False}
    assert all(1 <= one.step <= (20 if one.saving else 23) for one in chosen)


def test_default_flags_help_and_configuration():
    args = launch._check_flags(LAB, [])
    assert (args.steps, args.every, args.keep, args.if_none) == (24, 5, 2, "fail")
    assert "--resume runs/killed" in launch.lab_help("lab05")
    for ranks in (1, 2, 4, 8):
        configs.check(configs.load(LAB / "ds_config.json"), ranks)
