"""What a lab writes and a chapter reads: one JSON line a record, one file a rank.

``run.json`` in the run's folder says what was run; ``rank0.jsonl``, ``rank1.jsonl``, … say what each
rank did. A line is written whole and at once, so the records of a run that was killed are readable.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from labkit import processes
from labkit.env import UserError

PARENT = "LABKIT_PARENT"
"""Environment variable ``host:pid`` of the process that started the run; ranks end with it."""


class Record(BaseModel, extra="forbid", ser_json_inf_nan="constants"):
    """One line. ``seconds`` counts from the rank's first record; ``values`` depends on the event."""

    event: Literal["start", "step", "metric", "error", "end"]
    rank: int = Field(ge=0)
    seconds: float = Field(ge=0)
    values: dict[str, Any] = {}


class RunInfo(BaseModel, extra="forbid"):
    """What was run: the head of a run's folder."""

    lab: str
    command: list[str]
    ranks: int
    started: str
    versions: dict[str, str] = {}
    device: str = "cpu"


class Recorder:
    """Writes one rank's records. Use it as a context manager around the whole training::

        with Recorder(args.run_dir, total_steps=60) as record:
            record.step(0, loss=4.2, tokens=2048)

    An exception inside is recorded with its traceback before it goes on. Without ``run_dir``
    nothing is written, so a lab also runs by hand. Raises UserError if the folder can't be written.
    """

    def __init__(self, run_dir: str | Path | None, *, total_steps: int, rank: int | None = None) -> None:
        self.rank = int(os.environ.get("RANK", 0)) if rank is None else rank
        self.total_steps = total_steps
        self.began = time.perf_counter()
        self._file = None
        if run_dir is not None:
            path = Path(run_dir) / f"rank{self.rank}.jsonl"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)  # a line goes out whole, at once
            except OSError as error:
                raise UserError(f"cannot write records to {path}: {error.strerror}") from None
        _end_with_parent()

    def __enter__(self) -> "Recorder":
        self._write("start", pid=os.getpid(), host=socket.gethostname(), time=time.time(),
                    total_steps=self.total_steps)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._write("end")
        else:
            text = "".join(traceback.format_exception(kind, error, trace))
            try:
                self._write("error", kind=kind.__name__, message=str(error), traceback=text)
            except UserError as also:  # the disk is full: at least the log gets it
                print(also, file=sys.stderr)
        if self._file:
            self._file.close()

    def step(self, step: int, **values: float) -> None:
        """Record one optimizer step: ``loss`` and ``tokens`` of this rank, and what else is worth it."""
        self._write("step", step=step, **values)

    def metric(self, name: str, **values: Any) -> None:
        """Record something measured once, such as bytes of states."""
        self._write("metric", name=name, **values)

    def _write(self, event: str, **values: Any) -> None:
        if self._file is None:
            return
        record = Record(event=event, rank=self.rank, seconds=time.perf_counter() - self.began,
                        values=values)
        try:
            self._file.write(f"{record.model_dump_json()}\n".encode())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"disk full while writing {self._file.name}: free some space; "
                                "the records up to here are kept") from None
            raise


def _end_with_parent() -> None:
    """End this rank within a second when the process that started the run is gone."""
    host, _, pid = os.environ.get(PARENT, "").rpartition(":")
    if not pid or host != socket.gethostname():
        return

    def watch() -> None:
        while processes.is_alive(int(pid)):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Run:
    """A finished (or ended) run, read from its folder.

    ``info`` says what was run; ``ranks[r]`` is the list of rank r's records.
    """

    def __init__(self, folder: Path, info: RunInfo, ranks: dict[int, list[Record]]) -> None:
        self.folder, self.info, self.ranks = folder, info, ranks

    def __repr__(self) -> str:
        state = "finished" if self.finished else "not finished"
        return f"<run of {self.info.lab} on {self.info.ranks} ranks, {len(self.losses)} steps, {state}>"

    @property
    def finished(self) -> bool:
        """True if every rank reached its end."""
        return len(self.ranks) == self.info.ranks and all(
            records and records[-1].event == "end" for records in self.ranks.values())

    def series(self, name: str, rank: int = 0) -> list[float]:
        """The value ``name`` of each step on one rank, in order."""
        return [r.values[name] for r in self.ranks.get(rank, [])
                if r.event == "step" and name in r.values]

    @property
    def losses(self) -> list[float]:
        """Loss of the whole global batch at each step: the mean over ranks (nats per token)."""
        each = [self.series("loss", rank) for rank in sorted(self.ranks)]
        return [sum(losses) / len(losses) for losses in zip(*each, strict=False)]

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all ranks recorded here over the time between the first and the last step."""
        first = min(self.ranks, default=0)
        steps = [r for r in self.ranks.get(first, []) if r.event == "step"]
        if len(steps) < 2:
            return float("nan")
        tokens = sum(sum(self.series("tokens", rank)[1:]) for rank in self.ranks)
        return tokens / (steps[-1].seconds - steps[0].seconds)

    def metric(self, name: str, rank: int = 0) -> dict[str, Any]:
        """The values of the last metric ``name`` that a rank recorded. Raises KeyError if there is none."""
        found = [r.values for r in self.ranks.get(rank, [])
                 if r.event == "metric" and r.values.get("name") == name]
        if not found:
            raise KeyError(f"rank {rank} recorded no metric {name!r}")
        return {key: value for key, value in found[-1].items() if key != "name"}


def read_rank(path: Path) -> list[Record]:
    """The records of one file. A last line without its line end (the rank was killed) is left out.

    Raises UserError, with file and line number, if any other line is not a record.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(f"{path}, line {number} is not a record ({reason}): "
                            "delete that line, or run the lab again") from None
    return records


def read_run(folder: str | Path) -> Run:
    """Read a run's folder. Raises UserError if it is none, or a line in it is damaged."""
    folder = Path(folder)
    try:
        info = RunInfo.model_validate(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run.json: give the folder of a run, "
                        "such as the one `labkit run` prints") from None
    except (ValidationError, ValueError) as error:
        raise UserError(f"{folder}/run.json is damaged: {str(error).splitlines()[0]}") from None
    files = sorted(folder.glob("rank*.jsonl"), key=lambda path: int(path.stem[4:]))
    return Run(folder, info, {int(path.stem[4:]): read_rank(path) for path in files})
