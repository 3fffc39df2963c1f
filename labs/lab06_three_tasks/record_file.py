"""The file of a comparison: written after each finished run, continued by the next call."""

import json
import os
import platform
from pathlib import Path

import torch
import transformers

from labkit.env import UserError


def begin(path: Path, command: str, settings: dict, **parts: list | dict) -> dict:
    """The file of an earlier call, or a new one with empty `parts`; written at once, to know that it can be.

    Raises UserError if it is another comparison's, or cannot be written.
    """
    result = {"command": command, "settings": settings,
              "device": f"cpu, 1 thread a run, {platform.machine()}",
              "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                           "transformers": transformers.__version__}, **parts}
    if path.exists():
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            held = result["settings"]
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(f"{path} is not a file of this script: choose another --out") from None
        for key, value in settings.items():
            if held.get(key) != value:
                raise UserError(f"{path} holds runs with another {key}: choose another --out")
    write(path, result)
    return result


def write(path: Path, result: dict) -> None:
    """The whole file or nothing: it is written beside, then renamed."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
