"""Train Chapter 1's three networks on more steps, and record their learning curves.

    python benchmarks/longer_history.py --budget 8

Runs the chapter's own cells (whose ids begin with ``history``) with another BUDGET and writes
``longer_history.json``, which the chapter draws. Takes about 10 minutes on two idle cores.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import nbformat
import torch

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--budget", type=int, default=8, help="times the chapter's steps")
    budget = parser.parse_args().budget
    cells = nbformat.read(HERE.parent / "chapters" / "01_overview.ipynb", as_version=4).cells
    chosen = [c.source for c in cells if c.id == "imports" or c.id.startswith("history")]
    names: dict = {}
    began = time.perf_counter()
    for source in chosen:
        exec(source.replace("BUDGET = 1 ", f"BUDGET = {budget} "), names)
    if names["BUDGET"] != budget:
        raise SystemExit("the chapter no longer sets BUDGET = 1: nothing recorded")
    record = {
        "command": f"python benchmarks/longer_history.py --budget {budget}",
        "budget": budget,
        "bytes_seen": names["STEPS"] * names["BATCH"] * names["CONTEXT"],
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "machine": f"{torch.get_num_threads()} cores, {platform.machine()}, torch {torch.__version__}",
        "bits": {name: round(value, 4) for name, value in names["bits"].items()},
        "curves": {name: [(seen, round(bits, 4)) for seen, bits in curve]
                   for name, curve in names["curves"].items()},
    }
    path = HERE / "longer_history.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {record['bits']}")


if __name__ == "__main__":
    main()
