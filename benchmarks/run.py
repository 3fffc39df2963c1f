"""Times, side by side in one run: medians of repeats, and each as a ratio to the first of its group.

    make bench        # all groups, about five minutes
    .venv/bin/python benchmarks/run.py --repeats 5 --group start

Nothing here is asserted: times belong to the machine that took them.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from tqdm import tqdm

from labkit import env, launch, ranks

HERE = Path(__file__).resolve().parent
RANKS = 2
TRIVIAL = """\
from labkit import env
import torch, deepspeed
env.init_distributed()
tensor = torch.ones(1)
torch.distributed.all_reduce(tensor)
assert tensor.item() == torch.distributed.get_world_size()
torch.distributed.destroy_process_group()
"""




def start_group() -> Iterator[tuple[str, Callable[[], object]]]:
    """From nothing to one all-reduce on two ranks."""
    script = Path(tempfile.mkdtemp()) / "trivial.py"
    script.write_text(TRIVIAL)
    environ = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(env.ROOT))

    def command(*words: str) -> None:
        done = subprocess.run([*words, str(script)], capture_output=True, text=True, env=environ)
        if done.returncode:
            raise SystemExit(f"{words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def pool() -> None:
        with redirect_stdout(None):
            ranks.start(RANKS).execute("import torch\ntorch.distributed.all_reduce(torch.ones(1))")
        ranks.stop()

    yield "rank pool", pool
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={RANKS}"]
    yield "torchrun", lambda: command(*torchrun, f"--master_port={env.free_port()}")
    yield "deepspeed launcher", lambda: command("deepspeed", "-q", "--no_local_rank", "--num_accelerators",
                                                str(RANKS), "--master_port", str(env.free_port()))


ENGINE = """\
import torch, deepspeed
from labkit.models import GPT, GPTConfig
model = GPT(GPTConfig())
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config={{
    "train_micro_batch_size_per_gpu": 4, "gradient_clipping": 0.0,
    "optimizer": {{"type": "AdamW", "params": {{"torch_adam": True}}}},
    "zero_optimization": {{"stage": {stage}, "reduce_bucket_size": 100000}}}})
for _ in range(3):
    tokens = torch.randint(0, 256, (4, 64))
    engine.backward(engine(tokens, tokens))
    engine.step()
"""


def engine_group() -> Iterator[tuple[str, Callable[[], object]]]:
    """A further DeepSpeed engine built and stepped three times in a pool that is up."""
    with redirect_stdout(None):
        pool = ranks.start(RANKS)
        for stage in (0, 3):  # the first engine of a kind imports what it needs
            pool.execute(ENGINE.format(stage=stage))
    for stage in range(4):
        yield f"ZeRO stage {stage}", lambda stage=stage: pool.execute(ENGINE.format(stage=stage))
    ranks.stop()


def lab_group() -> Iterator[tuple[str, Callable[[], float]]]:
    """Lab 1: seconds for a million tokens, without the start."""

    os.environ["OMP_NUM_THREADS"] = "1"  # two threads of one rank lose their time to other programs

    def lab(number: int, *args: str) -> float:
        out = tempfile.mkdtemp()
        with redirect_stdout(None):
            return 1e6 / launch.run("lab01", ranks=number, args=args, out=out).tokens_per_second

    yield "plain PyTorch loop", lambda: lab(1, "--engine", "torch")
    for number in (1, 2, 4):
        yield f"DeepSpeed, {number} ranks", lambda number=number: lab(number)


GROUPS = {"start": start_group, "engine": engine_group, "lab": lab_group}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--group", choices=GROUPS, action="append", help="only this (may be repeated)")
    args = parser.parse_args()
    results = {}
    for group in args.group or GROUPS:
        print(f"\n{group}: {GROUPS[group].__doc__}")
        medians = {}
        for name, function in GROUPS[group]():
            times = []
            for _ in tqdm(range(args.repeats), desc=name, leave=False):
                began = time.perf_counter()
                result = function()
                times.append(result if isinstance(result, float) else time.perf_counter() - began)
            medians[name] = statistics.median(times)
            first = next(iter(medians.values()))
            spread = f"{min(times):.2f}–{max(times):.2f}"
            print(f"  {name:22}{medians[name]:8.2f} s   ({spread})   × {medians[name] / first:.2f}")
        results[group] = medians
    head = {"date": datetime.date.today().isoformat(), "cores": env.cores(), "unit": "seconds, median",
            "python": platform.python_version(), "repeats": args.repeats}
    (HERE / "results.json").write_text(json.dumps({**head, "groups": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
