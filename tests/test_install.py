"""The installer runs before anything else: each gap gets one sentence and exit code 2."""

import builtins
import shutil
import sys
from collections import namedtuple

import pytest

from labkit import install


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
def test_what_pip_complains_of_is_told(tmp_path, capsys, pip_says, cure):
    fake = tmp_path / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    (tmp_path / "says").write_text(pip_says)
    fake.write_text(f'#!/bin/sh\n[ "$3" = --version ] && exit 0\ncat {tmp_path}/says\nexit 1\n')
    fake.chmod(0o755)
    said = stopped(capsys, install.install, str(tmp_path / ".venv"))
    assert "pip could not install the packages" in said and cure in said
