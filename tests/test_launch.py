"""Lab 1 under the real launcher: equal losses, killed ranks, planted errors, nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from labkit import env, launch
from labkit.records import PARENT, read_rank, read_run

LAB = env.ROOT / "labs" / "lab01_first_run"


def start(tmp_path, *arguments, ranks=2):
    """Lab 1 through the command line, in the background; returns (process, folder of the run)."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "labkit.cli", "run", "lab01", "--ranks", str(ranks), "--out", str(out)]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True), out


def wait_for_step(out: Path, rank: int, step: int = 5, seconds: float = 120) -> int:
    """The process number of a rank that has made ``step`` steps."""
    end = time.monotonic() + seconds
    path = out / f"rank{rank}.jsonl"
    while time.monotonic() < end:
        records = read_rank(path) if path.exists() else []
        if records and records[-1].event == "step" and records[-1].values["step"] >= step:
            return records[0].values["pid"]
        time.sleep(0.1)
    raise AssertionError(f"rank {rank} made no {step} steps in {seconds} s: "
                         + (out / "log.txt").read_text())


def processes_of(out: Path) -> list[psutil.Process]:
    """Every process that has the run's folder on its command line (launcher and ranks)."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(out) in " ".join(process.info["cmdline"] or []) and process.info["status"] != "zombie":
            found.append(process)
    return found


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """Losses of 20 steps by the plain loop and by DeepSpeed on 1, 2 and 4 ranks."""
    folder = tmp_path_factory.mktemp("runs")
    result = {"torch": launch.run("lab01", ranks=1, args=["--engine", "torch", "--steps", "20"],
                                  out=folder / "torch")}
    for ranks in (1, 2, 4):
        result[ranks] = launch.run("lab01", ranks=ranks, args=["--steps", "20"], out=folder / str(ranks))
    return {name: run.losses for name, run in result.items()}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_losses_are_those_of_the_plain_loop(losses, ranks):
    # fp32 rounds at 6e-8; sums in another order over 20 steps stay far below 1024 · 2⁻²⁴.
    assert len(losses[ranks]) == len(losses["torch"]) == 20
    assert losses[ranks] == pytest.approx(losses["torch"], rel=1024 * 2**-24)
    assert losses[ranks][-1] < losses[ranks][0] - 1


def test_one_rank_equals_the_plain_loop_bit_by_bit(losses):
    assert losses[1] == losses["torch"]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_with_sigkill_ends_the_run_and_is_named(tmp_path, rank):
    process, out = start(tmp_path, "--steps", "100000")
    pid = wait_for_step(out, rank)
    os.kill(pid, signal.SIGKILL)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"rank {rank} (process {pid}) was killed by SIGKILL" in message
    assert "Traceback" not in message
    assert processes_of(out) == []
    run = read_run(out)
    assert not run.finished and len(run.losses) >= 5


def test_a_rank_killed_before_its_first_record_is_named_too(tmp_path):
    process, out = start(tmp_path)
    end, rank = time.monotonic() + 60, None
    while rank is None and time.monotonic() < end:
        time.sleep(0.05)
        rank = next((p for p in processes_of(out) if "--run_dir" in p.cmdline()
                     and "deepspeed.launcher" not in " ".join(p.cmdline())
                     and p.environ().get("RANK") == "1"), None)
    time.sleep(1.0)  # it is importing torch now
    rank.kill()
    _, message = process.communicate(timeout=30)
    assert process.returncode == 1 and "rank 1 (process" in message and "SIGKILL" in message
    assert processes_of(out) == []


def test_a_rank_that_raises_is_shown_with_its_own_traceback(tmp_path, monkeypatch, no_process_left):
    lab = tmp_path / "labs" / "lab98_raises"
    lab.mkdir(parents=True)
    source = (LAB / "train.py").read_text().replace(
        "        last = step == args.steps - 1\n",
        "        last = step == args.steps - 1\n"
        "        if step == 3 and rank == 1:\n            raise RuntimeError('planted on one rank')\n")
    (lab / "train.py").write_text(source)
    (lab / "ds_config.json").write_text((LAB / "ds_config.json").read_text())
    monkeypatch.setattr(launch, "labs", lambda: {"lab98": lab})
    with pytest.raises(launch.LabFailed) as caught:
        launch.run("lab98", ranks=2, out=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("rank 1 raised RuntimeError: planted on one rank")
    assert "train.py" in message and "Last seen: rank 0 at step" in message
    assert "Connection" not in message
    assert processes_of(tmp_path / "run") == []


def test_bad_input_found_on_a_rank_is_the_readers_error(tmp_path, no_process_left):
    with pytest.raises(env.UserError, match="rank 0: hidden_size 100"):
        launch.run("lab01", ranks=1, args=["--hidden", "100"], out=tmp_path / "run")
    with pytest.raises(env.UserError, match="the plain loop knows one rank only"):
        launch.run("lab01", ranks=2, args=["--engine", "torch"], out=tmp_path / "run2")


def test_a_launcher_that_dies_is_no_success(tmp_path):
    process, out = start(tmp_path, "--steps", "100000")
    wait_for_step(out, 0)
    for member in processes_of(out):
        if "deepspeed.launcher.launch" in " ".join(member.cmdline()):
            member.kill()
    _, message = process.communicate(timeout=30)
    assert process.returncode == 1 and "Last seen: rank 0 at step" in message
    assert processes_of(out) == []


def test_a_script_that_cannot_start_shows_the_log(tmp_path, monkeypatch, no_process_left):
    lab = tmp_path / "labs" / "lab97_broken"
    lab.mkdir(parents=True)
    (lab / "train.py").write_text("import argparse\n\n\ndef parser():\n    p = argparse.ArgumentParser()\n"
                                  "    p.add_argument('--run_dir')\n"
                                  "    p.add_argument('--config')\n    return p\n"
                                  "\n\nif __name__ == '__main__':\n    import no_such_module\n")
    (lab / "ds_config.json").write_text((LAB / "ds_config.json").read_text())
    monkeypatch.setattr(launch, "labs", lambda: {"lab97": lab})
    with pytest.raises(launch.LabFailed, match="No module named 'no_such_module'"):
        launch.run("lab97", ranks=1, out=tmp_path / "run")


def test_a_silent_run_is_ended(tmp_path, no_process_left):
    with pytest.raises(launch.LabFailed, match="no rank has written a record for 1 s"):
        launch.run("lab01", ranks=2, out=tmp_path / "run", timeout=1)
    assert processes_of(tmp_path / "run") == []


def test_interrupt_ends_everything(tmp_path):
    process, out = start(tmp_path, "--steps", "100000")
    wait_for_step(out, 0)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130 and "labkit: interrupted; nothing is left running" in message
    assert processes_of(out) == []


def test_ranks_end_when_the_one_who_started_them_is_killed(tmp_path):
    process, out = start(tmp_path, "--steps", "100000")
    wait_for_step(out, 1)
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while processes_of(out) and time.monotonic() < end:
        time.sleep(0.5)
    assert processes_of(out) == []


def test_the_labs_own_flags_and_two_ranks_through_the_command_line(tmp_path):
    process, out = start(tmp_path, "--steps", "6", "--lr", "3e-3")
    said, message = process.communicate(timeout=120)
    assert process.returncode == 0, message
    assert re.search(r"2 ranks on cpu: loss 5\.\d+ → \d\.\d+ in 6 steps", said)
    run = read_run(out)
    assert run.finished and "--lr" in run.info.command and PARENT not in " ".join(run.info.command)
    # data parallel: every rank holds all states and all-reduces each gradient once
    assert run.metric("states", 0) == run.metric("states", 1)
    assert run.metric("traffic")["bytes"] == {"all_reduce": run.metric("states")["gradients"]}


def test_a_hostfile_of_this_machine_alone(tmp_path, no_process_left):
    hosts = tmp_path / "hosts"
    hosts.write_text("localhost slots=2  # this machine\n")
    run = launch.run("lab01", hostfile=hosts, node_rank=0, master_addr="127.0.0.1",
                     args=["--steps", "3"], out=tmp_path / "run")
    assert run.finished and run.info.ranks == 2


def test_the_lab_also_runs_by_hand(tmp_path):
    command = ["deepspeed", "--quiet", "--no_local_rank", "--master_port", str(env.free_port()),
               "--num_accelerators", "2", "train.py", "--steps", "2", "--run_dir", str(tmp_path)]
    environ = {key: value for key, value in os.environ.items() if key != PARENT}
    done = subprocess.run(command, cwd=LAB, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(read_rank(tmp_path / "rank1.jsonl")) == 6  # start, 2 metrics, 2 steps, end


def test_the_lab_runs_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "empty"))
    run = launch.run("lab01", ranks=2, args=["--steps", "2"], out=tmp_path / "run")
    assert run.finished and env.compiler() is None
