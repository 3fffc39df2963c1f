"""Lab 6: one loss on 1, 2 and 4 ranks, a resumed run as one left alone, bad input gets a sentence."""

import argparse
import importlib
import itertools
import json
import sys
import types
from collections import Counter

import pytest
import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from labkit import configs, env, launch
from labkit.records import Recorder, read_run

LAB = env.ROOT / "labs" / "lab06_three_tasks"
SMALL = ["--tasks", "translate,numbers", "--mix", "numbers=2", "--steps", "3", "--every", "2"]


@pytest.fixture(scope="module")
def lab():
    """The lab's modules."""
    sys.path.insert(0, str(LAB))
    names = ("tasks", "pretrain", "mixing", "judging", "resuming", "ask", "code_hash")
    found = {name: importlib.import_module(name) for name in names}
    yield types.SimpleNamespace(train=launch._script(LAB), **found)
    sys.path.remove(str(LAB))


@pytest.fixture(scope="module")
def loaded(lab):
    """(model, tokenizer) of the backbone."""
    model, tokenizer = lab.mixing.load(lab.pretrain.SHIPPED)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{ranks: run}: on 2 ranks with answers and a record, else without."""
    folder = tmp_path_factory.mktemp("lab06")
    for ranks in (1, 2, 4):
        more = ["--judged", "3", "--record", str(folder / "found.json")] if ranks == 2 else ["--judged", "0"]
        launch.run("lab06", ranks=ranks, args=[*SMALL, *more], out=folder / str(ranks))
    return {ranks: read_run(folder / str(ranks)) for ranks in (1, 2, 4)}


def relative(losses, others):
    return max(abs(a - b) / b for a, b in zip(losses, others, strict=True))


# ---------------------------------------------------------------- one run on any number of ranks


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_losses_are_those_of_one_rank(runs, ranks):
    """A few hundred additions in another order: 1e-5 allows for thousands, a mean of means is far off."""
    assert len(runs[ranks].losses) == 3
    assert relative(runs[ranks].losses, runs[1].losses) < 1e-5
    naive = [sum(n / t for n, t in zip(nats, targets, strict=True)) / ranks
             for nats, targets in zip(*(zip(*(runs[ranks].series(name, r) for r in range(ranks)), strict=True)
                                        for name in ("nats", "targets")), strict=True)]
    assert relative(naive, runs[1].losses) > 1e-4


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_share_the_rows_of_one(runs, ranks):
    for name in ("targets", "tokens"):
        parts = [runs[ranks].series(name, rank) for rank in range(ranks)]
        assert [sum(each) for each in zip(*parts, strict=True)] == runs[1].series(name)
    for step, alone in enumerate(runs[1].series("tasks")):
        counted = Counter()
        for rank in range(ranks):
            for name, (_, targets) in runs[ranks].series("tasks", rank)[step].items():
                counted[name] += targets
        assert counted == {name: targets for name, (_, targets) in alone.items()}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_states_are_as_predicted(runs, ranks):
    for rank in range(ranks):
        states = runs[ranks].metric("states", rank)
        assert states["stage"] == 2 and states["parameters"] == 3_898_368
        if runs[1].info.device == "cpu":
            assert states["measured"] == states["predicted"]
            assert states["measured"]["optimizer"] == 12 * 3_898_368 // ranks + 4


def test_the_model_is_kept_in_16_bits_and_answers(runs, lab):
    model = AutoModelForCausalLM.from_pretrained(runs[2].folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(runs[2].folder / "model")
    assert model.dtype == torch.float16 and len(tokenizer) == model.config.vocab_size
    assert isinstance(lab.ask.ask(model.float().eval(), tokenizer, "translate", "Failed"), str)
    start = lab.mixing.load(lab.pretrain.SHIPPED)[0].state_dict()
    moved = [float((value.float() - start[name]).abs().max()) for name, value in model.state_dict().items()]
    assert all(0 < most < 0.05 for most in moved)  # 3 small steps


def test_verdicts_record_and_report(runs, lab):
    found = json.loads((runs[2].folder.parent / "found.json").read_text(encoding="utf-8"))
    assert found["command"] == ("labkit run lab06 --ranks 2 --tasks translate,numbers --mix numbers=2 "
                                "--steps 3 --every 2 --judged 3")
    assert found["code"] == lab.code_hash.code_hash(*lab.train.CODE) and found["part"] == "dev"
    assert [done for done, _ in found["curve"]] == [2, 3]
    assert all(set(means) == {"translate", "numbers"} for _, means in found["curve"])
    last = {name: [sum(runs[2].series("tasks", r)[2].get(name, (0, 0))[i] for r in (0, 1)) for i in (0, 1)]
            for name in ("translate", "numbers")}
    assert found["curve"][-1][1] == pytest.approx({name: n / t for name, (n, t) in last.items()}, abs=1e-4)
    assert list(found["verdicts"]) == ["translate", "numbers"]
    for name, verdict in found["verdicts"].items():
        assert verdict == runs[2].metric(f"verdict {name}") == runs[2].metric(f"verdict {name}", 1)
        assert verdict["n"] == 3 and verdict["interval"][0] <= verdict["score"] <= verdict["interval"][1]
    report = launch.report(runs[2])
    assert "nearest known string" in report and "wanted" in report and "nats a target" in report


def test_a_resumed_run_equals_the_uninterrupted_one(runs, tmp_path):
    """The checkpoint is of step 2 of 3."""
    launch.run("lab06", ranks=2, out=tmp_path / "run", args=[
        *SMALL, "--judged", "0", "--resume", str(runs[2].folder), "--record", str(tmp_path / "found.json")])
    resumed = read_run(tmp_path / "run")
    assert resumed.losses == runs[2].losses[2:] and resumed.series("step") == [2]
    one, two = (AutoModelForCausalLM.from_pretrained(run.folder / "model").state_dict()
                for run in (runs[2], resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    curves = [json.loads(path.read_text(encoding="utf-8"))["curve"]
              for path in (runs[2].folder.parent / "found.json", tmp_path / "found.json")]
    assert curves[0] == curves[1]


# ---------------------------------------------------------------- which rows


def test_a_mixture_depends_on_seed_and_step_alone(lab):
    def steps(seed, first=0, count=6):
        mixture = lab.mixing.Mixture({"classify": 5, "numbers": 7}, {"numbers": 3.0}, 8, seed)
        return list(itertools.islice(mixture.batches(), first, count))

    assert steps(1) == steps(1) and steps(1)[4:] == steps(1, 4) and steps(1) != steps(2)
    drawn = [item for batch in steps(1, 0, 500) for item in batch]
    counts = Counter(name for name, _ in drawn)
    assert 0.22 < counts["classify"] / len(drawn) < 0.28  # 4,000 draws at 1/4: 4 standard deviations
    for name, size in (("classify", 5), ("numbers", 7)):
        numbers = [number for task, number in drawn if task == name]
        epochs = [numbers[i:i + size] for i in range(0, len(numbers) - size, size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) > 20


def test_a_task_without_a_share_gives_no_row(lab):
    mixture = lab.mixing.Mixture({"classify": 5, "numbers": 7}, {"classify": 0.0}, 8, 0)
    assert {name for batch in itertools.islice(mixture.batches(), 50) for name, _ in batch} == {"numbers"}


def test_rows_of_a_batch_are_the_items_rows_sorted(lab, loaded):
    known = {"numbers": [("five", "五"), ("twenty-one", "二十一")],
             "translate": [("Off", "关"), ("Go on", "继续")]}
    batch = [("translate", 1), ("numbers", 0), ("numbers", 1), ("numbers", 0), ("translate", 0)]
    rows = lab.train.rows_of(loaded[1], batch, known)
    lengths = [len(prompt) + len(answer) for _, prompt, answer in rows]
    assert lengths == sorted(lengths) and Counter(name for name, *_ in rows) == {"numbers": 3, "translate": 2}
    assert rows == lab.train.rows_of(loaded[1], batch[::-1], known)
    answers = sorted(loaded[1].decode(answer[:-1]) for *_, answer in rows)
    assert answers == sorted(["五", "五", "二十一", "关", "继续"])


# ---------------------------------------------------------------- the loss


def test_summed_loss_is_transformers_loss_times_targets(lab, loaded):
    model, tokenizer = loaded
    made = lab.tasks.rows(tokenizer, "numbers", [("five", "五"), ("one hundred and two", "一百零二")])
    ends = [([5, 6, 7], [0]), ([5], [9] * 200)]
    for rows in (made, ends, made[:1]):
        batch = lab.tasks.pad(rows)
        with torch.no_grad():
            mean = model(**batch).loss
            targets = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=lab.tasks.IGNORED)
            each = lab.train.SummedLoss(model)(batch["input_ids"], batch["attention_mask"], targets)
            alone = [lab.tasks.pad([row]) for row in rows]
            one_by_one = torch.stack([model(**one).loss * len(row[1])
                                      for one, row in zip(alone, rows, strict=True)])
        assert float(each.sum()) == pytest.approx(float(mean) * sum(len(a) for _, a in rows), rel=1e-5)
        assert torch.allclose(each, one_by_one, rtol=1e-4)
    nothing = torch.full((2, 4), lab.tasks.IGNORED)
    none = lab.train.SummedLoss(model)(torch.ones(2, 4).long(), torch.ones(2, 4).long(), nothing)
    assert none.tolist() == [0.0, 0.0]


class Engine:
    """DeepSpeed's arithmetic without ranks: losses divided by accumulation, gradients kept for the mean."""

    def __init__(self, module, micro, batch):
        self.module, self.micro, self.batch, self.boundary = module, micro, batch, False

    def __call__(self, *args, **named):
        return self.module(*args, **named)

    def train_micro_batch_size_per_gpu(self):
        return self.micro

    def train_batch_size(self):
        return self.batch

    def gradient_accumulation_steps(self):
        return self.accumulation

    def is_gradient_accumulation_boundary(self):
        return False

    def backward(self, loss):
        (loss / self.accumulation).backward()

    def step(self):
        pass

    def destroy(self):
        pass


@pytest.mark.parametrize(("fault", "right"), [(None, True), ("mean", False)])
def test_the_ranks_mean_gradient_is_that_of_all_targets(lab, loaded, monkeypatch, fault, right):
    model, tokenizer = loaded
    words = ["five", "nine hundred and ninety-nine thousand, nine hundred and ninety-nine", "two", "sixty"]
    items = [(word, "五" * (3 * i * i + 1)) for i, word in enumerate(words)]
    rows = lab.train.rows_of(tokenizer, [("numbers", i) for i in range(4)], {"numbers": items})
    gradients = {}
    for world_size, micro in ((1, 4), (2, 1)):
        monkeypatch.setattr(lab.train.distributed, "get_world_size", lambda size=world_size: size)
        model.zero_grad()
        for rank in range(world_size):
            monkeypatch.setattr(lab.train.distributed, "get_rank", lambda rank=rank: rank)
            engine = Engine(lab.train.SummedLoss(model), micro, 4)
            engine.accumulation = 4 // world_size // micro
            with Recorder(None, total_steps=1) as record:
                list(lab.train.train(engine, [lab.train.shares_of(rows)], record,
                                     argparse.Namespace(fault=fault), 0))
        gradients[world_size] = torch.cat([p.grad.flatten() for p in model.parameters()]) / world_size
    model.zero_grad()
    apart = float((gradients[2] - gradients[1]).norm() / gradients[1].norm())
    assert (apart < 1e-4) if right else (apart > 0.01)


def test_pretraining_uses_the_same_engine(lab, loaded, monkeypatch, tmp_path):
    tokenizer = loaded[1]
    monkeypatch.setattr(lab.train.splits, "pretraining_texts", lambda: ["good morning, world " * 40] * 100)
    monkeypatch.setattr(lab.pretrain, "held_out", lambda count: {"English": ["good morning, world"]})
    monkeypatch.setattr(lab.train.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(lab.train.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(lab.train.distributed, "barrier", lambda: None)
    torch.manual_seed(0)
    model = lab.pretrain.make_model()

    def engine(model, config, steps):
        made = Engine(lab.train.SummedLoss(model), 2, 4)
        made.accumulation, optimizer = 2, torch.optim.AdamW(model.parameters(), 1e-3)
        made.step = lambda: (optimizer.step(), optimizer.zero_grad())
        return made

    monkeypatch.setattr(lab.train, "new_engine", engine)
    with Recorder(tmp_path, total_steps=3, rank=0) as record:
        args = argparse.Namespace(pretrain=3, seed=0, run_dir=str(tmp_path), fault=None)
        made = lab.train.pretrain_first(args, {}, model, tokenizer, record)
    lines = [json.loads(line) for line in (tmp_path / "rank0.jsonl").read_text().splitlines()]
    assert [line["values"]["step"] for line in lines if line["event"] == "step"] == [0, 1, 2]
    (bits,) = [line["values"] for line in lines if line["event"] == "metric"]
    assert bits["after"]["English"] < bits["before"]["English"]
    assert made is not model and torch.equal(made.lm_head.weight, model.lm_head.weight.half().float())


# ---------------------------------------------------------------- the verdict


def test_the_interval_is_wilsons_and_degenerate_answers_have_scores(lab):
    for right, count in ((0, 7), (7, 7), (3, 50), (499, 500)):
        low, high = lab.judging.wilson(right, count)
        expected = binomtest(right, count).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    for name, task in lab.tasks.TASKS.items():
        wanted = ["alpha beta", "gamma", "x"]
        for found in (wanted, ["", "", ""], ["x"] * 3):
            low, high = lab.judging.interval(name, found, wanted)
            score = lab.tasks.score(name, found, wanted)
            assert 0 <= low <= high <= 100.0001 and low - 1e-6 <= score <= high + 1e-6, (task.metric, found)
        assert lab.judging.interval(name, ["a"], ["a"]) == [0.0, 100.0]


def test_baselines(lab):
    context = "a : int\n    A number.\nb : str, default='x'\n    Text."
    assert lab.judging.look_up(context, "What is `b`?") == "str, default='x'"
    assert lab.judging.look_up("a : int\nb : str, default=7", "What is the default of `b`?") == "7"
    assert lab.judging.look_up("a, b : int", "What is `b`?") == "int"
    assert lab.judging.look_up("", "What is `b`?") == lab.judging.look_up("a : int", "what?") == ""
    assert lab.judging.look_up("a(*) : int", "What is `a(*)`?") == "int"
    assert lab.judging.baselines("numbers", [(" five ", "五")]) == {"copy": ["five"]}
    assert lab.judging.baselines("summarize", [("One. Two.", "x"), ("", "y")]) == {
        "first sentence": ["One.", ""]}
    train = lab.tasks.items("translate")
    assert lab.judging.nearest("translate", train[:5]) == [
        min((item[1] for item in train if item[0] == known[0]), key=lambda text: text != known[1]).strip()
        for known in train[:5]]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(("flags", "says"), [
    (["--tasks", "classify,tranlate"], r"no task is called 'tranlate': choose from classify, translate"),
    (["--tasks", ""], "no task is called ''"),
    (["--tasks", "numbers,numbers"], "names a task twice"),
    (["--tasks", "classify,\ud800"], "no task is called"),
    (["--mix", "clasify=2"], "no task is called 'clasify'"),
    (["--mix", "classify=-1"], "classify needs a share of at least 0, as in classify=2, not '-1'"),
    (["--mix", "classify=nan"], "needs a share"),
    (["--mix", "classify=inf"], "needs a share"),
    (["--mix", "classify"], "needs a share of at least 0, as in classify=2, not ''"),
    (["--mix", "classify=1,classify=2"], "names classify twice"),
    (["--mix", "answer=2"], "--mix names answer, which this run does not learn"),
    (["--mix", "classify=0,translate=0,numbers=0"], "the mixing ratio leaves no task"),
    (["--steps", "0"], "at least 1"),
    (["--lr", "0"], "above 0 and at most 1"),
    (["--judged", "-1"], "at least 0"),
    (["--from", "/nowhere"], "no model there; give backbone, scratch, or a folder"),
    (["--from", "scratch", "--pretrain"], "leave one out"),
    (["--pretrain", "0"], "at least 1"),
    (["--resume", "/nowhere"], "no checkpoint there"),
    (["--record", "/nowhere/found.json"], "there is no folder"),
    (["--fault", "sum"], "invalid choice"),
    (["--task", "numbers"], "did you mean --tasks"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab06", ranks=2, args=flags, out=tmp_path / "run")


def test_pretraining_is_not_resumed_here(lab, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest").write_text("step000002")
    args = launch._check_flags(LAB, ["--pretrain", "5", "--resume", str(tmp_path)])
    with pytest.raises(env.UserError, match="give --from RUN/backbone in place of --pretrain"):
        lab.mixing.complete(args)


def test_a_resumed_run_needs_the_same_settings(lab, runs, monkeypatch):
    monkeypatch.setattr(lab.resuming.distributed, "get_world_size", lambda: 1)
    for flags, says in ((SMALL, "had ranks 2, this one has 1"), ([*SMALL, "--seed", "1"], "had seed 0"),
                        ([*SMALL[:2], *SMALL[4:]], "had mix")):
        args = lab.mixing.complete(launch._check_flags(LAB, [*flags, "--resume", str(runs[2].folder)]))
        with pytest.raises(env.UserError, match=says):
            lab.resuming.resume(None, args)


def test_a_folder_that_holds_no_model_of_the_lab(lab, tmp_path):
    with pytest.raises(env.UserError, match="holds no model: give a folder"):
        lab.mixing.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(env.UserError, match="holds no model that transformers can load"):
        lab.mixing.load(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(lab.pretrain.SHIPPED)
    tokenizer.save_pretrained(tmp_path)
    small = lab.pretrain.GPT2Config(vocab_size=50, n_embd=12, n_layer=1, n_head=1)
    lab.pretrain.GPT2LMHeadModel(small).save_pretrained(tmp_path)
    with pytest.raises(env.UserError, match="another kind of model"):
        lab.mixing.load(tmp_path)


@pytest.mark.parametrize("name", ["classify", "translate", "numbers", "summarize", "answer"])
@pytest.mark.parametrize("text", ["好" * 10_000, "a b " * 2_500, "😀🎉", "Привет, мир", "ཀ", "\x00",
                                  "\n\nx\n类别：\n"])
def test_any_text_gets_a_prompt_that_fits(lab, loaded, name, text):
    tokens, cut = lab.ask.prompt(loaded[1], name, text, "What is `x`?" if name == "answer" else "")
    assert 0 < len(tokens) <= lab.tasks.CONTEXT - lab.tasks.TASKS[name].longest
    assert (cut > 0) == (len(text) > 5_000)


def test_a_prompt_is_that_of_training(lab, loaded):
    item = ("x : int\n    A number.", "What is `x`?", "int")
    for name, made in (("answer", item), ("numbers", ("five", "五"))):
        tokens, _ = lab.ask.prompt(loaded[1], name, *made[:-1])
        assert tokens == lab.tasks.rows(loaded[1], name, [made])[0][0]


def test_the_model_answers_strange_texts(lab, loaded):
    for text in ("😀", "好" * 10_000, "Привет"):
        assert isinstance(lab.ask.ask(*loaded, "classify", text), str)


@pytest.mark.parametrize(("flags", "says"), [
    (["x", "klassify", "a"], "no task is called 'klassify'"),
    (["x", "classify", "a"], "x holds no model"),
    (["x", "classify", ""], "the text is empty"),
    (["x", "classify", " \n"], "the text is empty"),
    (["x", "classify", "ab\ud800"], r"half a surrogate, U\+D800, at character 3"),
    ([str(LAB / "tuned"), "translate", "a <pad> b"], "the text holds <pad>, a sign that the"),
    (["x", "classify", "a", "--question", "b"], "--question belongs to answer"),
    ([str(LAB / "backbone"), "answer", "a : int"], "the question is empty"),
    ([str(LAB / "backbone"), "answer", "a : int", "--question", "why? " * 300], "the question has"),
])
def test_ask_says_in_a_sentence_what_is_wrong(lab, flags, says):
    with pytest.raises(env.UserError, match=says):
        lab.ask.main(flags)


def test_ask_prints_the_answer(lab, capsys):
    lab.ask.main([str(LAB / "backbone"), "numbers", "twenty " * 300])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) >= 1 and "the model reads its beginning" in err
    with pytest.raises(SystemExit) as ended:
        lab.ask.main(["--help"])
    assert ended.value.code == 0 and "Ask a tuned model" in capsys.readouterr().out


def test_a_long_run_says_how_long_before_it_starts(lab):
    for flags, says in ((["--full"], "a checkpoint every 100 steps"),
                        (["--pretrain", "7"], "7 pre-training steps")):
        said = lab.train.announce(launch._check_flags(LAB, flags), 2)
        assert "minutes, by steps timed here" in said and says in said
    assert lab.train.announce(launch._check_flags(LAB, []), 2) is None
    args = lab.mixing.complete(launch._check_flags(LAB, ["--full", "--judged", "9"]))
    assert (args.steps, args.judged, args.every, len(args.tasks)) == (3000, 9, 100, 5)


def test_defaults_and_configuration(lab):
    args = lab.mixing.complete(launch._check_flags(LAB, []))
    assert (args.tasks, args.steps, args.judged, args.every, args.mix) == (
        ("classify", "translate", "numbers"), 160, 32, 0, {})
    made = lab.mixing.config(argparse.Namespace(config=LAB / "ds_config.json", lr=2e-4, bf16=True))
    assert made["optimizer"]["params"]["lr"] == 2e-4 and made["torch_autocast"]["dtype"] == "bfloat16"
    for ranks in (1, 2, 4):
        configs.check(configs.load(LAB / "ds_config.json"), ranks)
        configs.check(made, ranks)
    assert "--mix classify=2" in launch.lab_help("lab06")


def test_any_number_of_ranks_gets_a_batch(lab, capsys):
    args, config = launch._check_flags(LAB, []), configs.load(LAB / "ds_config.json")
    taken = [launch._nearest_batch(lab.train, args, config, ranks) for ranks in range(1, 9)]
    assert taken == [None, None, 24, None, 40, 48, 56, 64]  # None: the file's own, 32


def test_zero_3_and_a_missing_optimizer_are_refused(lab, tmp_path):
    own = json.loads((LAB / "ds_config.json").read_text())
    for changed, says in (({**own, "zero_optimization": {"stage": 3}}, "ZeRO stage 0, 1 or 2"),
                          ({key: own[key] for key in own if key != "optimizer"}, "names no optimizer")):
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(env.UserError, match=says):
            lab.mixing.config(argparse.Namespace(config=tmp_path / "config.json", lr=None, bf16=False))


def test_the_shipped_record_is_of_todays_code(lab):
    path = LAB / "recorded" / "full.json"
    if not path.exists():
        pytest.skip("no record of the long run yet")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["code"] == lab.code_hash.code_hash(*lab.train.CODE)
    assert found["part"] == "test" and set(found["verdicts"]) == set(lab.tasks.TASKS)
    for verdict in found["verdicts"].values():
        assert verdict["interval"][0] <= verdict["score"] <= verdict["interval"][1]
        assert verdict["baselines"] and len(verdict["samples"]) == 3


def test_items_to_judge_are_drawn_once(lab):
    some = lab.judging.chosen("numbers", "dev", 5)
    assert some == lab.judging.chosen("numbers", "dev", 5) and len(set(some)) == 5
    assert set(some) <= set(lab.tasks.items("numbers", "dev"))
