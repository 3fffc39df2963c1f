"""Lab 1: its losses are the plain loop's up to rounding, each fault breaks that, wrong flags are refused."""

import json
from statistics import fmean

import pytest
import torch

from labkit import configs, env, launch, ranks
from labkit.records import Recorder, Run, read_rank

LAB = env.ROOT / "labs" / "lab01_first_run"
STEPS = "8"
ROUNDING = 16 * 64 * 2**-24  # each of the additions over a batch's 1,024 tokens may round by 2^-24


@pytest.fixture(scope="module")
def lab():
    """The lab's train.py, imported."""
    return launch._script(LAB)


@pytest.fixture(scope="module")
def plain(lab):
    """Losses of the plain loop in this process; ``factor`` multiplies its gradients, as a fault does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: a second thread would mostly wait

    def losses(config="ds_config.json", factor=1.0, rank=0, world_size=1):
        args = lab.parser().parse_args(["--config", str(LAB / config), "--steps", STEPS])
        model, found = lab.new_model(args), []
        batches = lab.micro_batches(args, 16, 16 // world_size, rank=rank, world_size=world_size)
        for loss, _ in lab.plain_loop(model, lab.read_config(args), batches):
            found.append(loss.item())
            for p in model.parameters():
                p.grad *= factor
        return found

    yield losses
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pool():
    """Two ranks that need no launcher."""
    with_ranks = ranks.start(2)
    yield with_ranks
    with_ranks.stop()


def faulty(pool, folder, fault):
    """The records of two ranks that make a mistake."""
    def train():
        script = launch._script(LAB)
        args = script.parser().parse_args(["--steps", STEPS, "--engine", "torch", "--fault", fault])
        with Recorder(folder, total_steps=args.steps) as record:
            script.train(args, record)
    pool.run(train, timeout=300, stall=120)
    return Run(folder, None, {rank: read_rank(folder / f"rank{rank}.jsonl") for rank in (0, 1)})


def launched(folder, number, **changes):
    """Losses of the lab under the launcher, with some keys of its configuration changed."""
    config = json.loads((LAB / "ds_config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    run = launch.run("lab01", ranks=number, config=folder / "config.json", out=folder / "run",
                     args=["--steps", STEPS])
    assert run.finished and len(run.losses) == int(STEPS)
    return run


def apart(losses, reference):
    """Largest relative difference of two lists of losses."""
    return max(abs(a - b) / b for a, b in zip(losses, reference, strict=True))


@pytest.mark.parametrize(("number", "changes"), [
    (1, {}),
    (2, {"gradient_accumulation_steps": 4}),
])
def test_losses_are_those_of_the_plain_loop(plain, tmp_path, number, changes):
    run = launched(tmp_path, number, **changes)
    assert apart(run.losses, plain()) < ROUNDING
    states = run.metric("states")
    assert states["parameters"] == states["gradients"] == states["optimizer"] == 4 * 437_760
    assert run.metric("traffic")["elements"] == {"all_reduce": 437_760}  # once a step, accumulation or not


def test_summing_without_dividing_is_seen_on_two_ranks(plain, pool, tmp_path):
    run = faulty(pool, tmp_path, "sum")
    assert apart(run.losses, plain()) > 100 * ROUNDING
    assert apart(run.losses, plain(factor=2.0)) < ROUNDING  # the same as twice the gradient
    assert run.metric("traffic")["elements"] == {"all_reduce": 437_760}


def test_ranks_that_do_not_talk_are_seen(plain, pool, tmp_path):
    run = faulty(pool, tmp_path, "alone")
    assert apart(run.losses, plain()) > 100 * ROUNDING
    halves = zip(plain(rank=0, world_size=2), plain(rank=1, world_size=2), strict=True)
    assert apart(run.losses, map(fmean, halves)) < ROUNDING  # two trainings that know nothing of each other
    assert run.metric("traffic")["elements"] == {}


def test_adamw_would_hide_the_sum(plain):
    right, doubled = plain("adamw_config.json"), plain("adamw_config.json", factor=2.0)
    assert apart(doubled, right) < ROUNDING
    assert apart(plain(factor=2.0), plain()) > 100 * ROUNDING


@pytest.mark.parametrize(("number", "flags", "says"), [
    (1, ["--fault", "sum", "--engine", "torch"], "--fault sum needs --engine torch and --ranks 2 or more"),
    (2, ["--fault", "alone"], "--fault alone needs --engine torch"),
    (2, ["--engine", "torch"], "the plain loop knows one rank only"),
    (2, ["--fault", "both"], "invalid choice: 'both'"),
])
def test_flags_that_do_not_go_together_get_a_sentence_before_anything_starts(
        monkeypatch, tmp_path, number, flags, says):
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: pytest.fail("a process was about to start"))
    with pytest.raises(env.UserError, match=says):
        launch.run("lab01", ranks=number, args=flags, out=tmp_path / "run")


@pytest.mark.parametrize(("optimizer", "says"), [
    ({"type": "Lion", "params": {"lr": 0.1}}, "the optimizers SGD and AdamW, not 'Lion'"),
    ({"type": "SGD"}, "names no optimizer with params"),
])
def test_an_optimizer_that_the_lab_cannot_use_gets_a_sentence(lab, tmp_path, optimizer, says):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train_batch_size": 16, "optimizer": optimizer}))
    args = lab.parser().parse_args(["--config", str(path)])
    with pytest.raises(env.UserError, match=says):
        lab.new_optimizer(torch.nn.Linear(1, 1), lab.read_config(args))


@pytest.mark.parametrize("name", ["ds_config.json", "adamw_config.json"])
def test_the_plain_optimizer_is_the_one_that_the_file_names(lab, name):
    args = lab.parser().parse_args(["--config", str(LAB / name), "--lr", "0.25"])
    config = lab.read_config(args)
    configs.check(config, 4)
    optimizer = lab.new_optimizer(torch.nn.Linear(1, 1), config)
    assert type(optimizer).__name__ == config["optimizer"]["type"] and optimizer.defaults["lr"] == 0.25
    assert config["gradient_clipping"] == 0.0  # DeepSpeed's default is 1.0, and the plain loop does not clip


def test_every_cut_takes_the_same_sequences(lab):
    args = lab.parser().parse_args(["--steps", "2"])
    whole = torch.cat([x for x, _ in lab.micro_batches(args, 8, 8)])
    for keys, micro in (({}, 4), ({"gradient_accumulation_steps": 2}, 2),
                        ({"train_micro_batch_size_per_gpu": 1}, 1)):
        assert lab.micro_batch_size(keys, 4) == micro
        shares = [torch.stack([x for x, _ in lab.micro_batches(args, 8, micro, rank=rank, world_size=2)])
                  for rank in (0, 1)]
        assert torch.cat([share.view(2, 4, -1) for share in shares], 1).view(16, -1).equal(whole)
