"""Lab 4's scaling sweep: announced, resumed after a kill as if nothing had happened, polite."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from labkit import env

SCRIPT = env.ROOT / "labs" / "lab04_pretrain_finetune" / "scaling_sweep.py"
TINY = ["--layers", "1", "--steps", "3", "4", "40", "--seed", "5"]


@pytest.fixture(scope="module")
def sweep():
    """The lab's script as a module."""
    sys.path.insert(0, str(SCRIPT.parent))
    module = importlib.import_module("scaling_sweep")
    sys.path.remove(str(SCRIPT.parent))
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def start(*flags):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def points(path):
    """What a file holds, without the seconds, and its bytes' other half: all that is not a point."""
    held = json.loads(path.read_text())
    for point in held["points"]:
        assert point.pop("seconds") >= 0
    held["command"] = re.sub(r"--out \S+", "", held["command"])
    return held


def test_a_killed_sweep_goes_on_as_if_it_had_not_been(tmp_path):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    said, errors = start(*TINY, "--out", whole).communicate(timeout=120)
    assert "3 points" in said, errors
    killed = start(*TINY, "--out", cut)
    began = time.monotonic()
    while not cut.exists() or not json.loads(cut.read_text())["points"]:
        assert killed.poll() is None and time.monotonic() - began < 120
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = json.loads(cut.read_text())["points"]
    assert 1 <= len(before) < 3
    said, errors = start(*TINY, "--out", cut).communicate(timeout=120)
    assert f"{3 - len(before)} trainings to do, {len(before)} done before" in said, errors
    assert json.loads(cut.read_text())["points"][: len(before)] == before  # not trained again
    assert points(cut) == points(whole)
    assert not list(tmp_path.glob("*.part"))
    said, _ = start(*TINY, "--out", cut).communicate(timeout=120)
    assert "0 trainings to do, 3 done before" in said

    other = start("--layers", "1", "--steps", "3", "--seed", "6", "--out", cut)
    _, errors = other.communicate(timeout=120)
    assert other.returncode == 1 and "holds a sweep with another seed (5 there, 6 here)" in errors
    assert "Traceback" not in errors


def test_the_time_is_said_before_the_first_training(tmp_path):
    out = tmp_path / "full.json"
    process = start("--full", "--out", out)
    first = process.stdout.readline()
    held = json.loads(out.read_text())
    process.kill()
    process.communicate()
    assert re.match(r"26 trainings to do, 0 done before: 25,723 GFLOP, about \d+ s \(.* minutes\)", first)
    assert held["points"] == [] and held["command"].endswith(f"--full --out {out}")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--out", "x.json", "--steps", "0"], "must be a whole number of at least 1, not '0'"),
        (["--out", "x.json", "--steps", "many"], "not 'many'"),
        (["--out", "x.json", "--full", "--steps", "3"], "--full has its own sizes and budgets"),
        (["--out", "x.json", "--steps", "100000"], "need more text than there is: at most 4803"),
        (["--out", "nowhere/x.json"], "cannot write nowhere/x.json: No such file"),
        (["--full"], "required: --out"),
        (["--out", "broken.json"], "broken.json is not a file of this sweep"),
    ],
)
def test_bad_flags_get_a_sentence(flags, says, sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"points": [')
    with pytest.raises((env.UserError, SystemExit)) as raised:
        sweep.main(flags)
    said, errors = capsys.readouterr()
    assert says in errors + str(raised.value) and "trainings to do" not in said
