"""Lab 1 under the real launcher: equal losses, killed ranks, planted errors, nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from labkit import env, hosts, launch, processes
from labkit.records import PARENT, RunInfo, read_rank, read_run

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


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_the_signal_that_ended_a_process_is_read_before_its_parent_waits():
    killed, ended = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["false"])
    assert processes.signal_of(killed.pid) is None
    killed.kill()
    while processes.is_alive(killed.pid) or processes.is_alive(ended.pid):
        time.sleep(0.01)
    assert processes.signal_of(killed.pid) == signal.SIGKILL
    assert processes.signal_of(ended.pid) is None
    killed.wait()
    ended.wait()
    assert processes.signal_of(killed.pid) is None


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


@pytest.mark.parametrize(("says", "whole"), [
    ("terminate called without an active exception", True),  # gloo's threads, now and then
    ("something else", False),
])
def test_an_abort_after_the_last_record_is_told_from_one_that_matters(tmp_path, monkeypatch, says, whole):
    lab = tmp_path / "labs" / "lab98_aborts"
    lab.mkdir(parents=True)
    abort = f"    print({says!r}, flush=True)\n    import os\n    os.abort()"
    source = (LAB / "train.py").read_text().replace("    distributed.destroy_process_group()", abort)
    (lab / "train.py").write_text(source)
    (lab / "ds_config.json").write_text((LAB / "ds_config.json").read_text())
    monkeypatch.setattr(launch, "labs", lambda: {"lab98": lab})
    if whole:
        assert len(launch.run("lab98", ranks=1, args=["--steps", "3"], out=tmp_path / "run").losses) == 3
    else:
        with pytest.raises(launch.LabFailed, match="every rank reached its end"):
            launch.run("lab98", ranks=1, args=["--steps", "3"], out=tmp_path / "run")


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


def test_a_silent_run_is_ended_and_says_if_the_machine_is_busy(tmp_path, monkeypatch, no_process_left):
    monkeypatch.setattr(env, "load", lambda: 7.5)
    monkeypatch.setattr(env, "cores", lambda: 2)
    with pytest.raises(launch.LabFailed, match="no rank has written a record for 1 s") as ended:
        launch.run("lab01", ranks=2, out=tmp_path / "run", timeout=1)
    assert "The machine is busy (load 7.5 on 2 cores): end other programs, take fewer ranks, or give a " \
        "longer --timeout. No rank had made a step." in str(ended.value)
    assert processes_of(tmp_path / "run") == []


LATE = """
import pathlib, sys, time
from labkit import env
import torch
mark = pathlib.Path(sys.argv[1])
if env.os.environ["RANK"] == "1":
    time.sleep(3)  # longer than a collective may wait: at the meeting that is allowed
env.init_distributed(2.0, meet_seconds=100.0)
if env.os.environ["RANK"] == "0":
    try:
        torch.distributed.all_reduce(torch.ones(1))
    except RuntimeError as error:
        mark.write_text(str(error))
while not mark.exists():
    time.sleep(0.1)
env.os._exit(0)
"""


def test_ranks_wait_longer_to_meet_than_in_a_collective(tmp_path, no_process_left):
    mark, port = tmp_path / "raised", str(env.free_port())
    together = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "DS_ACCELERATOR": "cpu"}
    ranks = [subprocess.Popen([sys.executable, "-c", LATE, str(mark)],
                              env={**together, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    assert [rank.wait(timeout=280) for rank in ranks] == [0, 0]
    assert "2000ms" in mark.read_text()


@pytest.mark.parametrize(("load", "words"), [
    (0.5, "is not busy (load 0.5 on 2 cores): a rank waits"), (None, "give a longer --timeout")])
def test_a_machine_that_is_not_busy(monkeypatch, load, words):
    monkeypatch.setattr(env, "load", lambda: load)
    monkeypatch.setattr(env, "cores", lambda: 2)
    assert words in launch._how_busy()


def test_patience_grows_with_load_and_with_a_slow_start_unless_the_reader_says_how_long(monkeypatch):
    monkeypatch.setattr(env, "cores", lambda: 2)
    info = RunInfo(lab="lab01", command=[], ranks=2, started="")
    for load, first, seconds in ((None, None, 300), (1.0, 8.0, 300), (6.0, 8.0, 900), (1.0, 40.0, 1200),
                                 (200.0, 8.0, 3000)):
        monkeypatch.setattr(env, "load", lambda load=load: load)
        watch = launch._Watch(info, Path("."), 2, False, None)
        watch.first_record = first
        assert watch._patience() == seconds
        watch.timeout = 7.0
        assert watch._patience() == 7.0


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


def test_a_hostfile_is_read_as_deepspeed_reads_it(tmp_path):
    from deepspeed.launcher.runner import _parse_hostfile

    text = ("# a comment\n\n  node1 slots=8 max_slots=8\nnode2\tslots=4  # four GPUs\n"
            "10.0.0.3   slots=2,\nnode#4 slots=1\n")
    path, said = tmp_path / "hosts", []
    path.write_text(text)
    assert hosts.read_hostfile(path, said.append) == dict(_parse_hostfile(text.splitlines(keepends=True)))
    assert said == [f"{path}, line 3: DeepSpeed reads slots=8 and ignores 'max_slots=8'",
                    f"{path}, line 5: DeepSpeed reads slots=2 and ignores ','"]


@pytest.mark.parametrize("line", ["node1", "node1 slots=", "node1 slots = 2", "node1 slot=2", "slots=2",
                                  "node1 max_slots=2 slots=2"])
def test_a_hostfile_that_deepspeed_refuses_is_refused(tmp_path, line):
    from deepspeed.launcher.runner import _parse_hostfile

    with pytest.raises(ValueError, match="bad entry"):
        _parse_hostfile([line])
    (tmp_path / "hosts").write_text(line)
    with pytest.raises(env.UserError, match=r"line 1: .* is not of the form"):
        hosts.read_hostfile(tmp_path / "hosts")


NAMES = ["node0", "node1", "node2"]


def come(node_rank, port, *, names=NAMES, address="127.0.0.1", seconds=20.0, about="lab01", told=None):
    """A thread that is one host's labkit; what it was refused with goes into ``told``."""
    def host():
        try:
            hosts.meet(names, node_rank, address, port, seconds=seconds, about=about)
            told.append((node_rank, "met"))
        except env.UserError as error:
            told.append((node_rank, str(error)))
    thread = threading.Thread(target=host)
    thread.start()
    return thread


def test_hosts_started_by_hand_in_any_order_wait_for_each_other():
    port, told = env.free_port(), []
    late_first = [come(node_rank, port, told=told) for node_rank in (2, 0)]
    time.sleep(0.5)
    assert told == []  # host 1 has not come
    for thread in [*late_first, come(1, port, told=told)]:
        thread.join(20)
    assert sorted(told) == [(0, "met"), (1, "met"), (2, "met")]


def visit(port, **hello):
    """A connection to host 0, as soon as it listens, that has said this."""
    deadline = time.monotonic() + 20
    while True:
        try:
            guest = socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            guest.sendall(json.dumps(hello).encode() + b"\n")
            return guest


def test_a_host_that_would_run_something_else_is_refused():
    port, told = env.free_port(), []
    host0 = come(0, port, names=NAMES[:2], seconds=30.0, told=told)
    with visit(port, node_rank=1, about="lab02") as guest:
        assert b"host 0 runs lab01, this host lab02" in guest.makefile("rb").readline()
    come(1, port, names=NAMES[:2], told=told).join(30)
    host0.join(30)
    assert sorted(told) == [(0, "met"), (1, "met")]


def test_a_host_that_goes_away_again_is_missed():
    port, told = env.free_port(), []
    host0 = come(0, port, seconds=6.0, told=told)
    visit(port, node_rank=1, about="lab01").close()
    with visit(port, node_rank=2, about="lab01"):
        host0.join(30)
    assert told[0][1].startswith("after 6 s node1 (--node-rank 1) had not come to 127.0.0.1 port")


def test_who_is_missing_is_named_with_what_to_look_at():
    port, told = env.free_port(), []
    for thread in (come(2, port, seconds=6.0, told=told), come(0, port, seconds=3.0, told=told)):
        thread.join(30)
    (_, host0), (_, host2) = sorted(told)
    assert host0.startswith(f"after 3 s node1 (--node-rank 1) had not come to 127.0.0.1 port {port}: ")
    assert host2.startswith("after 6 s this host had not met host 0 (node0) at 127.0.0.1 port")
    for sentence in (host0, host2):
        assert "\n" not in sentence
        for word in ("--master-addr", "--node-rank", "firewall", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            assert word in sentence


def test_the_same_number_twice_is_refused():
    port, told = env.free_port(), []
    threads = [come(0, port, told=told), come(1, port, told=told)]
    time.sleep(1.5)
    come(1, port, told=told).join(20)
    assert told == [(1, "--node-rank 1 is taken: give each host its own number, 0 to 2")]
    for thread in [*threads, come(2, port, told=told)]:
        thread.join(20)
    assert len(told) == 4


@pytest.mark.parametrize(("address", "node_rank", "says"), [
    ("192.0.2.1", 1, "had not met host 0 (node0) at 192.0.2.1 port"),  # an address for examples: nobody's
    ("no.such.host.invalid", 1, "had not met host 0 (node0) at no.such.host.invalid port"),
    ("no.such.host.invalid", 0, "--master-addr no.such.host.invalid means nothing to this host"),
])
def test_a_wrong_address_gets_a_sentence(address, node_rank, says):
    told = []
    come(node_rank, env.free_port(), address=address, seconds=1.5, told=told).join(60)
    assert says in told[0][1]


def test_two_hosts_started_by_hand(tmp_path):
    """Both are this machine; the second one comes late."""
    hostfile, port = tmp_path / "hosts", str(env.free_port())
    hostfile.write_text("node0 slots=1 max_slots=1\nnode1 slots=1\n")
    together = ["--steps", "3", "--layers", "1", "--hidden", "32", "--hostfile", str(hostfile),
                "--master-addr", "127.0.0.1", "--master-port", port]
    started = []
    for node_rank in ("0", "1"):
        folder = tmp_path / node_rank
        folder.mkdir()
        started.append(start(folder, *together, "--node-rank", node_rank))
    for process, out in started:
        said, message = process.communicate(timeout=280)
        assert process.returncode == 0, message
        assert "2 ranks (1 recorded here)" in said and "ignores 'max_slots=1'" in said
        assert processes_of(out) == []
    losses = [read_run(out).losses for _, out in started]
    assert losses[0] != losses[1] and len(losses[0]) == 3  # each its half of the batch


@pytest.mark.parametrize("ranks", [3, 5])
def test_a_number_of_ranks_that_does_not_divide_the_batch(tmp_path, ranks, capsys, no_process_left):
    run = launch.run("lab01", ranks=ranks, out=tmp_path / "run",
                     args=["--steps", "3", "--layers", "1", "--hidden", "32"])
    assert run.finished and run.losses[-1] < run.losses[0]
    assert capsys.readouterr().out == (f"train_batch_size 16 does not divide among {ranks} ranks: taking 15, "
                                       f"{15 // ranks} a rank\n")
    taken = Path(run.info.command[run.info.command.index("--config") + 1])
    assert taken == run.folder / "ds_config.json"
    own = json.loads((LAB / "ds_config.json").read_text())
    assert json.loads(taken.read_text()) == {**own, "train_batch_size": 15}


TAKEN = {  # by each lab, on 1 to 8 ranks; None: its own file, which says what one rank takes
    "lab01": [16, 16, 15, 16, 15, 18, 14, 16], "lab02": [32, 32, 36, 32, 40, 24, 28, 32], "lab03": [None] * 8,
    "lab04": [32, 32, 33, 32, 30, 30, 35, 32], "lab05": [16, 16, 18, 16, 20, 12, 14, 16],
    "lab06": [32, 32, 24, 32, 40, 48, 56, 64],
    "lab07": [8, 8, 9, 8, 10, 12, 7, 16]}


@pytest.mark.parametrize("lab", TAKEN)
def test_every_lab_goes_on_one_to_eight_ranks(lab, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: runs.append(self.info))
    for ranks in range(1, 9):
        launch.run(lab, ranks=ranks, out=tmp_path / str(ranks))
    configs_taken = [Path(info.command[info.command.index("--config") + 1]) for info in runs]
    batches = [json.loads(path.read_text()).get("train_batch_size") for path in configs_taken]
    assert batches == TAKEN[lab]
    own = launch.find_lab(lab) / "ds_config.json"
    assert [path == own for path in configs_taken] == [batch in (None, batches[0]) for batch in batches]


def test_a_lab_starts_on_the_nearest_batch_only_with_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: pytest.fail("a process was about to start"))
    with pytest.raises(env.UserError, match="set it to 15 or 18, or take --ranks"):
        launch.run("lab01", ranks=3, config=LAB / "ds_config.json", out=tmp_path / "run")
    with pytest.raises(env.UserError, match="--config among the lab's own flags would not be checked"):
        launch.run("lab01", ranks=2, args=["--config", "mine.json"], out=tmp_path / "run")


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
