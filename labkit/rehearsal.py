"""Tries a configuration on one rank before all of them start: DeepSpeed finds some faults only by training.

A process of its own makes an engine of a small model and takes two steps. What it cannot show: what
needs several ranks (tensor, sequence and expert parallelism are left out), and what only the real model
brings. A file without an optimizer, which the training script then gives, gets AdamW.
"""

import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from labkit import config_trial, configs, env

LEFT_OUT = ("tensor_parallel", "sequence_parallel_size", "data_parallel_size", "expert_parallel",
            *config_trial.MONITORS, "csv_monitor")
FAILED = 3


def rehearse(config: dict[str, Any], *, where: str, on_gpus: bool = False) -> None:
    """Train two steps on one rank. Raises UserError with DeepSpeed's sentence if it cannot.

    ``config`` has no faults that `configs.faults` finds. ``where`` names the file in the sentence.
    """
    ours = {key: value for key, value in config.items() if key not in (*configs.BATCH_KEYS, *LEFT_OUT)}
    if not ours.get("optimizer"):
        offloaded = configs.offloads_optimizer(configs.read(ours))
        ours["optimizer"] = {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": not offloaded}}
    environ = dict(os.environ, RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1",
                   MASTER_PORT=str(env.free_port()), PYTHONWARNINGS="ignore",
                   PYTHONPATH=os.pathsep.join(filter(None, (str(env.ROOT), os.environ.get("PYTHONPATH")))))
    environ |= {} if on_gpus else {"DS_ACCELERATOR": "cpu"}
    limit = 120.0 * max(1.0, env.busy())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.json"
        path.write_text(json.dumps({**ours, "train_micro_batch_size_per_gpu": 2}), encoding="utf-8")
        try:
            done = subprocess.run([sys.executable, "-m", "labkit.rehearsal", str(path)], env=environ,
                                  cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit,
                                  check=False)
        except subprocess.TimeoutExpired:
            raise env.UserError(f"{where}: DeepSpeed had not made two steps on one rank after {limit:.0f} s: "
                                "end other programs, or take another setting") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    told = [line.removeprefix("labkit: ") for line in lines if line.startswith("labkit: ")]
    why = told[-1] if told and done.returncode == FAILED else f"its process ended with code {done.returncode}"
    raise env.UserError(f"{where}: DeepSpeed cannot train with it: {why}")


def _main(path: str) -> None:
    """In the child: an engine and two steps."""
    import deepspeed
    import torch

    env.init_distributed()
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 16))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(),
                                      config=configs.load(path))
    samples = torch.randn(2, 16, device=env.device(), dtype=next(model.parameters()).dtype)
    for _ in range(2):
        engine.backward(engine(samples).float().square().mean())
        engine.step()
    torch.distributed.destroy_process_group()


def _sentence(error: Exception) -> str:
    """What an exception says; where it says nothing, the line of code that raised it."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    said = said or f"{traceback.extract_tb(error.__traceback__)[-1].line}"
    return f"{type(error).__name__}: {said}"


if __name__ == "__main__":
    try:
        _main(sys.argv[1])
    except Exception as error:
        print(f"labkit: {_sentence(error)}", flush=True)
        os._exit(FAILED)  # without waiting for what the engine has started
    sys.stdout.flush()
    os._exit(0)
