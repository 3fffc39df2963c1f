"""Train Chapter 1's language models at three budgets and several seeds; record what they learned.

    python benchmarks/history.py --seeds 0 1 2

Runs the chapter's own cells (those of CELLS) with the settings of BUDGETS, and writes ``history.json``.
A learning rate is chosen for each model and budget on pages of their own, by a seed that is not reported.
About 40 minutes on two idle cores. A run that was broken off goes on where it stopped; ``--smoke`` takes
seconds and saves nothing unless ``--out`` says where.
"""

import argparse
import ast
import hashlib
import inspect
import json
import math
import multiprocessing
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from labkit import data
from labkit.models import GPT, GPTConfig, count_parameters

HERE = Path(__file__).resolve().parent
RECORD = HERE / "history.json"
NOTEBOOK = HERE.parent / "chapters" / "01_overview.ipynb"
CELLS = tuple(
    "history-" + name
    for name in (
        *("setup", "data", "ngram", "feed-forward", "recurrent", "build", "test"),
        *("rate", "fit", "sample", "counts", "kneser-ney", "ngram-bits"),
    )
)
CHOICE_SEED = 99  # chooses the rates; never reported
TEMPERATURES = (0.3, 0.7, 1.0)
NETWORKS = ("feed-forward", "recurrent", "Transformer")


@dataclass(frozen=True)
class Budget:
    """What every model of a comparison gets alike; text is read in windows of `context` bytes."""

    corpus: str
    steps: int
    batch: int
    context: int
    choice_steps: int  # length of the runs that choose a rate
    rates: tuple[float, ...]
    prompt: str  # for the samples
    targets: int = 1000  # bytes scored with a cut context
    sampled: int = 300  # characters
    orders: int = 8  # of the n-grams


RATES = (2e-3, 4e-3, 8e-3, 16e-3)  # and further, until no model's best is the last
BUDGETS = {
    "live": Budget("reference", 300, 8, 64, 300, (1e-3, *RATES, 32e-3, 64e-3, 128e-3), "The statement"),
    "A": Budget("reference", 1250, 8, 64, 1250, (*RATES, 32e-3), "The statement"),
    "B": Budget("library", 6000, 4, 128, 1500, (*RATES, 32e-3), "    def __init__(self"),
}
SLIDER_CONTEXTS = ("The statement", "The ", "an expressio", "import ")
CONTEXTS = ("# The ", "import ", "for i in range(", "    return self.")  # for the sampling widget


# ---------------------------------------------------------------- the chapter's cells


def read_cells(path: Path) -> dict[str, str]:
    """{id: source} of the cells of a notebook, or of a draft whose cells begin with `# %% id=…`."""
    text = Path(path).read_text(encoding="utf-8")
    if Path(path).suffix == ".ipynb":
        return {cell["id"]: "".join(cell["source"]) for cell in json.loads(text)["cells"]}
    parts = [part.partition("\n") for part in text.split("# %% id=")[1:]]
    return {head.split()[0]: source.strip("\n") for head, _, source in parts}


def essence(source: str) -> str:
    """`source` without docstrings, comment lines and blank lines: what a hash should notice."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        first = node.body[0] if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            lines[first.lineno - 1 : first.end_lineno] = [""] * (first.end_lineno - first.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip() and line.lstrip()[0] != "#")


def code_hashes(cells: Path) -> dict[str, str]:
    """sha256 of the cells that are run, without the imports, and of this script's part in it (WORK).

    Raises SystemExit if a cell is missing.
    """
    sources = read_cells(cells)
    if missing := [name for name in CELLS if name not in sources]:
        raise SystemExit(f"{cells} has no cell {', '.join(missing)}")
    ran = {"cells": [sources[name] for name in CELLS[1:]], "script": list(map(inspect.getsource, WORK))}
    return {
        kind: hashlib.sha256("\n".join(map(essence, parts)).encode()).hexdigest()
        for kind, parts in ran.items()
    }


def stale(path: Path = RECORD, cells: Path = NOTEBOOK) -> str:
    """"" if today's code and settings made the record; else a sentence that says what has changed."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        now = code_hashes(cells)
    except SystemExit as error:
        return f"{error}: the record cannot be compared."
    changed = [f"the {kind}" for kind in now if now[kind] != record["code"][kind]]
    changed += [f"budget {name}" for name, budget in BUDGETS.items()
                if record["budgets"].get(name, {}).get("setting") != setting(budget)]
    if changed:
        return f"Changed since {Path(path).name} was made: {', '.join(changed)}. Run {record['command']}"
    return "" if record["complete"] else f"{Path(path).name} is not complete. Run {record['command']}"


def setting(budget: Budget) -> dict:
    """The budget as JSON would give it back."""
    return json.loads(json.dumps(asdict(budget)))


@cache
def chapter(cells: Path) -> dict:
    """The names that the chapter's cells define."""
    torch.set_num_threads(1)
    sources, names = read_cells(cells), {}
    for name in CELLS:
        exec(compile(sources[name], name, "exec"), names)
    return names


# ---------------------------------------------------------------- text


def library_pages() -> list[str]:
    """The modules of Python's standard library, without tests and tables; repeated ones kept once."""
    root = Path(os.__file__).parent
    skipped = {"site-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
    paths = [path for path in root.rglob("*.py") if not skipped & set(path.relative_to(root).parts)]
    pages = {path.read_text(encoding="utf-8", errors="replace"): None for path in sorted(paths)}
    return [page for page in pages if len(page) > 200]


@cache
def texts(corpus: str, cells: Path) -> dict[str, torch.Tensor]:
    """Tokens to train on, to choose by, and to test on."""
    if corpus != "library":
        names, most = chapter(cells), 2048 if corpus == "smoke" else None
        return {side: names[f"{side}_tokens"][:most] for side in ("train", "choice", "test")}
    pages = tuple(library_pages())
    rest, test = data.Corpus(None, pages).split(0.02)
    train, choice = rest.split(0.02)
    return {
        "train": data.encode(train.text),
        "choice": data.encode(choice.text),
        "test": data.encode(test.text),
    }


def build(names: dict, budget: Budget, model: str, seed: int) -> torch.nn.Module:
    """The chapter's network; the Transformer gets as many positions as the budget's context."""
    if model != "Transformer" or budget.context == 64:
        return names["build"](seed)[model]
    shape = names["build"](seed)[model].config
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{**asdict(shape), "context": budget.context}))


# ---------------------------------------------------------------- measurements of one network


@torch.no_grad()
def bits_with(model, tokens: torch.Tensor, seen: int, context: int, count: int) -> float:
    """Bits of `count` bytes of the text, the same for every `seen`, given the `seen` bytes before each."""
    ends = torch.linspace(context, len(tokens) - 1, count).long()
    rows = []
    for some in ends.split(128):
        window = tokens[some[:, None] + torch.arange(-seen, 1)]
        rows.append(F.cross_entropy(model(window[:, :-1])[:, -1], window[:, -1], reduction="none"))
    return torch.cat(rows).mean().item() / math.log(2)


@torch.no_grad()
def bits_of_repeat(model, tokens: torch.Tensor, context: int, count: int) -> dict[str, float]:
    """Bits of half a window of text after the very same bytes, and (the control) after other bytes."""
    half = context // 2
    starts = torch.linspace(0, len(tokens) - half - 1, count).long()
    again = tokens[starts[:, None] + torch.arange(half)]
    bits = {}
    for name, before in (("same", again), ("other", again.roll(count // 2, 0))):
        window, nats = torch.cat([before, again], dim=1), 0.0
        for some in window.split(64):
            logits = model(some[:, :-1])[:, half:].transpose(1, 2)
            nats += F.cross_entropy(logits, some[:, half + 1 :]).item() * len(some)
        bits[name] = round(nats / count / math.log(2), 4)
    return bits


@torch.no_grad()
def likeliest(model, prompt: str, count: int = 12) -> dict:
    """Logits of the likeliest next bytes after `prompt`, and the share that all others have."""
    logits = model(data.encode(prompt)[None])[0, -1]
    best = logits.topk(count)
    return {
        "context": prompt,
        "bytes": [data.decode([token]) for token in best.indices],
        "logits": [round(value, 3) for value in best.values.tolist()],
        "others": round(1 - logits.softmax(-1)[best.indices].sum().item(), 4),
    }


def choose(cells: Path, budget: Budget, model: str, rate: float) -> dict:
    """Bits on the pages to choose by, after a run with this rate."""
    names, text = chapter(cells), texts(budget.corpus, cells)
    network = build(names, budget, model, CHOICE_SEED)
    watch = text["choice"][: 2 * budget.context + 1]
    names["fit"](network, rate, budget.choice_steps, text["train"], watch, budget.batch, budget.context,
                 CHOICE_SEED)
    bits = names["test_bits"](network, text["choice"], budget.context)
    return {"rate": rate, "bits": round(bits, 4)}


def train(cells: Path, budget: Budget, model: str, rate: float, seed: int) -> dict:
    """One reported run, with its controls."""
    names, text = chapter(cells), texts(budget.corpus, cells)
    context, test = budget.context, text["test"]
    network = build(names, budget, model, seed)
    result = {"model": model, "seed": seed, "rate": rate, "parameters": count_parameters(network)}
    result["untrained"] = round(names["test_bits"](network, test, context), 4)
    began, worked = time.perf_counter(), time.process_time()
    curve = names["fit"](network, rate, budget.steps, text["train"], text["choice"], budget.batch, context,
                         seed)
    result["seconds"] = round(time.perf_counter() - began, 1)
    result["cpu_seconds"] = round(time.process_time() - worked, 1)
    result["curve"] = [(seen, round(bits, 4)) for seen, bits in curve]
    by_position = names["bits_by_position"](network, test, context)
    result["bits"] = round(by_position.mean().item(), 4)
    result["by_position"] = [round(bits, 3) for bits in by_position.tolist()]
    lengths = [2**k for k in range(11) if 2**k <= context]
    result["bits_with"] = {
        seen: round(bits_with(network, test, seen, context, budget.targets), 4) for seen in lengths
    }
    result["repeat"] = bits_of_repeat(network, test, context, budget.targets // 4)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    result["shuffled"] = round(names["test_bits"](network, test[order][: 2**14 + 1], context), 4)
    if seed == 0:
        result["samples"] = {
            heat: names["sample"](network, budget.prompt, heat, budget.sampled, context)
            for heat in TEMPERATURES
        }
        result["next"] = [likeliest(network, prompt) for prompt in CONTEXTS]
    return result


# ---------------------------------------------------------------- counts, and what the slider shows


def ngrams(cells: Path, budget: Budget) -> dict:
    """Bits of the n-grams on the windows of the networks' test, after as many bytes as a network read."""
    names, text = chapter(cells), texts(budget.corpus, cells)
    held_out = bytes(text["test"].tolist())
    blocks = text["train"].split(1024)
    room = min(budget.steps * budget.batch * budget.context // 1024, len(blocks))
    spread = torch.linspace(0, len(blocks) - 1, room).long().tolist()  # from all over the text
    read = bytes(torch.cat([blocks[i] for i in spread]).tolist())
    counted = names["NGram"](read, budget.orders)
    bits = {"bytes": len(read), "Witten-Bell": {}, "Kneser-Ney": {}}
    for order in range(1, budget.orders + 1):
        counted.order = order  # the counts of lower orders are among those of the highest
        bits["Witten-Bell"][order] = round(names["ngram_bits"](counted, held_out, budget.context), 4)
        kneser_ney = names["KneserNey"]([read], order, 256)
        bits["Kneser-Ney"][order] = round(names["ngram_bits"](kneser_ney, held_out, budget.context), 4)
    return bits


def next_bytes(cells: Path, rate: float) -> list[dict]:
    """For the book's slider: all logits for the byte after each of SLIDER_CONTEXTS, by budget A's LSTM."""
    names, budget = chapter(cells), BUDGETS["A"]
    text, network = texts(budget.corpus, cells), build(names, budget, "recurrent", 0)
    names["fit"](network, rate, budget.steps, text["train"], text["choice"][:129], budget.batch,
                 budget.context, 0)
    tokens = [chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in range(256)]
    with torch.no_grad():
        return [{"context": prompt, "tokens": tokens,
                 "logits": [round(x, 2) for x in network(data.encode(prompt)[None])[0, -1].tolist()]}
                for prompt in SLIDER_CONTEXTS]


WORK = (library_pages, texts, build, bits_with, bits_of_repeat, likeliest, choose, train, ngrams)


# ---------------------------------------------------------------- the record


def smoke(budget: Budget) -> Budget:
    """The same with all numbers small, for a test."""
    return replace(budget, corpus="smoke", steps=10, choice_steps=10, rates=budget.rates[:2], targets=20,
                   sampled=20, orders=2)


def header(args: argparse.Namespace) -> dict:
    names = chapter(args.cells)
    return {
        "command": "python benchmarks/history.py --seeds " + " ".join(map(str, args.seeds)),
        "seeds": args.seeds,
        "choice_seed": CHOICE_SEED,
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     "machine": f"{os.cpu_count()} cores, {platform.machine()}"},
        "reference_sha256": names["corpus"].card.sha256,
        "code": code_hashes(args.cells),
    }


def start(args: argparse.Namespace) -> dict:
    """The record on file if the same code began it, else an empty one."""
    fresh = header(args) | {"budgets": {}, "complete": False}
    if args.out and args.out.exists():
        found = json.loads(args.out.read_text(encoding="utf-8"))
        same = all(found.get(key) == fresh[key] for key in ("versions", "reference_sha256", "code"))
        if same:
            return found | header(args) | {"complete": False}
    return fresh


def call(job: tuple) -> tuple:
    work, where, *arguments = job
    return where, work(*arguments)


def run_all(jobs: list[tuple], record: dict, args: argparse.Namespace) -> None:
    """Do the jobs, `args.processes` at a time; store each result where its job says, and save."""
    if args.processes == 1:
        results, pool = map(call, jobs), None
    else:
        pool = multiprocessing.get_context("spawn").Pool(args.processes)
        results = pool.imap_unordered(call, jobs)
    for done, ((budget, part, key), result) in enumerate(results, start=1):
        record["budgets"][budget].setdefault(part, {})[key] = result
        save(record, args.out)
        print(f"{time.strftime('%H:%M:%S')} {budget} {part} {key}: {result.get('bits', '')} "
              f"({done} of {len(jobs)})", flush=True)
    if pool:
        pool.close()


def save(record: dict, path: Path | None) -> None:
    if path:
        path.with_suffix(".part").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
        path.with_suffix(".part").replace(path)


def one_budget(name: str, budget: Budget, record: dict, args: argparse.Namespace) -> None:
    """Choose rates, then train with every seed; whatever the record holds already is left as it is."""
    text = texts(budget.corpus, args.cells)
    part = record["budgets"].setdefault(name, {"setting": setting(budget)})
    if part["setting"] | {"rates": setting(budget)["rates"]} != setting(budget):
        part = record["budgets"][name] = {}
    part["setting"] = setting(budget)  # rates may be added: each is tried once
    part["text_bytes"] = {side: len(tokens) for side, tokens in text.items()}
    part["text_sha256"] = hashlib.sha256(bytes(text["train"].tolist())).hexdigest()
    jobs = [(choose, (name, "choice", f"{model} {rate:g}"), args.cells, budget, model, rate)
            for model in reversed(args.models) for rate in budget.rates]
    run_all([job for job in jobs if job[1][2] not in part.get("choice", {})], record, args)
    part.setdefault("rates", {})
    for model in args.models:
        tried = [part["choice"][f"{model} {rate:g}"] for rate in budget.rates]
        part["rates"][model] = min(tried, key=lambda row: row["bits"])["rate"]
    jobs = [(train, (name, "runs", f"{model} {seed}"), args.cells, budget, model, part["rates"][model], seed)
            for seed in args.seeds for model in reversed(args.models)]
    if budget.orders and name != "live":
        jobs.append((ngrams, (name, "counted", "n-grams"), args.cells, budget))
    for key, run in list(part.get("runs", {}).items()):
        if run["rate"] != part["rates"].get(run["model"], run["rate"]):
            del part["runs"][key]  # a better rate was found since
    run_all([job for job in jobs if job[1][2] not in part.get(job[1][1], {})], record, args)


def table(record: dict) -> str:
    """Mean test bits over the seeds, and their range."""
    lines = []
    for name, part in record["budgets"].items():
        for model in NETWORKS:
            runs = [run for run in part.get("runs", {}).values() if run["model"] == model]
            bits = [run["bits"] for run in runs]
            if bits:
                mean, cpu = sum(bits) / len(bits), sum(run["cpu_seconds"] for run in runs) / len(runs)
                lines.append(f"{name:5} {model:13} {mean:.3f} ({min(bits):.3f} to {max(bits):.3f}), "
                             f"rate {part['rates'][model]:g}, {cpu:.0f} s of one core")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--cells", type=Path, default=NOTEBOOK, help="notebook or draft with the cells")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="seconds; tests that everything runs")
    parser.add_argument("--out", type=Path, help="where to save (default: history.json)")
    args = parser.parse_args(argv)
    args.out = args.out or (None if args.smoke else RECORD)
    record = start(args)
    for name in args.budgets:
        one_budget(name, smoke(BUDGETS[name]) if args.smoke else BUDGETS[name], record, args)
    done = all(f"{model} {seed}" in record["budgets"].get(name, {}).get("runs", {}) for name in BUDGETS
               for model in NETWORKS for seed in args.seeds)
    if done and "next_bytes" not in record:
        record["next_bytes"] = next_bytes(args.cells, record["budgets"]["A"]["rates"]["recurrent"])
    record["complete"] = done and not args.smoke
    save(record, args.out)
    print(table(record))


if __name__ == "__main__":
    main()
