"""The installer runs before anything else: each gap gets one sentence and exit code 2."""

import builtins
import shutil
import socket
import sys
from collections import namedtuple
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from labkit import install


@pytest.fixture
def machine(monkeypatch):
    """Tell the installer what it finds: by default Linux, no GPU, an empty environment, a network."""

    def find(*, system="linux", gpu=False, installed="", settings="", silent=(), torch=""):
        def output(_python, *command):
            return settings if command == ("-m", "pip", "config", "list") else installed

        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(install, "has_gpu", lambda: gpu)
        monkeypatch.setattr(install, "output", output)
        monkeypatch.setattr(install, "answers", lambda index: index not in silent)
        monkeypatch.setenv("TORCH", torch)
        return install.choose_torch("python")

    return find


def stopped(capsys, function, *arguments):
    with pytest.raises(SystemExit) as stop:
        function(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_this_machine_will_do(tmp_path):
    install.check(str(tmp_path / ".venv"))


@pytest.mark.parametrize("version", [(3, 10, 4), (3, 14, 0)])
def test_a_python_too_old_or_too_new(tmp_path, capsys, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    said = stopped(capsys, install.check, str(tmp_path / ".venv"))
    assert f"this is Python 3.{version[1]}, the course needs 3.11 to 3.13" in said


def test_no_venv_module(tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "ensurepip":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "has no venv module; install it" in stopped(capsys, install.check, str(tmp_path / ".venv"))


def test_no_disk(tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9e9, 8e9, 1e9))
    assert "only 1.0 GB free" in stopped(capsys, install.check, str(tmp_path / ".venv"))


def test_no_right_to_write(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "cannot write to" in stopped(capsys, install.check, str(tmp_path / ".venv"))


@pytest.mark.parametrize("pip_says, cure", [
    ("WARNING: Retrying … NewConnectionError('no new connection')", "connect to the network"),
    ("ERROR: Could not install packages: [Errno 28] No space left on device", "the disk is full"),
    ("ERROR: No matching distribution found for torch==2.13.0", "not to be had for this machine"),
    ("ERROR: something nobody has seen before", "its last lines are above"),
])
def test_what_pip_complains_of_is_told(tmp_path, capsys, monkeypatch, pip_says, cure):
    monkeypatch.setattr(install, "choose_torch", lambda python: (None, "any PyTorch"))
    fake = tmp_path / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    (tmp_path / "says").write_text(pip_says)
    fake.write_text(f'#!/bin/sh\n[ "$3" = --version ] && exit 0\ncat {tmp_path}/says\nexit 1\n')
    fake.chmod(0o755)
    said = stopped(capsys, install.install, str(tmp_path / ".venv"))
    assert "pip could not install the packages" in said and cure in said


# ---------------------------------------------------------------- which PyTorch

CPU = install.CPU_INDEX
ELSEWHERE = "https://example.org/whl/rocm"


@pytest.mark.parametrize("found, index, why", [
    ({}, CPU, "without CUDA, because there is no NVIDIA GPU"),
    ({"gpu": True}, None, "with CUDA, because there is an NVIDIA GPU"),
    ({"system": "darwin"}, None, "on this system it comes without CUDA"),
    ({"silent": [CPU]}, None, f"there is no NVIDIA GPU, but {CPU} does not answer"),
    ({"settings": ":env:.index-url='https://mirror'"}, None, "the package index that pip is set to"),
    ({"settings": "global.extra-index-url='https://mine'"}, None, "the package index that pip is set to"),
    ({"settings": ":env:.cert='/etc/ssl'"}, CPU, "without CUDA"),
    ({"installed": "2.13.0+cpu"}, None, "PyTorch 2.13.0+cpu is there already; `make clean` first"),
    ({"installed": "2.12.0+cpu"}, CPU, "without CUDA"),  # another than the pinned one is no reason to stay
    ({"torch": "cuda"}, None, "because TORCH=cuda"),
    ({"torch": "cpu", "gpu": True}, CPU, f"PyTorch from {CPU}, because TORCH=cpu"),
    ({"torch": "cpu", "settings": ":env:.index-url='https://mirror'"}, CPU, "because TORCH=cpu"),
    ({"torch": ELSEWHERE}, ELSEWHERE, f"PyTorch from {ELSEWHERE}"),
])
def test_the_build_of_pytorch_is_chosen_and_the_reason_told(machine, found, index, why):
    chosen, said = machine(**found)
    assert chosen == index
    assert why in said


def test_a_wish_that_cannot_be_met_is_told(machine, capsys):
    said = stopped(capsys, partial(machine, torch="cpu", silent=[CPU]))
    assert f"TORCH=cpu asks for PyTorch from {CPU}, which does not answer" in said
    assert "give cpu, cuda, or the address" in stopped(capsys, partial(machine, torch="gpu"))


def test_an_index_that_is_added_reaches_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "choose_torch", lambda python: (ELSEWHERE, "because"))
    fake = tmp_path / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    fake.chmod(0o755)
    install.install(str(tmp_path / ".venv"))
    called = (tmp_path / "called").read_text()
    assert called.startswith("-m pip install ") and called.endswith(f" --extra-index-url {ELSEWHERE}\n")


def test_the_newest_are_taken_without_constraints_and_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(install, "choose_torch", lambda python: (None, "because"))
    pins, calls = tmp_path / "constraints.txt", tmp_path / "calls"
    pins.write_text("torch==2.13.0\njupyter_core==5.9.1\ntqdm==4.70.1\n")
    monkeypatch.setattr(install, "CONSTRAINTS", str(pins))

    def make_venv(_command):
        fake = tmp_path / "latest" / "bin" / "python"
        fake.parent.mkdir(parents=True)
        lists = "printf 'torch==2.13.1+cpu\\njupyter-core==5.9.1\\ntqdm==4.71.0\\n'"
        fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n[ "$3" = list ] && {lists}\nexit 0\n')
        fake.chmod(0o755)

    monkeypatch.setattr(install.subprocess, "check_call", make_venv)
    install.install(str(tmp_path / "latest"), latest=True)
    said = capsys.readouterr().out
    assert "pinned 2.13.0" in said and "here 2.13.1" in said and "here 4.71.0" in said
    assert "jupyter" not in said and said.endswith("2 packages differ from constraints.txt\n")
    assert "--constraint" not in calls.read_text()


@pytest.mark.timeout(60)
def test_an_index_that_accepts_and_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(install, "PATIENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not install.answers(f"https://127.0.0.1:{silent.getsockname()[1]}")
    assert not install.answers("https://127.0.0.1:9")


def test_an_index_answers_when_it_has_a_page_for_torch(tmp_path):
    serve = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        index = f"http://127.0.0.1:{server.server_port}"
        assert not install.answers(index)
        (tmp_path / "torch").mkdir()
        assert install.answers(index) and install.answers(index + "/")
        server.shutdown()


@pytest.mark.parametrize("tool, device, gpu", [
    (None, None, False), ("nvidia-smi", None, True), (None, "/dev/nvidia0", True), (None, "/dev/kfd", False),
])
def test_signs_of_an_nvidia_gpu(monkeypatch, tool, device, gpu):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == tool else None)
    monkeypatch.setattr("os.path.exists", lambda path: path == device)
    assert install.has_gpu() is gpu


@pytest.mark.parametrize("index_has, said, kept", [
    (None, "was not to be had", False), (b"another file", "is not the one that the course pins", False),
    (b"the wheel", "", True)])
def test_the_wheel_is_fetched_checked_and_never_a_reason_to_stop(tmp_path, capsys, monkeypatch, index_has,
                                                                 said, kept):
    asked = []

    def pip(command, **_):
        asked.append(command)
        if index_has:
            (tmp_path / install.WHEEL).write_bytes(index_has)
        return 0 if index_has else 1

    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(install.subprocess, "call", pip)
    monkeypatch.setattr(install, "WHEEL_SHA256", install.hashlib.sha256(b"the wheel").hexdigest())
    install.fetch("environment")
    install.fetch("environment")
    assert len(asked) == (1 if kept else 2)  # what is there is not fetched again
    assert "homeassistant==2026.2.3" in asked[0] and "--no-deps" in asked[0]
    assert (tmp_path / install.WHEEL).exists() == kept
    out = capsys.readouterr().out
    assert said in out and bool(out) == bool(said)
