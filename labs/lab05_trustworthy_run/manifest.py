"""Whole or not? A manifest, written last and in one piece, says what a checkpoint must hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

NAME = "manifest.json"


def write(folder: Path, **facts: Any) -> None:
    """Seal a checkpoint: sizes and SHA-256 of all its files, and ``facts`` such as ``step=16``.

    Call it when every rank has written its files. The new name appears in one move (``os.replace``),
    after the bytes are on the disk (``fsync``): after a kill there is a whole manifest or none. When
    this returns, the names are on the disk too, so that older checkpoints may be deleted.
    """
    (folder / NAME).unlink(missing_ok=True)
    files = {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest(path, sync=True)}
             for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".part"}
    body = {**facts, "files": files}
    text = json.dumps({**body, "check": _check(body)}, indent=1)
    part = folder / f"{NAME}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / NAME)
    sync_folder(folder)
    sync_folder(folder.parent)  # there stands the checkpoint's own name


def digest(path: Path, *, sync: bool = False) -> str:
    """SHA-256 of a file; with ``sync`` its bytes are on the disk before this returns."""
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest. Raises ValueError, with the reason, if there is none to be believed."""
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        check = found.pop("check")
    except FileNotFoundError:
        raise ValueError("it has no manifest: it was cut off while being written") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ValueError("its manifest is damaged") from None
    if check != _check(found):
        raise ValueError("its manifest is damaged")
    return found


def problem(folder: Path) -> str:
    """Why this checkpoint cannot be used, as a sentence; empty if it is whole, to the byte."""
    try:
        files = read(folder)["files"]
    except ValueError as error:
        return str(error)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes, not {expected['bytes']:,}"
        if digest(path) != expected["sha256"]:
            return f"{name} holds other bytes than were written"
    return ""


def candidates(folder: Path) -> list[Path]:
    """All checkpoints in a folder, whole or not, newest first (names sort by step)."""
    return sorted((path for path in folder.glob("step*") if path.is_dir()), reverse=True)


def newest_whole(folder: Path) -> tuple[Path | None, list[tuple[str, str]]]:
    """(newest checkpoint that is whole, or None; those passed over on the way: name, reason)."""
    skipped = []
    for path in candidates(folder):
        reason = problem(path)
        if not reason:
            return path, skipped
        skipped.append((path.name, reason))
    return None, skipped


def prune(folder: Path, keep: int) -> None:
    """Delete what is older than the newest ``keep`` sealed checkpoints, the manifest of each first."""
    sealed = [path for path in candidates(folder) if (path / NAME).exists()]
    for path in candidates(folder) if len(sealed) > keep else []:
        if path < sealed[keep - 1]:
            (path / NAME).unlink(missing_ok=True)  # a kill from here on leaves no checkpoint that looks whole
            shutil.rmtree(path)
