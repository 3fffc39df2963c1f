"""What a run recorded, step by step, and where two runs differ."""

from __future__ import annotations

from labkit.records import Run

PARTS = ("samples", "loss", "norm", "lr", "weights")


def table(run: Run) -> dict[tuple[int, int], dict]:
    """{(step, rank): what that rank recorded}."""
    return {(r.values["step"], rank): r.values for rank, records in run.ranks.items()
            for r in records if r.event == "step"}


def differences(run: Run, other: Run) -> list[tuple[int, int, str]]:
    """(step, rank, what) for all that is not equal, to the last bit, in steps that both runs made."""
    mine, theirs = table(run), table(other)
    return [(*key, part) for key in sorted(mine.keys() & theirs.keys()) for part in PARTS
            if mine[key][part] != theirs[key][part]]


def compare(run: Run, other: Run) -> str:
    """One sentence: how many steps of two runs are equal, or the first difference."""
    both = {step for step, _ in table(run).keys() & table(other).keys()}
    if not both:
        return f"no step in common with {other.folder}"
    wrong = differences(run, other)
    steps = f"steps {min(both)} to {max(both)}"
    if not wrong:
        return f"{steps}: {', '.join(PARTS)} bit for bit as in {other.folder}"
    step, rank, what = wrong[0]
    return (f"{steps}: not as in {other.folder}, first at step {step}, rank {rank}: {what} "
            f"{table(run)[step, rank][what]} instead of {table(other)[step, rank][what]}")
