"""Run the chapters as other machines would: other instructions, another BLAS, other threads, another Python.

    python tests/settings.py                                        all chapters, in every setting
    python tests/settings.py --settings scalar --chapters 05        one of each
    python tests/settings.py --python PATH --settings plain         in an environment made for that Python
    python tests/settings.py --venv FOLDER --settings plain         in an environment that is there

A chapter passes in a setting when each of its cells prints what is stored. Settings round differently, so a
cell that differs prints a digit that depends on the processor. Each run ends with a cell of this script that
finds out in the chapter's kernel whether the setting is in force; one that changes nothing is called idle.
Exit status: 0 when all cells agree and no setting was idle, else 1.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_build" / "settings"
CELL_SECONDS = 3600  # nothing waits for ever, and a busy machine is given time
TOUCHED = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "OPENBLAS_CORETYPE", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS")
SETTINGS = {  # name: (environment, what it must change in the probe, what it is)
    "plain": ({}, (), "as a reader runs it"),
    "scalar": ({"ATEN_CPU_CAPABILITY": "default"}, ("torch's functions",), "torch without AVX"),
    "blas": ({"MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem", "ONEDNN_MAX_CPU_ISA": "SSE41"},
             ("torch's product", "numpy's product", "oneDNN's GELU"), "MKL, OpenBLAS, oneDNN without AVX"),
    "1 thread": ({"OMP_NUM_THREADS": "1"}, (), "one thread, in BLAS too"),
    "2 threads": ({"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}, ("threads",), "two a process"),
}
PROBE = """
import hashlib, json, os, platform
import numpy, torch

def digest(array):
    return hashlib.sha256(numpy.ascontiguousarray(array).tobytes()).hexdigest()[:8]

numbers = (torch.arange(128 * 200) % 97 - 48) / 7
left, right = numbers.reshape(128, 200), numbers.reshape(200, 128)
probe = {
    "torch's functions": digest(torch.exp(numbers / 9)),
    "torch's product": digest(left @ right),
    "oneDNN's GELU": digest(torch.nn.functional.gelu(numbers)),
    "numpy's product": digest(left.numpy() @ right.numpy()),
    "threads": torch.get_num_threads(),
    "Python": platform.python_version(),
}
with open(os.environ["LABKIT_PROBE"], "w") as file:
    json.dump(probe, file)
"""


def environment(setting: str, probe: Path) -> dict[str, str]:
    """This process's variables with those of a setting, and nothing of another setting."""
    kept = {name: value for name, value in os.environ.items() if name not in TOUCHED}
    kept.pop("JUPYTER_PATH", None)  # a kernel of this environment, should another one be tried
    return {**kept, **SETTINGS[setting][0], "LABKIT_PROBE": str(probe), "PYTHONPATH": str(ROOT)}


def reference(python: Path) -> dict:
    """What the probe finds in a process with no setting at all but labkit's number of threads."""
    OUT.mkdir(parents=True, exist_ok=True)
    probe = OUT / "reference.json"
    code = f"from labkit import env\nenv.set_threads()\n{PROBE}"
    subprocess.run([python, "-c", code], env=environment("plain", probe), cwd=ROOT, check=True)
    return json.loads(probe.read_text())


def run(chapter: Path, setting: str, python: Path) -> tuple[dict[str, str], dict, float]:
    """One chapter in one setting: ({cell: what nbval says} of those that differ, the probe, seconds)."""
    folder = OUT / setting.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    copy, probe = folder / chapter.name, folder / f"{chapter.stem}.json"
    nb = nbformat.read(chapter, as_version=4)
    cells = [f"{cell.id}: {cell.source.partition(chr(10))[0][:60]}"
             for cell in nb.cells if cell.cell_type == "code"]
    nb.cells.append(new_code_cell(PROBE, execution_count=len(cells) + 1))
    nbformat.write(nb, copy)
    probe.unlink(missing_ok=True)
    command = [python, "-m", "pytest", copy, "-v", "--color=no", "-o", "timeout=0", "-p", "no:cacheprovider",
               "--rootdir", ROOT, "-c", ROOT / "pyproject.toml", "--nbval", "--nbval-current-env",
               "--nbval-cell-timeout", str(CELL_SECONDS),
               "--nbval-sanitize-with", ROOT / "tests" / "nbval_sanitize.cfg"]
    began, said, verdicts = time.monotonic(), [], {}
    with subprocess.Popen(command, cwd=ROOT, env=environment(setting, probe), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running, \
            tqdm(total=len(cells) + 1, unit="cell", desc=f"{setting}, {chapter.stem}", ncols=100) as bar:
        for line in running.stdout:
            said.append(line)
            if found := re.search(r"::Cell (\d+) (PASSED|FAILED|ERROR|XFAIL|SKIPPED)", line):
                verdicts[int(found[1])] = found[2]
                bar.update()
                if found[2] != "PASSED" and int(found[1]) < len(cells):
                    bar.write(f"{setting}, {chapter.stem}: {found[2]} {cells[int(found[1])]}")
    log = copy.with_suffix(".log")
    log.write_text("".join(said), encoding="utf-8")
    if len(verdicts) < len(cells):
        sys.exit(f"{chapter.name}, {setting}: only {len(verdicts)} of {len(cells)} cells ran; see {log}")
    worse = {cells[i]: verdict for i, verdict in verdicts.items() if verdict != "PASSED" and i < len(cells)}
    return worse, json.loads(probe.read_text()) if probe.exists() else {}, time.monotonic() - began


def idle(setting: str, found: dict, plain: dict) -> str:
    """What a setting should have changed in the kernel and did not; empty when it is in force."""
    variables, changes, _ = SETTINGS[setting]
    if not found:
        return "the probe did not run"
    if found["threads"] != int(variables.get("OMP_NUM_THREADS", 1)):
        return f"torch ran with {found['threads']} threads"
    same = [name for name in changes if found[name] == plain[name]]
    return f"no effect on {', '.join(same)}" if same else ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="NAME",
                        default=[name for name in SETTINGS if name != "plain"],
                        help="; ".join(f"'{name}': {says}" for name, (_, _, says) in SETTINGS.items()))
    parser.add_argument("--chapters", nargs="+", default=[""], metavar="NUMBER",
                        help="such as 01 05; all unless given")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--python", type=Path, help="make an environment for this Python, and run in it")
    where.add_argument("--venv", type=Path, help="run in this environment")
    options = parser.parse_args()
    chapters = [path for path in sorted((ROOT / "chapters").glob("[0-9]*.ipynb"))
                if path.name.startswith(tuple(options.chapters))]
    if not chapters:
        parser.error(f"there is no chapter {' '.join(options.chapters)}")
    python = Path(sys.executable)
    if options.python:
        options.venv = OUT / f"venv-{re.sub(r'[^0-9a-z.]+', '-', str(options.python)).strip('-')}"
        if shutil.which(options.python) is None:
            parser.error(f"--python {options.python}: there is no such program")
        subprocess.run([options.python, ROOT / "labkit" / "install.py", options.venv], check=True)
    if options.venv:
        python = options.venv.absolute() / "bin" / "python"
        if not python.exists():
            parser.error(f"--venv {options.venv}: there is no {python}")
    plain = reference(python)
    rows, failed = [], False
    for setting in options.settings:
        for chapter in chapters:
            worse, found, seconds = run(chapter, setting, python)
            why = idle(setting, found, plain)
            verdict = f"{len(worse)} cells differ" if worse else "all cells agree"
            rows.append(f"{setting:<10} {chapter.stem:<16} {seconds:5.0f} s  {verdict}"
                        f"{'  IDLE: ' + why if why else ''}")
            rows += [f"{'':<14}{cell}" for cell in worse]
            failed |= bool(worse or why)
    print(f"\nPython {plain['Python']}; logs: {OUT}\n" + "\n".join(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
