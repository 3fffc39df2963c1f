"""Save and load all that a run's next step depends on: DeepSpeed's state, and what it does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import manifest
import torch
from torch import distributed

from labkit import env


def save(engine: Any, folder: Path, step: int, settings: dict[str, Any], keep: int) -> None:
    """Write checkpoint ``step`` (so many steps are done), seal it, delete old ones. All ranks call it."""
    path = folder / f"step{step:06d}"
    engine.save_checkpoint(str(folder), path.name)  # weights, moments, master weights, schedule, counters
    torch.save(random_state(), path / f"random_rank{distributed.get_rank()}.pt")
    distributed.barrier()  # only now are all ranks' files there
    if distributed.get_rank() == 0:
        manifest.write(path, step=step, ranks=distributed.get_world_size(), settings=settings)
        manifest.prune(folder, keep)
    distributed.barrier()  # no rank trains on before the checkpoint counts


def random_state() -> dict[str, torch.Tensor]:
    """This rank's generators. DeepSpeed's ``client_state`` would keep rank 0's only."""
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if env.use_gpu() else {})


def choose(folder: Path, settings: dict[str, Any]) -> tuple[Path | None, int, list[tuple[str, str]]]:
    """(checkpoint, steps done, those passed over): rank 0 looks, and tells the others.

    Raises UserError on every rank if the checkpoint is of another run than this one.
    """
    found: list = [None]
    if distributed.get_rank() == 0:
        path, skipped = manifest.newest_whole(folder)
        found = [(path, manifest.read(path) if path else {"step": 0}, skipped)]
    distributed.broadcast_object_list(found)
    path, facts, skipped = found[0]
    ranks = distributed.get_world_size()
    if path and facts["ranks"] != ranks:
        raise env.UserError(f"{path} was written by {facts['ranks']} ranks, this run has {ranks}: give "
                            f"--ranks {facts['ranks']}, or convert it (DeepSpeed's universal checkpoint)")
    for name in sorted(facts["settings"] | settings) if path else ():
        then, now = facts["settings"].get(name), settings.get(name)
        if then != now:
            raise env.UserError(f"{path} was written with {name} {then}, this run has {now}: "
                                "a resumed run needs the same settings")
    return path, facts["step"], skipped


def load(engine: Any, path: Path) -> None:
    """Put everything back as it was when ``path`` was written."""
    if engine.load_checkpoint(str(path.parent), path.name)[0] is None:  # it warns only, and goes on
        raise env.UserError(f"DeepSpeed could not load {path}")
    state = torch.load(path / f"random_rank{distributed.get_rank()}.pt")
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and env.use_gpu():
        torch.cuda.set_rng_state(state["cuda"])
