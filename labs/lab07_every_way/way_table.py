"""Lab 7's table, from the records of a run; and the runs that are kept for the chapter."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from labkit import env
from labkit.records import Run, read_run


def listed(messages: dict[tuple[str, int], float]) -> dict[str, float]:
    """``{("all_reduce", 2): 5}`` as JSON can hold it: ``{"all_reduce over 2": 5}``."""
    return {f"{op} over {ranks}": elements for (op, ranks), elements in sorted(messages.items())}


def rows(run: Run) -> list[dict[str, Any]]:
    """One row a way, the plain loop first. Lists have one entry a rank, in bytes and seconds."""
    here = sorted(run.ranks)  # by hand on several machines: those recorded on this one
    names = [r.values["name"] for r in run.ranks[here[0]] if r.event == "metric"]
    plain = run.metric("plain", here[0])
    found = []
    for name in filter(lambda name: name != "skipped", names):
        ranks = [run.metric(name, rank) for rank in here]
        first = ranks[0]
        found.append({
            "way": name, "layout": first.get("layout", "1 rank"), "final_loss": first["losses"][-1],
            "apart": max(abs(loss - right) / right for one in ranks
                         for loss, right in zip(one["losses"], plain["losses"], strict=True)),
            "seconds": max(one["seconds"] for one in ranks),
            **{key: [sum(one[key].values()) for one in ranks]
               for key in ("states", "predicted_states") if key in first},
            **{key: [one[key] for one in ranks]
               for key in ("sent", "predicted_sent", "messages", "predicted_messages") if key in first}})
    return found


def as_predicted(row: dict[str, Any]) -> bool:
    """Whether states and messages are the predicted ones, to the byte, on every rank."""
    pairs = (("predicted_states", "states"), ("predicted_messages", "messages"))
    return all(row[expected] == row[found] for expected, found in pairs if expected in row)


def text(found: list[dict[str, Any]]) -> str:
    """The rows as lines. Bytes are those of the rank that holds or sends most."""
    head = f"{'way':8}{'layout':8}{'loss':>7}{'apart':>7}  "
    lines = [f"{'':{len(head)}}{'states, kB':^18}  {'sent a step, kB':^18}",
             head + "predicted measured  " * 2 + "ms a step"]
    for row in found:
        line = f"{row['way']:8}{row['layout']:8}{row['final_loss']:7.5f}{row['apart']:7.0e}  "
        if "predicted_states" in row:
            pairs = (("predicted_states", "states"), ("predicted_sent", "sent"))
            line += "  ".join(f"{max(row[a]) / 1e3:9,.1f} {max(row[b]) / 1e3:8,.1f}" for a, b in pairs)
        else:
            line += f"{'':10}{max(row['states']) / 1e3:8,.1f}  {'':18}"
        lines.append(f"{line}{1e3 * row['seconds']:11.1f}")
    wrong = [row["way"] for row in found if not as_predicted(row)]
    lines.append(f"not as predicted: {', '.join(wrong)}" if wrong
                 else "every prediction is met exactly, on every rank")
    return "\n".join(lines)


def keep(run_dir: str | Path | None, folder: Path) -> Path:
    """Write a run's rows, with its device, versions, date and command, where the chapter finds them."""
    if run_dir is None:
        raise env.UserError("--record needs the records of a run: start the lab with `labkit run lab07`")
    run = read_run(run_dir)
    own = sys.argv[1:]
    for flag in ("--run_dir", "--config"):  # they name folders of this machine
        if flag in own:
            del own[own.index(flag):own.index(flag) + 2]
    content = {"device": run.info.device, "ranks": run.info.ranks, "cores": env.cores(),
               "started": run.info.started, "versions": run.info.versions,
               "command": " ".join([f"labkit run lab07 --ranks {run.info.ranks}", *own]), "rows": rows(run)}
    folder.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", run.info.device.lower()).strip("-")
    path = folder / f"{name}-{run.info.ranks}ranks.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The runs that were kept, GPUs first, few ranks first. Raises UserError if a file is none."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            found.append(((run["device"] == "cpu", run["device"], run["ranks"]), run["rows"] and run))
        except (ValueError, KeyError, TypeError):
            raise env.UserError(f"{path} is no recorded run: delete it, or record it again") from None
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]
