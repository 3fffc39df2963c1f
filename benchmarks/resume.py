"""Kill Lab 5's run at 20 random points, resume each, and compare with the run never interrupted.

    python benchmarks/resume.py            # says first how long it takes; begins where it was stopped
    python benchmarks/resume.py --again    # forgets what resume.json holds

Half of the kills are on 1 rank, half on 2; some fall into the writing of a checkpoint. One row for
each goes into ``resume.json``. A curve counts as equal if samples, loss, gradient norm, learning
rate and weights of every step and rank are the same to the last bit.
"""

import argparse
import hashlib
import json
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from labkit import env, launch
from labkit.records import Run, read_run

LAB = env.ROOT / "labs" / "lab05_trustworthy_run"
sys.path.insert(0, str(LAB))
import curves  # noqa: E402

OUT = Path(__file__).with_name("resume.json")
KILLS, STEPS, EVERY, SEED = 20, 24, 5, 0
FLAGS = ["--steps", str(STEPS), "--every", str(EVERY)]


def plans() -> list[dict]:
    """Where to kill: any step, any rank; every third while a checkpoint is written."""
    chooser, found = random.Random(SEED), []
    for number in range(KILLS):
        ranks, saving = 1 + number % 2, number % 3 == 2
        last = STEPS - STEPS % EVERY if saving else STEPS - 1
        found.append({"ranks": ranks, "kill_at": chooser.randint(1, last),
                      "kill_rank": chooser.randrange(ranks), "saving": saving})
    return found


def predicted(plan: dict) -> tuple[int, int]:
    """(steps done when it is killed, steps in the newest whole checkpoint).

    A checkpoint due at the step of the kill is not written any more, or is not whole.
    """
    done = -(-plan["kill_at"] // EVERY) * EVERY if plan["saving"] else plan["kill_at"]
    return done, (done - 1) // EVERY * EVERY


def one(plan: dict, whole: Run, folder: Path) -> dict:
    """Run, kill, resume, compare."""
    began = time.perf_counter()
    flags = ["--kill-at", str(plan["kill_at"]), "--kill-rank", str(plan["kill_rank"])]
    try:
        launch.run("lab05", ranks=plan["ranks"], out=folder / "killed",
                   args=[*FLAGS, *flags, *["--kill-saving"] * plan["saving"]])
        raise SystemExit(f"the run was not killed: {plan}")
    except launch.LabFailed as failed:
        if "was killed by SIGKILL" not in str(failed):
            raise
    killed = read_run(folder / "killed")
    resumed = launch.run("lab05", ranks=plan["ranks"], out=folder / "resumed",
                         args=[*FLAGS, "--resume", str(folder / "killed"), "--if-none", "start"])
    found, done = resumed.metric("resumed"), len(killed.series("loss", plan["kill_rank"]))
    expected_done, expected_from = predicted(plan)
    return {**plan, "done": done, "resumed_from": found["done"], "lost": done - found["done"],
            "lost_predicted": expected_done - expected_from, "passed_over": found["skipped"],
            "steps_compared": len(resumed.losses),
            "reached_the_end": len(resumed.losses) == STEPS - found["done"],
            "differences": len(curves.differences(resumed, whole)) + len(curves.differences(killed, whole)),
            "seconds": round(time.perf_counter() - began, 1)}


def code() -> str:
    """A hash of the lab's files: rows of another version are not kept."""
    files = sorted([*LAB.glob("*.py"), *LAB.glob("*.json")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def equal(row: dict) -> bool:
    return row["differences"] == 0 and row["lost"] == row["lost_predicted"] and row["reached_the_end"]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--again", action="store_true", help="begin from the first kill")
    args = p.parse_args()
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() and not args.again else {}
    version = code()
    rows = before.get("rows", []) if before.get("code") == version else []
    print("Two runs without a kill first, which tell how long a run takes here …", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        whole = {ranks: launch.run("lab05", ranks=ranks, args=FLAGS, out=Path(scratch) / f"whole{ranks}")
                 for ranks in (1, 2)}
        left = (KILLS - len(rows)) * (time.perf_counter() - began)
        print(f"{len(rows)} of {KILLS} kills are done; the others take about {left / 60:.0f} minutes",
              flush=True)
        for number, plan in enumerate(tqdm(plans()[len(rows):], desc="kills", leave=False), start=len(rows)):
            row = one(plan, whole[plan["ranks"]], Path(scratch) / str(number))
            rows.append(row)
            record = {"command": "python benchmarks/resume.py", "code": version, "steps": STEPS,
                      "every": EVERY, "equal": sum(map(equal, rows)), "kills": len(rows),
                      "machine": f"{env.cores()} cores, {platform.machine()}, torch {torch.__version__}, "
                                 f"{whole[2].info.device}",
                      "rows": rows}
            OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            kind = "saving" if plan["saving"] else "training"
            verdict = "equal" if equal(row) else "NOT EQUAL"
            tqdm.write(f"{number}: {row['ranks']} ranks, rank {row['kill_rank']} killed {kind} at "
                       f"{row['done']}, resumed from {row['resumed_from']}: {verdict}")
    print(f"{sum(map(equal, rows))} of {len(rows)} curves are equal; {OUT}")


if __name__ == "__main__":
    main()
