"""Train Chapter 3's recurrent reader with more steps and more parameters; record its answers.

    python benchmarks/longer_recall.py

Runs the chapter's own cells (whose ids begin with ``recall``) and writes ``longer_recall.json``,
which the chapter draws. Takes about 2 minutes on an idle core.
"""

import json
import platform
import time
from pathlib import Path

import nbformat
import torch

HERE = Path(__file__).resolve().parent
CHAPTERS = HERE.parent / "chapters"
CELLS = ("imports", "recall-task", "recall-recurrent", "recall-train", "recall-test")
STEPS = 16  # times the chapter's
RUNS = {  # name: (hidden size, learning rate, times the chapter's steps)
    "more steps": (16, 0.01, STEPS),
    "more parameters": (128, 0.01, 1),
    "both": (128, 0.003, STEPS),
}


def main() -> None:
    (path,) = CHAPTERS.glob("03_*.ipynb")
    sources = {c.id: c.source for c in nbformat.read(path, as_version=4).cells}
    names: dict = {}
    for cell in CELLS:
        exec(sources[cell], names)
    began, runs = time.perf_counter(), {}
    for run, (hidden, learning_rate, times) in RUNS.items():
        torch.manual_seed(0)
        reader = names["RecurrentReader"](hidden=hidden)
        steps = times * names["RECALL_STEPS"]
        names["practise"](reader, 0, learning_rate, steps)
        runs[run] = {
            "parameters": sum(p.numel() for p in reader.parameters()),
            "steps": steps,
            "learning_rate": learning_rate,
            "right": [round(share, 4) for share in names["grade"](reader)],
        }
        print(run, runs[run], flush=True)
    record = {
        "command": "python benchmarks/longer_recall.py",
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "machine": f"{torch.get_num_threads()} cores, {platform.machine()}, torch {torch.__version__}",
        "pairs": names["NUMBERS"],
        "runs": runs,
    }
    (HERE / "longer_recall.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
