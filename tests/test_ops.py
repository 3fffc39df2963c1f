"""DeepSpeed's compiled ops: what a file needs, stale and held locks, a build that fails or is interrupted."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest

from labkit import env, launch, ops

ADAM = {"type": "Adam", "params": {"lr": 1e-3}}
CPU, NVME = {"device": "cpu"}, {"device": "nvme", "nvme_path": "/tmp"}
HOLD = ("import os, sys, time\nos.open(sys.argv[1], os.O_CREAT | os.O_EXCL)\n"
        "print('held', flush=True)\ntime.sleep(60)")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of compiled ops."""
    folder = tmp_path / "torch_extensions"
    folder.mkdir()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(folder))
    return folder


@pytest.fixture
def held_lock(cache):
    """(the lock, the process that holds it open, as torch's FileBaton does)."""
    lock = cache / "fused_adam" / "lock"
    lock.parent.mkdir()
    builder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    builder.stdout.readline()
    yield lock, builder
    builder.kill()
    builder.wait()


def stale_lock(cache, op="fused_adam"):
    lock = cache / op / "lock"
    lock.parent.mkdir(exist_ok=True)
    lock.touch()
    return lock


def compiler(folder, script):
    """A C++ compiler that does what ``script`` says, first on the PATH."""
    path = folder / "c++"
    version = 'case "$*" in -v|--version|-dump*) echo COLLECT_GCC=c++; echo gcc version 12.2.0; exit 0;; esac'
    path.write_text(f"#!/bin/sh\n{version}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def config(tmp_path, **changes):
    path = tmp_path / "adam.json"
    kept = {"train_batch_size": 16, "gradient_clipping": 0.0, "optimizer": ADAM}
    path.write_text(json.dumps(kept | changes))
    return path


@pytest.mark.parametrize(("optimizer", "zero", "needs"), [
    (ADAM, None, ("fused_adam",)),
    ({**ADAM, "type": "adamW"}, {"stage": 2}, ("fused_adam",)),
    ({"type": "AdamW"}, None, ("fused_adam",)),
    ({"type": "AdamW", "params": {"torch_adam": True}}, {"stage": 2, "offload_optimizer": CPU}, ()),
    (ADAM, {"stage": 2, "offload_optimizer": CPU}, ("cpu_adam",)),
    (ADAM, {"stage": 2, "cpu_offload": True}, ("cpu_adam",)),
    (ADAM, {"stage": 3, "offload_optimizer": {"device": "none"}}, ("fused_adam",)),
    (ADAM, {"stage": 3, "offload_optimizer": NVME}, ("cpu_adam", "async_io", "pin_memory")),
    ({"type": "SGD", "params": {"lr": 1}}, {"stage": 3, "offload_param": NVME},
     ("async_io", "pin_memory")),
    ({"type": "Adagrad"}, {"stage": 1, "offload_optimizer": CPU}, ("cpu_adagrad",)),
    ({"type": "Adagrad"}, None, ()),
    ({"type": "Lion"}, {"stage": 1, "offload_optimizer": CPU}, ("cpu_lion",)),
    ({"type": "SGD", "params": {"lr": 1}}, True, ()),
    (None, None, ()),
])
def test_what_a_file_needs(optimizer, zero, needs):
    found = env.needed_ops({"optimizer": optimizer, "zero_optimization": zero})
    assert found == needs and set(found) <= set(env.OPS)


def test_deepspeed_agrees_on_who_builds_each_op():
    import deepspeed.ops.op_builder as builders

    for op, builder in env.OPS.items():
        made = getattr(builders, builder)()
        assert made.name in (op, "deepspeed_not_implemented"), builder


def test_a_stale_lock_is_removed_and_a_held_one_is_not(cache, held_lock):
    stale, said = stale_lock(cache, "deepspeed_shm_comm"), []
    lock, builder = held_lock
    assert ops.remove_stale_locks(said.append) == [stale] and ops.locks() == [lock]
    assert said == ["removed the lock of a compilation that was killed (deepspeed_shm_comm)"]
    assert ops.holder(lock) == f"process {builder.pid}"
    builder.kill()
    builder.wait()
    assert ops.holder(lock) is None and ops.remove_stale_locks() == [lock] and ops.locks() == []


def test_a_lock_that_cannot_be_looked_at_is_believed_for_a_while(cache, monkeypatch):
    lock = stale_lock(cache)

    def closed(self):
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "open_files", closed)  # and this test is a Python process
    assert ops.holder(lock) == "a process of another user" and ops.remove_stale_locks() == []
    long_ago = time.time() - 2 * ops.BELIEVED_SECONDS
    os.utime(lock, (long_ago, long_ago))
    assert ops.remove_stale_locks() == [lock]


def test_a_held_lock_is_waited_for_with_a_sentence(cache, held_lock, monkeypatch):
    lock, builder = held_lock
    said, slept = [], []

    def done_soon(seconds):
        slept.append(seconds)
        if len(slept) == 2:  # the other build ends well: the lock goes, the op is there
            (lock.parent / "fused_adam.so").touch()
            lock.unlink()

    monkeypatch.setattr(ops.time, "sleep", done_soon)
    ops.build(["fused_adam"], say=said.append)
    assert said == [f"process {builder.pid} compiles fused_adam at the moment: waiting for it …"]
    assert len(slept) == 2


def test_a_run_removes_what_a_killed_build_left(cache, tmp_path, monkeypatch, capsys):
    stale_lock(cache)
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: None)
    launch.run("lab01", ranks=2, out=tmp_path / "run")
    assert "removed the lock of a compilation that was killed (fused_adam)" in capsys.readouterr().out
    assert ops.locks() == []


def test_without_a_compiler_a_plain_adam_gets_a_sentence(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: pytest.fail("a process was about to start"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(env.UserError) as refused:
        launch.run("lab01", ranks=2, config=config(tmp_path), out=tmp_path / "run")
    assert str(refused.value) == (
        'adam.json ("type": "Adam") needs DeepSpeed\'s fused_adam, which must be compiled, and there is no '
        "C++ compiler: install g++ (Debian: build-essential, macOS: xcode-select --install); or "
        "`\"torch_adam\": true` in optimizer.params takes torch's Adam instead")
    assert not (tmp_path / "run").exists()


def test_what_is_ready_needs_no_compiler(cache, monkeypatch, tmp_path):
    (cache / "fused_adam").mkdir()
    (cache / "fused_adam" / "fused_adam.so").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    ops.build(["fused_adam"], say=pytest.fail)


def test_a_build_that_fails_tells_the_compilers_own_line(cache, tmp_path, monkeypatch, no_process_left):
    monkeypatch.setenv("PATH", compiler(tmp_path, "echo 'fused_adam.cpp:7:1: error: planted' >&2; exit 1"))
    said = []
    with pytest.raises(env.UserError, match=r"fused_adam could not be compiled: .*error: planted") as failed:
        ops.build(["fused_adam"], asked="adam.json", say=said.append)
    assert said[0].startswith("adam.json needs DeepSpeed's fused_adam: compiling it, once")
    assert '"torch_adam": true' in said[0] and "\n" not in str(failed.value)
    assert ops.locks() == [] and "planted" in (cache / "fused_adam.log").read_text()


@pytest.mark.parametrize(("text", "line"), [
    ("ninja: stopped\nx.cpp:1: fatal error: omp.h: No such file\nRuntimeError: building", "fatal error"),
    ("sh: 1: c++: not found\nninja: build stopped: subcommand failed.", "c++: not found"),
    ("Traceback\n  File x\nValueError: This op had not been implemented on CPU backend.", "ValueError: This"),
    ("", "without a word"),
])
def test_the_line_that_tells_why(text, line):
    assert line in ops.telling_line(text)


def test_a_missing_library_gets_a_sentence(cache, monkeypatch, no_process_left):
    monkeypatch.setenv("CFLAGS", "-nostdinc -nostdlib")  # so that the test program finds no libaio
    monkeypatch.setenv("LDFLAGS", "-nostdlib")
    with pytest.raises(env.UserError, match="async_io needs the library libaio with its headers"):
        ops.build(["async_io"], say=lambda _: None)


def test_an_interrupt_leaves_no_process_and_no_lock(cache, tmp_path):
    environ = dict(os.environ, PATH=compiler(tmp_path, "sleep 100"))
    command = [sys.executable, "-m", "labkit.cli", "run", "lab01", "--ranks", "2", "--config",
               str(config(tmp_path)), "--out", str(tmp_path / "run")]
    labkit = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lock, end = cache / "fused_adam" / "lock", time.monotonic() + 120
    while not lock.exists() and labkit.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert lock.exists(), labkit.communicate()
    family = psutil.Process(labkit.pid).children(recursive=True)
    labkit.send_signal(signal.SIGINT)
    said, message = labkit.communicate(timeout=60)
    assert labkit.returncode == 130 and "nothing is left running" in message
    assert 'adam.json ("type": "Adam") needs DeepSpeed\'s fused_adam: compiling it, once' in said
    assert family and not any(map(psutil.Process.is_running, family)) and ops.locks() == []
    assert not [each for each in psutil.process_iter(["cmdline"])  # a compiler whose parent was killed first
                if str(tmp_path) in " ".join(each.info["cmdline"] or ())]


def test_ranks_that_compile_are_not_silent(cache, tmp_path, monkeypatch):
    """A way of Lab 7 needs an op that nobody asked for: ranks compile it, longer than they may be silent."""
    monkeypatch.setenv("PATH", compiler(tmp_path, "sleep 12; echo 'x.cpp:1: error: planted' >&2; exit 1"))
    heard = []
    monkeypatch.setattr(launch.Progress, "note", lambda self, text: heard.append(text))
    monkeypatch.setattr(launch._Watch, "_patience", lambda self: 9.0 if self.steps else 300.0)
    with pytest.raises(env.UserError, match="DeepSpeed refuses offload on 1 ranks"):
        launch.run("lab07", ranks=1, args=["--ways", "offload", "--steps", "5", "--layers", "1"],
                   out=tmp_path / "run")
    assert "a rank compiles what DeepSpeed needs" in heard and ops.locks() == []


def test_doctor_tells_of_ops_and_locks(cache, held_lock, monkeypatch, tmp_path):
    stale_lock(cache, "cpu_adam")
    found = {finding.says: finding for finding in env._compiler()}
    assert "removed what a killed compilation left (cpu_adam): it would have made every later run wait for " \
        "ever" in found
    assert f"process {held_lock[1].pid} compiles fused_adam now" in found
    assert any(says.startswith("none ready; others are compiled on first use") for says in found)
    monkeypatch.setenv("PATH", str(tmp_path))
    *_, last = env._compiler()
    assert last.ok is None and "install g++" in last.cure
    assert "Adam and AdamW without `\"torch_adam\": true` and offload to the CPU will not run" in last.says


def test_at_set_up_a_build_that_fails_does_not_stop(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = []
    ops.prepare(say=said.append)
    assert len(said) == 1 and said[0].endswith("Only what needs cpu_adam will not run")
