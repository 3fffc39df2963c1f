"""The file of a sweep: written after each finished point, continued by the next call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from labkit.env import UserError


def read(path: Path, settings: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The file of an earlier call, or a new one. ``keys`` tell its points apart.

    Raises UserError if it is another sweep's.
    """
    if not path.exists():
        return {"settings": settings, "points": []}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        held = found["settings"]
        done = [tuple(point[key] for key in keys) for point in found["points"]]
    except (ValueError, KeyError, TypeError, OSError):
        raise UserError(f"{path} is not a file of this sweep: choose another --out") from None
    for key, value in settings.items():
        if held.get(key) != value:
            raise UserError(f"{path} holds a sweep with another {key} ({held.get(key)} there, {value} "
                            "here): choose another --out")
    if len(set(done)) < len(done):
        raise UserError(f"{path} holds a point twice: choose another --out")
    return found


def write(path: Path, result: dict[str, Any]) -> None:
    """The whole file or nothing: it is written beside, then renamed."""
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
