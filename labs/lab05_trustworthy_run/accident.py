"""A planned accident: one rank is killed with SIGKILL, which no program can catch or clean up after."""

from __future__ import annotations

import io
import os
import random
import signal
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from labkit import env


@dataclass(frozen=True)
class Accident:
    """Kill ``rank`` when ``step`` steps are done, or in the next checkpoint that it writes after them."""

    step: int
    rank: int
    saving: bool

    def after(self, step: int) -> None:
        """Call it when ``step`` steps are done and recorded."""
        if step == self.step and not self.saving:
            distributed.barrier()  # the others have recorded the step, too
            if distributed.get_rank() == self.rank:
                die()

    def plant(self, engine: Any, step: int) -> None:
        """Call it before checkpoint ``step``: DeepSpeed's writer will stop half-way through a file."""
        if self.saving and step >= self.step and distributed.get_rank() == self.rank:
            engine.checkpoint_engine.save = half_then_die


def choose(step: str | None, rank: int | None, saving: bool, steps: int, every: int,
           seed: int) -> Accident | None:
    """The accident that the flags ask for; "random" takes any step, rank and kind.

    Raises UserError if it would never happen.
    """
    world_size, last_save = distributed.get_world_size(), steps - steps % every
    if step is None:
        return None
    if step == "random":
        chooser = random.Random(f"accident {seed}")
        saving = last_save > 0 and chooser.random() < 0.5
        last = last_save if saving else steps - 1
        return Accident(chooser.randint(1, last), chooser.randrange(world_size), saving)
    last = last_save if saving else steps
    if int(step) > last:
        what = "the last checkpoint is written" if saving else "the run ends"
        raise env.UserError(f"--kill-at {step}: {what} after {last} steps, so give {last} at most")
    if rank is not None and rank >= world_size:
        raise env.UserError(f"--kill-rank {rank}: there are {world_size} ranks, from 0 on")
    return Accident(int(step), world_size - 1 if rank is None else rank, saving)


def half_then_die(state_dict: Any, path: str) -> None:
    """In the place of DeepSpeed's writer: half of the file's bytes reach the disk."""
    whole = io.BytesIO()
    torch.save(state_dict, whole)
    with open(path, "wb") as file:
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.fsync(file.fileno())
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
