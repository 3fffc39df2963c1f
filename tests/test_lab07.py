"""Lab 7: the table is complete, a way that computes something else is named, wrong files get a sentence."""

import importlib
import json
import sys

import pytest

from labkit import configs, env, launch, plan
from labkit.models import GPT, GPTConfig, count_parameters
from labkit.records import Record, Run, RunInfo, read_run

LAB = env.ROOT / "labs" / "lab07_every_way"
SHAPE = GPTConfig(context=32, num_layers=4, num_heads=4, hidden_size=64)


@pytest.fixture(scope="module")
def lab():
    """The lab's modules."""
    sys.path.insert(0, str(LAB))
    yield {name: importlib.import_module(f"way_{name}") for name in ("engines", "predictions", "table")}
    sys.path.remove(str(LAB))


@pytest.fixture(scope="module")
def base():
    return configs.load(LAB / "ds_config.json")


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """(message, run): five ways under SGD, which unlike Adam shows a wrong scale; one learns faster."""
    folder = tmp_path_factory.mktemp("lab07")
    other = folder / "hasty.json"
    other.write_text(json.dumps({"optimizer": {"params": {"lr": 0.11}}}))
    with pytest.raises(launch.LabFailed) as caught:
        launch.run("lab07", ranks=2, config=LAB / "sgd_config.json", out=folder / "run",
                   args=["--steps", "6", "--ways", f"zero0,{other},pp2,tp2,sp2"])
    return str(caught.value), read_run(folder / "run")


def test_a_way_that_computes_something_else_makes_the_lab_fail(failed):
    first = failed[0].splitlines()[0]
    assert "raised LossesDiffer: hasty: at step 1 the loss is" in first and "where 0.0001 is allowed" in first
    assert not any(f"{way}: at step" in first for way in ("zero0", "pp2", "tp2", "sp2"))


def test_the_other_ways_agree_under_sgd_and_the_table_has_them_all(failed, lab):
    rows = {row["way"]: row for row in lab["table"].rows(failed[1])}
    assert list(rows) == ["plain", "zero0", "hasty", "pp2", "tp2", "sp2"]
    for way, row in rows.items():
        # fp32 rounds at 6e-8 and six steps of SGD add no more than some of these up
        assert (row["apart"] > 1e-4) if way == "hasty" else (row["apart"] < 2e-6), way
        assert len(row["states"]) == 2 and len(row.get("sent", [0, 0])) == 2
        assert row.get("messages") == row.get("predicted_messages"), way
        assert row["seconds"] > 0
    shown = launch.report(failed[1])
    assert all(f"\n{way} " in shown for way in rows)
    assert "not as predicted: zero0" in shown  # the states: SGD has none, Adam's were predicted


def test_a_recorded_run_can_be_kept_and_read_again(failed, lab, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--run_dir", "/x", "--config", "/y", "--record"])
    path = lab["table"].keep(failed[1].folder, tmp_path / "kept")
    assert path.name == "cpu-2ranks.json"
    kept, = lab["table"].recorded(tmp_path / "kept")
    assert kept["rows"] == lab["table"].rows(failed[1]) and kept["versions"]["deepspeed"]
    assert kept["command"] == "labkit run lab07 --ranks 2 --record" and str(tmp_path) not in path.read_text()
    path.write_text("{}")
    with pytest.raises(env.UserError, match="no recorded run: delete it"):
        lab["table"].recorded(tmp_path / "kept")


def test_the_runs_that_are_kept_have_every_way(lab):
    found = {(kept["device"], kept["ranks"]): kept for kept in lab["table"].recorded(LAB / "recorded")}
    for ranks in (1, 2, 4):
        rows = found["cpu", ranks]["rows"]
        possible = [way for way in lab["engines"].names()
                    if not way[-1:].isdigit() or way.startswith("zero") or int(way[-1]) <= ranks]
        assert [row["way"] for row in rows] == ["plain", *possible]
        assert all(lab["table"].as_predicted(row) and row["apart"] < 1e-4 for row in rows)


def test_predictions_agree_with_the_closed_formulas(lab, base):
    engines, sizes = lab["engines"], lab["predictions"].sizes
    whole = count_parameters(GPT(SHAPE))
    dense = [p.numel() for p in GPT(SHAPE).parameters()]
    assert sorted(sizes(SHAPE, engines.Layout(dp=4), 0)) == sorted(dense)
    for tp in (2, 4):  # AutoTP keeps the vocabulary whole, Megatron-LM divides it
        vocabulary = 256 * 64
        assert sum(sizes(SHAPE, engines.Layout(tp=tp), 0)) == \
            plan.tensor_parallel_params(4, 64, 256, 32, tp) + vocabulary - vocabulary // tp
    for pp, dp in ((2, 1), (2, 2), (4, 1)):  # one copy of each parameter, and the tied embedding twice
        stages = [sum(sizes(SHAPE, engines.Layout(pp=pp, dp=dp), stage * dp)) for stage in range(pp)]
        assert sum(stages) == whole + 256 * 64
    assert lab["predictions"].ring_bytes({("all_reduce", 2): 10, ("send", 2): 10, ("broadcast", 4): 4}) == \
        40 + 40 + 12


@pytest.mark.parametrize(("flags", "says"), [
    (["--ways", "zero9"], "no way 'zero9': ways/ holds zero0, zero1"),
    (["--ways", "zero1,zero1"], "have the same name"),
    (["--ways", "nowhere.json"], "no DeepSpeed configuration at nowhere.json"),
    (["--steps", "2"], "a whole number of at least 5"),
    (["--way", "zero1"], "did you mean --ways"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab07", ranks=2, args=flags, out=tmp_path / "run")


@pytest.mark.parametrize(("content", "says"), [
    ("{", "is not JSON"),
    ('{"zero_optimisation": {"stage": 1}}', "did you mean 'zero_optimization'"),
    ('{"zero_optimization": {"stage": 4}}', "mine.json: "),
    ('{"pipeline": {"stages": "two"}}', "the pp degree must be a whole number"),
    ('{"pipeline": {"stages": 2}, "sequence_parallel_size": 2}', "splits the model in two ways at once"),
    ('{"gradient_accumulation_steps": 0}', "gradient_accumulation_steps must be a whole number"),
])
def test_a_wrong_file_gets_a_sentence(content, says, tmp_path, lab):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(env.UserError, match=says):
        launch.run("lab07", ranks=2, args=["--ways", str(path)], out=tmp_path / "run")


def test_a_way_that_the_batch_does_not_fit_changes_the_labs_own_file_only(tmp_path, monkeypatch, capsys):
    thirds, taken = tmp_path / "thirds.json", []
    thirds.write_text('{"gradient_accumulation_steps": 3}')
    monkeypatch.setattr(launch._Watch, "until_end", lambda self: taken.append(self.info.command))
    launch.run("lab07", ranks=2, args=["--ways", f"zero1,{thirds}"], out=tmp_path / "own")
    assert "among 2 ranks in every way of this lab: taking 6, 3 a rank" in capsys.readouterr().out
    assert configs.load(taken[0][taken[0].index("--config") + 1])["train_batch_size"] == 6
    with pytest.raises(env.UserError, match="as this lab needs it on 2 ranks: set it to 6 or 12"):
        launch.run("lab07", ranks=2, args=["--ways", f"zero1,{thirds}"], config=LAB / "ds_config.json",
                   out=tmp_path / "given")


def test_ways_that_so_many_ranks_cannot_go_are_left_out_and_told(lab, tmp_path):
    args = launch._check_flags(LAB, [], LAB / "ds_config.json")
    assert lab["predictions"].plan_ways(args, 0, 2).left_out == {"pp4": 4, "tp4": 4, "sp4": 4}
    skipped = [Record(event="metric", rank=0, seconds=1.0, values={
        "name": "skipped", "way": way, "reason": "why"}) for way in ("pp4", "tp4")]
    plain = Record(event="metric", rank=0, seconds=1.0, values={
        "name": "plain", "losses": [1.0], "states": {"parameters": 4}, "seconds": 0.1})
    info = RunInfo(lab="lab07_every_way", command=[], ranks=2, started="")
    assert launch.report(Run(tmp_path, info, {0: [plain, *skipped]})).endswith("left out: pp4, tp4: why")


def test_a_way_says_how_many_ranks_and_samples_it_needs(lab, base):
    engines = lab["engines"]
    assert str(engines.lay_out("tp2", engines.read("tp2", base), 4)) == "TP2×DP2"
    assert str(engines.lay_out("zero0", engines.read("zero0", base), 1)) == "1 rank"
    with pytest.raises(env.UserError, match="tp4 divides the model over 4 ranks: give --ranks a multiple"):
        engines.lay_out("tp4", engines.read("tp4", base), 2)
    with pytest.raises(env.UserError, match="pp2: train_batch_size 8 cannot be divided by 4 data-parallel"):
        engines.lay_out("pp2", engines.read("pp2", base), 8)


def test_default_flags_and_help():
    args = launch._check_flags(LAB, [])
    assert len(args.ways) == 11 and args.ways[0] == "zero0" and not args.record
    assert "--ways" in launch.lab_help("lab07")
    assert launch.report.__doc__
