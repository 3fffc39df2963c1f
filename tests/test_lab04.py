"""Lab 4: both phases leave models that load, a stopped run goes on to the bit, bad input gets a sentence."""

import argparse
import importlib
import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
)

from labkit import env, launch
from labkit.records import read_run

LAB = env.ROOT / "labs" / "lab04_pretrain_finetune"
SMALL = ["--steps", "5", "--finetune-steps", "3", "--hidden", "32", "--layers", "1", "--context", "32",
         "--labels", "0.05"]
MODULES = ("choices", "encoders", "long_run", "reviews", "scores", "train")


@pytest.fixture(scope="module")
def lab():
    """The lab's modules."""
    others = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(LAB))
    yield argparse.Namespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(LAB))
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab04") / "run"
    launch.run("lab04", ranks=2, args=[*SMALL, "--zero", "2", "--every", "2"], out=folder)
    return read_run(folder)


def weights(run, name):
    return load_file(run.folder / name / "model.safetensors")


def tiny_bert(vocab_size):
    return BertForMaskedLM(BertConfig(vocab_size=vocab_size, hidden_size=32, num_hidden_layers=1,
                                      num_attention_heads=2, intermediate_size=32))


def test_losses_states_and_scores_are_recorded(run):
    assert run.finished and len(run.losses) == 5 + 3
    for rank in (0, 1):
        for phase in ("pretraining", "fine-tuning"):
            states = run.metric(f"{phase} states", rank)
            assert states["stage"] == 2
            assert run.info.device != "cpu" or states["measured"] == states["predicted"]
    assert run.metric("masked after", 0) == run.metric("masked after", 1)
    shown = launch.report(run)
    assert "masked loss on held-out reviews" in shown and "accuracy naive Bayes" in shown
    assert "bytes of states on a rank, fine-tuning" in shown and "/pretrained" in shown


def test_its_folders_load_without_a_network(run):
    texts = ["房间很干净", "质量太差 bad"]
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "pretrained")
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    masked = AutoModelForMaskedLM.from_pretrained(run.folder / "pretrained")
    assert masked(**batch).logits.shape == (*batch["input_ids"].shape, len(tokenizer))
    classifier = AutoModelForSequenceClassification.from_pretrained(run.folder / "classifier")
    assert classifier(**batch).logits.shape == (2, 2) and classifier.config.id2label == {0: "neg", 1: "pos"}
    first, second = weights(run, "pretrained"), weights(run, "classifier")
    same = first.keys() & second.keys()
    assert "model.embeddings.tok_embeddings.weight" in same
    assert all(torch.allclose(first[key], second[key], atol=0.05) for key in same)  # 3 small steps apart
    assert not list(run.folder.glob("*.unfinished"))


def test_a_resumed_run_equals_the_uninterrupted_one(run, tmp_path):
    """The checkpoint is of step 4 of 5: the last step and all that follows is done again."""
    launch.run("lab04", ranks=2, out=tmp_path / "run",
               args=[*SMALL, "--zero", "2", "--every", "2", "--resume", str(run.folder)])
    resumed = read_run(tmp_path / "run")
    assert resumed.losses == run.losses[4:]
    one, two = weights(run, "classifier"), weights(resumed, "classifier")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_one_rank_in_micro_batches_has_the_same_losses(run, tmp_path):
    """The same sums in another order: 1000 roundings of 6e-8 by chance make 2e-6 a step, 8 steps 2e-5."""
    config = json.loads((LAB / "ds_config.json").read_text()) | {"train_micro_batch_size_per_gpu": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    launch.run("lab04", ranks=1, args=SMALL, config=tmp_path / "config.json", out=tmp_path / "run")
    alone = read_run(tmp_path / "run")
    assert alone.losses == pytest.approx(run.losses, rel=2e-5)
    states = alone.metric("pretraining states")
    assert states["stage"] == 1 and (alone.info.device != "cpu" or states["measured"] == states["predicted"])


def test_a_model_from_a_folder_and_bf16(lab, tmp_path):
    """The same path as for a name on the hub, with a model of another kind."""
    tokenizer = lab.reviews.make_tokenizer(["房间很干净质量太差"] * 5)
    tiny_bert(len(tokenizer)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    launch.run("lab04", ranks=1, args=[*SMALL, "--steps", "2", "--model", str(tmp_path / "bert"), "--bf16"],
               out=tmp_path / "run")
    kept = json.loads((tmp_path / "run" / "classifier" / "config.json").read_text())
    assert kept["architectures"] == ["BertForSequenceClassification"]
    assert read_run(tmp_path / "run").finished


@pytest.mark.parametrize(("flags", "says"), [
    (["--hidden", "100"], "a multiple of 32"),
    (["--labels", "0"], "above 0 and at most 1"),
    (["--labels", "many"], "above 0 and at most 1"),
    (["--zero", "3"], "invalid choice"),
    (["--steps", "1"], "at least 2"),
    (["--fine-steps", "2"], "did you mean --finetune-steps"),
    (["--scratch", "--model", "x"], "leave one out"),
    (["--resume", "/nowhere"], "no checkpoint there"),
    (["--model", "a/b/c/d"], "no name of the hub"),
])
def test_bad_flags_get_a_sentence_before_anything_starts(flags, says, no_process_left, tmp_path):
    with pytest.raises(env.UserError, match=says):
        launch.run("lab04", ranks=2, args=flags, out=tmp_path / "run")


def test_without_a_network_a_name_gets_a_sentence(lab, monkeypatch):
    monkeypatch.setattr(lab.encoders.constants, "ENDPOINT", f"http://127.0.0.1:{env.free_port()}")
    with pytest.raises(env.UserError, match=r"cannot be reached.*give the path of a folder"):
        lab.encoders.by_name("some-owner/no-such-model")


def test_a_folder_that_holds_no_masked_model(lab, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(env.UserError, match="no masked language model"):
        lab.encoders.by_name(str(tmp_path))


def test_a_resumed_run_needs_the_same_settings(lab, run, monkeypatch):
    monkeypatch.setattr(lab.long_run.distributed, "get_world_size", lambda: 1)
    args = launch._check_flags(LAB, [*SMALL, "--zero", "2", "--resume", str(run.folder)])
    with pytest.raises(env.UserError, match="had ranks 2, this one has 1"):
        lab.long_run.resume(None, lab.choices.complete(args))


def test_too_few_labels(lab):
    args = lab.choices.complete(launch._check_flags(LAB, ["--labels", "0.001"]))
    with pytest.raises(env.UserError, match="fewer than a batch of 32"):
        lab.choices.labelled(lab.reviews.labelled()[0], args, {"train_batch_size": 32})


def test_a_long_run_says_how_long_before_it_starts(lab, monkeypatch, capsys, tmp_path):
    class Started(Exception):
        pass

    def start(*_):
        raise Started

    monkeypatch.setattr(launch, "_Watch", start)
    flags = ["--full", "--hidden", "32", "--layers", "1"]
    with pytest.raises(Started):
        launch.run("lab04", ranks=2, args=flags, out=tmp_path / "run")
    assert "minutes, by steps timed here" in capsys.readouterr().out
    args = lab.choices.complete(launch._check_flags(LAB, flags))
    assert (args.steps, args.hidden, args.every) == (3000, 32, 100)
    assert lab.train.announce(launch._check_flags(LAB, []), 2) is None


def test_a_rank_without_targets_adds_nothing(lab):
    tokenizer = lab.reviews.make_tokenizer(["房间很干净"] * 5)
    models = [AutoModelForMaskedLM.from_config(lab.reviews.encoder(len(tokenizer), 32, 1)),
              tiny_bert(len(tokenizer))]
    for model in models:
        tokens = torch.tensor([[2, 5, 6, 3]])
        loss = lab.train.weighted(model(input_ids=tokens, labels=torch.full_like(tokens, -100)).loss, 0, 1.5)
        loss.backward()
        assert loss == 0 and all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert lab.train.weighted(torch.tensor(2.0), 3, 2) == 3


def test_a_folder_is_whole_or_as_before(lab, tmp_path):
    class Broken:
        def save_pretrained(self, folder):
            raise OSError("disk full")

    tokenizer = lab.reviews.make_tokenizer(["房间"] * 5)
    model = AutoModelForMaskedLM.from_config(lab.reviews.encoder(len(tokenizer), 32, 1))
    for _ in range(2):  # the second replaces the first
        lab.encoders.keep(model, tokenizer, tmp_path / "kept")
    files = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    with pytest.raises(OSError, match="disk full"):
        lab.encoders.keep(model, Broken(), tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == files


def test_naive_bayes_and_interval_equal_the_libraries(lab):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    train, test = lab.reviews.labelled()
    train, test = train[::7], test[::3]
    library = make_pipeline(CountVectorizer(analyzer="char", ngram_range=(1, 2)), MultinomialNB())
    library.fit(*zip(*train, strict=True))
    texts, labels = zip(*test, strict=True)
    right = int((library.predict(texts) == labels).sum())
    ours = lab.scores.naive_bayes(train, test)
    assert ours["accuracy"] * len(test) == right
    interval = binomtest(right, len(test)).proportion_ci(method="wilson")
    assert (ours["low"], ours["high"]) == pytest.approx((interval.low, interval.high), abs=1e-4)
