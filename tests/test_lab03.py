"""Lab 3: every count is as predicted on every rank, a wrong one is named, bad flags get a sentence."""

import importlib
import json
import sys

import pytest

from labkit import env, launch
from labkit.models import GPTConfig
from labkit.records import Record, Run, read_run

LAB = env.ROOT / "labs" / "lab03_memory_and_time"
SMALL = ["--steps", "4", "--layers", "2", "--hidden", "64", "--context", "16", "--micro", "3"]


@pytest.fixture(scope="module")
def lab():
    """The lab's modules."""
    sys.path.insert(0, str(LAB))
    yield {name: importlib.import_module(name) for name in ("memory_counts", "time_table")}
    sys.path.remove(str(LAB))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab03") / "run"
    launch.run("lab03", ranks=2, args=[*SMALL, "--dropout", "0.2"], out=folder)
    return read_run(folder)


def test_every_count_is_as_predicted_on_every_rank(run, lab):
    if run.info.device != "cpu":
        pytest.skip("the formulas are those of torch's CPU kernels")
    assert run.finished and lab["time_table"].wrong(run) == []
    for rank in (0, 1):
        rows = run.metric("activations", rank)["rows"]
        assert len(rows) == 8 and len({row["measured"] for row in rows}) == 8
        assert all(row["predicted"] == row["measured"] for row in rows)
    shown = launch.report(run)
    assert "every count is as predicted, on every rank" in shown
    assert "bf16, dropout 0.2, recomputed" in shown and "\nplain " in shown and "\nrecomputed " in shown


def test_checkpointing_changes_no_loss(run):
    assert run.metric("plain")["losses"] == run.metric("recomputed")["losses"]


def test_parts_of_a_step_and_utilization(run, lab):
    table = lab["time_table"]
    for training in ("plain", "recomputed"):
        u, parts = table.utilization(run, training), table.parts(run, training)
        assert set(parts) == set(table.PARTS) and all(seconds > 0 for seconds in parts.values())
        assert 0 < u["mfu"] <= 1 and u["tokens_per_second"] == pytest.approx(2 * 3 * 16 / u["seconds"])
        f = run.metric("flops")
        more = (f["rule"] + f["matrix_recomputed"] - f["matrix"]) / f["rule"]
        assert u["hfu"] / u["mfu"] == pytest.approx(more if training == "recomputed" else 1)


def test_a_wrong_count_is_named(run, lab):
    changed = json.loads(json.dumps([record.model_dump() for record in run.ranks[1]]))
    for record in changed:
        if record["values"].get("name") == "activations":
            record["values"]["rows"][3]["measured"] += 1
        if record["values"].get("name") == "flops":
            record["values"]["counted"] += 2
    other = Run(run.folder, run.info, {**run.ranks, 1: [Record(**record) for record in changed]})
    assert lab["time_table"].wrong(other) == ["rank 1: fp32, dropout 0.2, recomputed",
                                              "rank 1: torch's FLOPs"]
    assert "not as predicted: rank 1: fp32, dropout 0.2, recomputed; rank 1: torch's FLOPs" in \
        launch.report(other)


def test_predictions_know_what_each_flag_changes(lab):
    predicted = lab["memory_counts"].predicted_bytes
    shape, dropped = GPTConfig(hidden_size=64), GPTConfig(hidden_size=64, dropout=0.1)
    assert predicted(dropped, 3, "fp32", False) > predicted(shape, 3, "fp32", False)
    assert predicted(shape, 3, "bf16", False) < predicted(shape, 3, "fp32", False)
    # recomputing leaves of dropout the mask after the embeddings only: one number each
    assert predicted(dropped, 3, "bf16", True) - predicted(shape, 3, "bf16", True) == 2 * 3 * 64 * 64


def test_the_clock_takes_an_inner_part_out_of_the_outer_one(lab, monkeypatch):
    now = iter(range(100))
    table = lab["time_table"]
    monkeypatch.setattr(table.Clock, "now", lambda self: next(now))
    clock = table.Clock()
    inner = clock.inner("communication", lambda x: x + 1)
    clock.start()  # 0
    assert inner(1) == 2  # 1 to 2
    clock.lap("backward")  # 3: three seconds, one of them inside
    clock.lap("optimizer")  # 4
    assert dict(clock.times) == {"communication": [1], "backward": [2], "optimizer": [1]}


@pytest.mark.parametrize(("flags", "says"), [
    (["--hidden", "100"], "a multiple of 32"),
    (["--dropout", "1"], "from 0 to below 1"),
    (["--steps", "3"], "a whole number of at least 4"),
    (["--checkpoint", "maybe"], "invalid choice: 'maybe'"),
    (["--dtype", "fp16"], "invalid choice: 'fp16'"),
    (["--layer", "2"], "did you mean --layers"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab03", ranks=2, args=flags, out=tmp_path / "run")


def test_default_flags_and_help():
    args = launch._check_flags(LAB, [])
    assert args.checkpoint == "both" and args.dtype == "fp32" and args.micro is None
    assert "--checkpoint" in launch.lab_help("lab03")
