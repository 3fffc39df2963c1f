"""Lab 3's clock, its figures from the records of a run, and the table that `labkit run` prints."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from labkit import env, plan
from labkit.records import Run

PARTS = ("forward", "backward", "communication", "optimizer")


class Clock:
    """Seconds of the parts of each step, ``times[part][step]``; waits for a GPU to be done."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.spent = 0.0  # inside the part that is being timed, and counted for itself

    def now(self) -> float:
        if env.use_gpu():
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def start(self) -> None:
        self.began = self.now()

    def lap(self, part: str) -> None:
        now = self.now()
        self.times[part].append(now - self.began - self.spent)
        self.began, self.spent = now, 0.0

    def inner(self, part: str, function: Callable) -> Callable:
        """``function``, timed as a part of its own inside another."""
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            result = function(*args, **kwargs)
            took = self.now() - began
            self.times[part].append(took)
            self.spent += took
            return result
        return timed


def trainings(run: Run) -> list[str]:
    """The trainings in a run's records: "plain", "recomputed" or both."""
    named = [r.values["name"] for r in run.ranks[min(run.ranks)] if r.event == "metric"]
    return [name for name in ("plain", "recomputed") if name in named]


def utilization(run: Run, training: str) -> dict[str, float]:
    """Seconds, tokens per second, MFU and HFU of a training, over all ranks recorded here.

    The peak is the sum of what the ranks reach in a matrix product at the same time. MFU counts
    6N + 12LHs a token, HFU also the matrix products of blocks that ran twice.
    """
    ranks = sorted(run.ranks)
    each = [run.metric(training, rank) for rank in ranks]
    flops = [run.metric("flops", rank) for rank in ranks]
    seconds, peak = max(one["seconds"] for one in each), sum(one["peak"] for one in each)
    needed = sum(one["rule"] for one in flops)
    again = sum(one["matrix_recomputed"] - one["matrix"] for one in flops) * (training == "recomputed")
    tokens = sum(one["tokens"] for one in each)
    return {"seconds": seconds, "tokens_per_second": tokens / seconds, "peak": peak,
            "mfu": plan.model_flops_utilization(needed, seconds, 1, peak),
            "hfu": plan.model_flops_utilization(needed + again, seconds, 1, peak)}


def parts(run: Run, training: str) -> dict[str, float]:
    """Seconds a step in each part: the mean of the ranks' medians."""
    each = [run.metric(training, rank)["parts"] for rank in sorted(run.ranks)]
    return {part: sum(one.get(part, 0.0) for one in each) / len(each) for part in PARTS}


def wrong(run: Run) -> list[str]:
    """What was not counted as predicted, on any rank."""
    found = []
    for rank in sorted(run.ranks):
        found += [f"rank {rank}: {name_of(row)}" for row in run.metric("activations", rank)["rows"]
                  if row["predicted"] != row["measured"]]
        f = run.metric("flops", rank)
        for name, expected, got in (
            ("the profiler's FLOPs", f["matrix"] + f["elementwise"], f["profiled"]),
            ("torch's FLOPs", f["matrix"], f["counted"]),
            ("torch's FLOPs, recomputed", f["matrix_recomputed"], f["counted_recomputed"]),
        ):
            if abs(got - expected) > 1e-9 * expected:  # the formulas are in floating point
                found.append(f"rank {rank}: {name}")
    return found


def name_of(row: dict[str, Any]) -> str:
    kind = "recomputed" if row["checkpointed"] else "plain"
    return f"{row['dtype']}, dropout {row['dropout']:g}, {kind}"


def text(run: Run) -> str:
    """The records as lines."""
    first = min(run.ranks)
    lines = [f"{'activations that a rank keeps, bytes':38}{'predicted':>12}{'measured':>12}"]
    lines += [f"  {name_of(row):36}{row['predicted']:12,}{row['measured']:12,}"
              for row in run.metric("activations", first)["rows"]]
    f = run.metric("flops", first)
    lines += ["FLOPs of a rank's step, in millions"]
    lines += [f"  {name:60}{f[key] / 1e6:12,.1f}" for name, key in (
        ("6N + 12LHs a token", "rule"), ("formula for the matrix products", "matrix"),
        ("  counted by torch", "counted"), ("formula for LayerNorm and GELU", "elementwise"),
        ("  counted by DeepSpeed's profiler, with matrix products", "profiled"),
        ("formula for the matrix products, recomputed", "matrix_recomputed"),
        ("  counted by torch", "counted_recomputed"))]
    faults = wrong(run)
    lines.append("not as predicted: " + "; ".join(faults) if faults
                 else "every count is as predicted, on every rank")
    if faults and run.info.device != "cpu":
        lines.append("(the formulas are those of torch's CPU kernels; a GPU's keep other things)")
    lines.append(f"{'a step, ms':12}" + "".join(f"{part:>14}" for part in PARTS)
                 + f"{'tokens/s':>10}{'MFU':>7}{'HFU':>7}")
    for training in trainings(run):
        u, times = utilization(run, training), parts(run, training)
        lines.append(f"{training:12}" + "".join(f"{1e3 * times[part]:14,.1f}" for part in PARTS)
                     + f"{u['tokens_per_second']:10,.0f}{u['mfu']:7.1%}{u['hfu']:7.1%}")
    return "\n".join(lines)
