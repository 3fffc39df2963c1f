"""Lab 4's transfer sweep: goes on after a kill, says its time first, reads no test review."""

import importlib
import json
import random
import re
import subprocess
import sys

import pytest

from labkit import env

LAB = env.ROOT / "labs" / "lab04_pretrain_finetune"


@pytest.fixture(scope="module")
def sweep():
    sys.path.insert(0, str(LAB))
    yield importlib.import_module("transfer_sweep")
    sys.path.remove(str(LAB))


@pytest.fixture(scope="module")
def real(sweep):
    return sweep.reviews.labelled()


@pytest.fixture
def small(sweep, real, monkeypatch):
    """A sweep over few reviews."""
    train, test = real
    monkeypatch.setattr(sweep.reviews, "labelled", lambda: (train[::80], test[::45]))
    monkeypatch.setattr(sweep.reviews, "unlabelled", lambda train: [text for text, _ in train])
    return sweep.Plan(mlm_steps=2, mlm_epochs=2, texts=None, shares=(0.2, 1.0), seeds=(0, 1), steps=(2, 2),
                      choose_steps=1, tested=None)


def numbers(path):
    """The file without times."""
    result = json.loads(path.read_text(encoding="utf-8"))
    for part in [*result["points"], result["pretraining"]]:
        assert part.pop("seconds") >= 0
    return result


def test_killed_again_and_again_it_ends_as_one_that_was_not(sweep, small, real, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    sweep.Sweep(small, whole, "command").run()
    save, write = sweep.torch.save, sweep.sweep_file.write

    def die_saving(*args):
        save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.torch, "save", die_saving)  # in the middle of pre-training
    with pytest.raises(KeyboardInterrupt):
        sweep.Sweep(small, broken, "command").run()
    assert json.loads(broken.read_text(encoding="utf-8"))["points"] == []
    monkeypatch.setattr(sweep.torch, "save", save)
    kills = 0
    while True:
        left = 14  # writes until the next kill

        def die_writing(path, result):
            nonlocal left
            write(path, result)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(sweep.sweep_file, "write", die_writing)
        try:
            sweep.Sweep(small, broken, "command").run()
            break
        except KeyboardInterrupt:
            kills += 1
            assert kills < 9
    assert kills >= 2 and numbers(broken) == numbers(whole)
    points = numbers(whole)["points"]
    assert {(p["way"], p["share"], p["seed"]) for p in points} >= {
        (way, share, seed) for way in sweep.RATES for share in (0.2, 1.0) for seed in (0, 1)}
    for p in points:
        assert sweep.unpack(p["correct"], len(real[1][::45])).mean() == pytest.approx(p["accuracy"], abs=1e-6)


def test_another_start_draws_other_numbers(sweep, small, tmp_path):
    corpus = sweep.Reviews(small)
    first, second = (corpus.chosen(seed, 0.2) for seed in (0, 1))
    assert len(first) == len(set(first)) == round(0.2 * len(corpus.train)) and first != second
    assert set(first) < set(corpus.chosen(0, 1.0))


def test_it_says_how_long_it_takes_before_it_starts(sweep, small, tmp_path, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "pretrain", stop)
    with pytest.raises(KeyboardInterrupt):
        sweep.Sweep(small, tmp_path / "new.json", "command").run()
    said = capsys.readouterr().out
    assert re.match("34 points to do, 0 done before: 4 steps of pre-training, 30 of fine-tuning, "
                    r"about \d+ s", said)


def test_bad_input_gets_a_sentence(sweep, tmp_path):
    other = tmp_path / "other.json"
    for text in ("", "[]", '{"settings": {}, "points": [1]}', "\x00"):
        other.write_text(text, encoding="utf-8")
        with pytest.raises(env.UserError, match="not a file of this sweep"):
            sweep.main(["--out", str(other)])
    with pytest.raises(env.UserError, match="not a file of this sweep"):
        sweep.main(["--out", str(tmp_path)])
    other.write_text('{"settings": {"plan": {}}, "points": []}', encoding="utf-8")
    with pytest.raises(env.UserError, match=r"another plan \({} there"):
        sweep.main(["--full", "--out", str(other)])
    with pytest.raises(SystemExit):
        sweep.main(["--seeds", "4"])


def test_a_place_that_cannot_be_written_ends_it_at_once():
    ended = subprocess.run([sys.executable, str(LAB / "transfer_sweep.py"), "--out", "/dev/null/x.json"],
                           capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.strip().startswith("cannot") and len(ended.stderr.strip().splitlines()) == 1


def grams(text):
    text = re.sub(r"\W", "", text)
    return {text[i:i + 3] for i in range(len(text) - 2)}


def test_no_test_review_is_in_what_is_trained_on(sweep, real):
    train, test = real
    texts = sweep.reviews.unlabelled(train)
    assert not {text for text, _ in test} & set(texts)
    sets = [grams(text) for text in texts]
    for text, _ in random.Random(0).sample(test, 40):
        one = grams(text)
        near = [other for other in sets if 2 * len(one & other) >= len(one | other) > 0]
        assert not near, text
