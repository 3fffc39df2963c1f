"""The command line: bad input gets one sentence with the cure and exit code 2, before anything starts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple

import pytest

from labkit import env, launch
from labkit.cli import main

GOOD = json.loads((env.ROOT / "labs/lab01_first_run/ds_config.json").read_text())


@pytest.fixture
def nothing_starts(monkeypatch):
    def refuse(self):
        raise AssertionError("a process was about to be started")

    monkeypatch.setattr(launch._Watch, "until_end", refuse)


ADAM = {"type": "AdamW", "params": {"lr": 0.1, "torch_adam": True}}


def config(tmp_path, *without, **changes):
    """The path of Lab 1's file with some keys changed, and some left out."""
    path = tmp_path / "config.json"
    kept = {key: value for key, value in {**GOOD, **changes}.items() if key not in without}
    path.write_text(json.dumps(kept))
    return str(path)


def plain(tmp_path, **changes):
    """Lab 1's plain loop with such a file."""
    return ["run", "lab01", "--ranks", "1", "--engine", "torch", "--config", config(tmp_path, **changes)]


def hostfile(tmp_path, text):
    path = tmp_path / "hosts"
    path.write_text(text)
    return str(path)


def shape(*changes):
    gpt2 = {"layers": 12, "hidden": 768, "heads": 12, "vocab": 50_257, "context": 1024, "batch": 64}
    flags = [part for name, value in gpt2.items() for part in (f"--{name}", str(value))]
    return ["plan", *flags, "--gpus", "8", *changes]


# (arguments from a temporary folder, what the one sentence must hold)
BAD = {
    "no command": (lambda t: ["frobnicate"], "invalid choice: 'frobnicate'"),
    "unknown option": (lambda t: ["doctor", "--compil"], "unknown argument '--compil'"),
    "no lab": (lambda t: ["run"], "required: lab"),
    "unknown lab": (lambda t: ["run", "lab1"], "did you mean lab01?"),
    "0 ranks": (lambda t: ["run", "lab01", "--ranks", "0"], "from 1 to 1024, not '0'"),
    "negative ranks": (lambda t: ["run", "lab01", "--ranks", "-2"], "from 1 to 1024, not '-2'"),
    "ranks in words": (lambda t: ["run", "lab01", "--ranks", "two"], "'auto' or a whole number"),
    "batch not divisible": (lambda t: ["run", "lab01", "--ranks", "3", "--config", config(t)],
                            "16 cannot be divided by 3 ranks: set it to 15 or 18, or take --ranks 1, 2 or 4"),
    "batch not divisible in one way": (lambda t: ["run", "lab07", "--ranks", "8", "--config", config(
        t, train_batch_size=8, optimizer=ADAM)], "on 8 ranks: set it to 16, or take --ranks 1 or 2 or 4"),
    "tensor parallel": (lambda t: ["run", "lab01", "--config", config(
        t, tensor_parallel={"autotp_size": 2})], "see `labkit run lab07 --ranks 2`"),
    "sequence parallel": (lambda t: ["run", "lab05", "--config", config(
        t, sequence_parallel_size=2)], "sequence_parallel_size 2 divides the model itself"),
    "no optimizer": (lambda t: ["run", "lab01", "--config", config(t, "optimizer")], "names no optimizer"),
    "no optimizer in lab 5": (lambda t: ["run", "lab05", "--config", config(t, "optimizer")],
                              "names none: see ds_config.json"),
    "no optimizer in lab 3": (lambda t: ["run", "lab03", "--config", config(
        t, "optimizer", "train_batch_size", train_micro_batch_size_per_gpu=2)], "the JSON names none"),
    "ZeRO-3 in lab 4": (lambda t: ["run", "lab04", "--config", config(
        t, zero_optimization={"stage": 3}, optimizer=ADAM)], "ZeRO stage 0, 1 or 2"),
    "Adam by hand": (lambda t: ["run", "lab02", "--config", config(t, optimizer=ADAM)],
                     "give an optimizer of type SGD"),
    "what torch's Adam has not": (lambda t: plain(t, optimizer={
        "type": "AdamW", "params": {"lr": 0.1, "adam_w_mode": True}}), "has no adam_w_mode"),
    "bf16 in the plain loop": (lambda t: plain(t, bf16={"enabled": True}), "would leave out the file's bf16"),
    "missing config": (lambda t: ["run", "lab01", "--config", str(t / "no.json")], "no DeepSpeed config"),
    "config is a folder": (lambda t: ["run", "lab01", "--config", str(t)], "no DeepSpeed config"),
    "config is not JSON": (lambda t: ["run", "lab01", "--config", __file__], "is not JSON"),
    "config is a list": (lambda t: ["run", "lab01", "--config", hostfile(t, "[1]")], "not a list"),
    "misspelt key": (lambda t: ["run", "lab01", "--config", config(
        t, "zero_optimization", zero_optimisation={"stage": 2})],
                     "did you mean 'zero_optimization'?"),
    "misspelt inner key": (lambda t: ["run", "lab01", "--config", config(t, zero_optimization={"stages": 2})],
                           "did you mean 'stage'?"),
    "misspelt optimizer key": (lambda t: ["run", "lab01", "--config", config(t, optimizer={"typ": "Adam"})],
                               "optimizer has the key 'typ'"),
    "no such stage": (lambda t: ["run", "lab01", "--config", config(t, zero_optimization={"stage": 4})],
                      "stage is 4: must be one of 0, 1, 2, 3"),
    "removed feature": (lambda t: ["run", "lab01", "--config", config(t, elasticity={"enabled": True})],
                        "removed"),
    "no batch": (lambda t: ["run", "lab01", "--config", config(t, train_batch_size=None)], "gives no batch"),
    "batch of 0": (lambda t: ["run", "lab01", "--config", config(t, train_batch_size=0)], "not 0"),
    "batch arithmetic": (lambda t: ["run", "lab01", "--ranks", "2", "--config", config(
        t, train_micro_batch_size_per_gpu=2, gradient_accumulation_steps=2)],
                         "accumulation 2 = 8: set it to 8, or take --ranks 4"),
    "clipping in words": (lambda t: ["run", "lab01", "--config", config(t, gradient_clipping="yes")],
                          "gradient_clipping must be a number"),
    "unknown lab flag": (lambda t: ["run", "lab01", "--step", "3"], "did you mean --steps?"),
    "lab flag of a wrong type": (lambda t: ["run", "lab01", "--steps", "many"],
                                 "a whole number of at least 1, not 'many'"),
    "missing hostfile": (lambda t: ["run", "lab01", "--hostfile", str(t / "no")], "cannot read the hostfile"),
    "bad hostfile": (lambda t: ["run", "lab01", "--hostfile", hostfile(t, "node1 slot=2")],
                     "line 1: 'node1 slot=2' is not of the form"),
    "host twice": (lambda t: ["run", "lab01", "--hostfile", hostfile(t, "a slots=1\na slots=1")],
                   "named twice"),
    "host without slots": (lambda t: ["run", "lab01", "--hostfile", hostfile(t, "a slots=1\nb slots=0")],
                           "line 2: b has no slots"),
    "hosts that do not wait": (lambda t: ["run", "lab01", "--meet", "0"], "--meet must be a number of more"),
    "empty hostfile": (lambda t: ["run", "lab01", "--hostfile", hostfile(t, "# none\n")], "names no host"),
    "no such node": (lambda t: ["run", "lab01", "--node-rank", "2", "--hostfile", hostfile(t, "a slots=1")],
                     "hosts 0 to 0"),
    "node without hostfile": (lambda t: ["run", "lab01", "--node-rank", "0"], "needs --hostfile"),
    "two hosts, no address": (lambda t: ["run", "lab01", "--node-rank", "1", "--hostfile",
                                         hostfile(t, "a slots=1\nb slots=1")], "needs --master-addr"),
    "optimizer in a word": (lambda t: ["run", "lab01", "--config", config(t, optimizer="Adam")],
                            "optimizer must be an object"),
    "no steps": (lambda t: ["run", "lab01", "--steps", "0"], "of at least 1, not '0'"),
    "time-out that is no number": (lambda t: ["run", "lab01", "--timeout", "nan"], "not nan"),
    "port too low": (lambda t: ["run", "lab01", "--master-port", "80"], "between 1024 and 65535"),
    "time-out of 0": (lambda t: ["run", "lab01", "--timeout", "0"], "more than 0 seconds"),
    "folder in use": (lambda t: ["run", "lab01", "--out", os.path.dirname(__file__)], "not an empty folder"),
    "folder under a file": (lambda t: ["run", "lab01", "--out", __file__ + "/run"], "cannot write to"),
    "plan of nothing": (lambda t: ["plan", "--params", "0"], "cannot plan this"),
    "plan in words": (lambda t: ["plan", "--params", "big"], "invalid float value: 'big'"),
    "plan for 0 GPUs": (lambda t: ["plan", "--params", "1e9", "--gpus", "0"], "at least 1"),
    "plan for stage 4": (lambda t: ["plan", "--params", "1e9", "--stage", "4"], "stage"),
    "plan of NaN": (lambda t: ["plan", "--params", "nan"], "cannot plan this"),
    "plan without a size": (lambda t: ["plan"], "give --params, or a whole shape"),
    "plan of half a shape": (lambda t: ["plan", "--layers", "4"], "missing --hidden, --heads"),
    "plan of both": (lambda t: ["plan", "--params", "1e9", "--tp", "2"], "--params is planned without --tp"),
    "plan of 0 layers": (lambda t: shape("--layers", "0"), "layers is 0: give a whole number"),
    "plan of huge layers": (lambda t: shape("--layers", "9" * 20), "from 1 to 1,000,000,000"),
    "plan of odd heads": (lambda t: shape("--heads", "5"), "cannot be divided among 5 heads"),
    "plan of half a head": (lambda t: shape("--heads", "1.5"), "invalid int value: '1.5'"),
    "plan for no batch": (lambda t: shape("--batch", "0"), "batch is 0"),
    "plan for no memory": (lambda t: shape("--gpu-memory", "0"), "memory is 0.0"),
    "plan for an unknown cluster": (lambda t: shape("--cluster", "cray"), "choose from a100, h100, h200"),
    "plan with too many ranks": (lambda t: shape("--tp", "16"), "are more than 8 GPUs"),
    "plan of uneven stages": (lambda t: shape("--pp", "5"), "12 layers cannot be divided into 5"),
    "plan of uneven heads": (lambda t: shape("--tp", "5"), "12 heads cannot be divided among 5"),
    "plan of an uneven batch": (lambda t: shape("--micro", "7"), "micro-batches of 7"),
    "plan of what DeepSpeed refuses": (lambda t: shape("--pp", "2", "--stage", "3"),
                                       "DeepSpeed refuses a pipeline with ZeRO stage 3"),
    "plan of stage 4": (lambda t: shape("--stage", "4"), "ZeRO stage is 4"),
    "plan of recomputing some": (lambda t: shape("--recompute", "some"), "recompute is 'some'"),
    "missing notebook": (lambda t: ["claims", str(t / "no.ipynb")], "cannot read the notebook"),
    "no notebook": (lambda t: ["claims", __file__], "is not a notebook"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2(name, tmp_path, capsys, nothing_starts):
    arguments, expected = BAD[name]
    assert main(arguments(tmp_path)) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.err.startswith("labkit: ") and printed.err.count("\n") == 1, printed.err
    assert "Traceback" not in printed.err


def test_a_busy_port_is_refused(capsys, nothing_starts):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["run", "lab01", "--master-port", str(port)]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_a_full_disk_is_refused(capsys, monkeypatch, nothing_starts, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1e9, 1e9, 1e6))
    assert main(["run", "lab01", "--out", str(tmp_path / "run")]) == 2
    assert "only 1 MB free" in capsys.readouterr().err


def test_doctor_names_every_gap_with_its_cure(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(env, "compiled_ops", lambda: {"cpu_adam": False})
    assert main(["doctor"]) == 0  # a machine without compiler and npm can still run the course
    said = " ".join(capsys.readouterr().out.split())
    assert "optimizers Adam and AdamW without `\"torch_adam\": true` and offload to the CPU will not" in said
    assert "install g++" in said
    assert "install Node.js" in said


def test_doctor_stops_where_the_course_cannot_run(capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1e9, 1e9, 1e6))
    assert main(["doctor"]) == 2
    assert "STOP disk" in capsys.readouterr().out


def test_plan_and_help(capsys):
    assert main(["plan", "--params", "7.5e9", "--gpus", "64", "--stage", "3"]) == 0
    assert "1.88 GB" in capsys.readouterr().out
    assert main(shape()) == 0
    best, *_ = capsys.readouterr().out.splitlines()[2:]
    assert main(shape("--tp", "1", "--dp", "4", "--stage", "2", "--recompute", "full")) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:4] == ["1", "1", "4", "2"]
    assert best.split()[2] == "8"  # a small model is only copied
    assert main(shape("--gpu-memory", "0.1")) == 0
    assert "nothing fits: the least is 0.345 of 0.1 GB" in capsys.readouterr().out
    assert main(["run", "lab01", "--lab-help"]) == 0
    assert "--engine {deepspeed,torch}" in capsys.readouterr().out
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().out


def test_a_reader_who_has_seen_enough_gets_no_traceback():
    claims = subprocess.Popen([sys.executable, "-m", "labkit.cli", "claims"], cwd=env.ROOT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "claims" in claims.stdout.readline()
    claims.stdout.close()
    assert claims.stderr.read() == "" and claims.wait() == 141
