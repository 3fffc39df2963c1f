"""Lab 6's recorded comparisons: of today's code, whole, and repeated in small by the same commands."""

import json
import sys

import pytest
import torch

from labkit import corpora
from labkit.env import UserError
from labkit.launch import find_lab

LAB = find_lab("lab06")
sys.path.insert(0, str(LAB))
import classify  # noqa: E402
import tasks  # noqa: E402
import transfer  # noqa: E402
import translate  # noqa: E402
from code_hash import code_hash  # noqa: E402

RECORDED = LAB / "recorded"


def read(name: str) -> dict:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "code"), [("transfer", transfer.CODE), ("classify", classify.CODE),
                                             ("translate", translate.CODE)])
def test_a_record_is_of_todays_code(name, code):
    assert read(name)["settings"]["code"] == code_hash(*code), "the record is stale: run its command again"
    assert f"/{name}.py " in read(name)["command"] and " --full" in read(name)["command"]


def test_the_transfer_record_is_whole_and_its_rates_were_chosen_on_dev():
    record = read("transfer")
    points = {(run["task"], run["way"], run["seed"]): run for run in record["points"]}
    assert points.keys() == {(task, way, seed) for task in tasks.TASKS for way in transfer.WAYS
                             for seed in record["settings"]["seeds"]}
    for (task, way, _), run in points.items():
        tried = {other["rate"]: other["dev_loss"] for other in record["choice"]
                 if (other["task"], other["way"]) == (task, way)}
        assert set(tried) == set(transfer.RATES[way])
        assert run["rate"] == min(tried, key=tried.get)


def test_the_translators_record_is_whole_and_its_rates_were_chosen_on_dev():
    record = read("translate")
    runs = {(run["kind"], run["model"], run["seed"]): run for run in record["runs"]}
    assert runs.keys() == {(*of, seed) for of in translate.RUNS for seed in record["settings"]["seeds"]}
    for (kind, model, _), run in runs.items():
        tried = {rate: record["choice"][f"{kind} {model} {rate:g}"] for rate in translate.RATES}
        assert run["rate"] == min(tried, key=tried.get)


def test_the_classify_record_is_whole_and_its_accuracies_are_its_scores():
    record, (_, truth) = read("classify"), ([], torch.tensor(
        [classify.CLASSES.index(tuple(label)) for _, *label in tasks.items("classify", "test")]))
    assert [run["seed"] for run in record["runs"]] == record["settings"]["seeds"]
    assert {run["rate"] for run in record["runs"]} == {float(max(record["choice"], key=record["choice"].get))}
    for run in record["runs"]:
        right = (torch.tensor(run["test"]).argmax(1) == truth).float().mean().item()
        assert right == pytest.approx(run["test accuracy"], abs=0.002)  # scores are rounded to hundredths


# ---------------------------------------------------------------- the same commands, in small


@pytest.fixture
def few(monkeypatch):
    """Of each task, sixty items to learn and eight to be judged by."""
    whole = tasks.items

    def some(name, part="train"):
        return whole(name, part)[: 60 if part == "train" else 8]

    monkeypatch.setattr(tasks, "items", some)


def test_transfer_learns_and_is_judged(few):
    found = transfer.point("translate", "backbone", 0, 1e-3, 2, 8, False)
    longer = transfer.point("translate", "backbone", 0, 1e-3, 12, 8, False)
    assert longer["dev_loss"] < found["dev_loss"]
    assert 0 <= found["score"] <= 100 and found["tested"] == 8


def test_classify_writes_each_run_and_goes_on(few, tmp_path, capsys):
    out = tmp_path / "short.json"
    classify.main(["--out", str(out)])
    first = json.loads(out.read_text())
    assert [run["seed"] for run in first["runs"]] == [0]
    first["runs"].pop()
    out.write_text(json.dumps(first))
    classify.main(["--out", str(out)])
    assert len(json.loads(out.read_text())["runs"]) == 1
    with pytest.raises(UserError, match="with another bf16"):
        classify.main(["--out", str(out), "--bf16"])
    out.write_text("{}")
    with pytest.raises(UserError, match="is not a file of this script"):
        classify.main(["--out", str(out)])
    with pytest.raises(UserError, match="cannot write"):
        classify.main(["--out", str(tmp_path / "no" / "where.json")])


def test_translate_writes_each_run_and_goes_on(tmp_path, monkeypatch):
    made = corpora.number_words(60, (1, 9), 3)
    monkeypatch.setattr(translate, "pairs", lambda kind: (made[:40], made[40:50], made[50:]))
    out = tmp_path / "short.json"
    translate.main(["--out", str(out)])
    first = json.loads(out.read_text())
    assert [(run["kind"], run["model"]) for run in first["runs"]] == translate.RUNS
    assert first["opponents"]["apart"].keys() == {"memory", "copy"}
    last = first["runs"].pop()
    out.write_text(json.dumps(first))
    translate.main(["--out", str(out)])
    assert json.loads(out.read_text())["runs"][-1]["exact by digits"] == last["exact by digits"]


def test_a_translation_memory_answers_with_the_most_similar_source():
    train = [("Turn on the light", "打开灯"), ("Failed to connect", "连接失败")]
    assert translate.memory(train, ["Turn off the light", "Connect"]) == ["打开灯", "连接失败"]


def test_padding_changes_no_score():
    model = classify.new(0).eval()
    rows = [[5, 6, 7], [8, 9, 10, 11, 12, 13]]
    alone = torch.cat([model(torch.tensor([row])) for row in rows])
    torch.testing.assert_close(model(classify.padded(rows)), alone, rtol=1e-4, atol=1e-5)
    assert (model(torch.tensor([[5, 6, 7]])) - model(torch.tensor([[5, 6, 8]]))).abs().max() > 1e-4


# ---------------------------------------------------------------- the tasks as text


def test_rows_cut_the_source_and_keep_the_question():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(LAB / "backbone")
    item = ("word " * 10_000, "What is `x`?", "a number", "here")
    ((prompt, answer),) = tasks.rows(tokenizer, "answer", [item])
    assert len(prompt) + len(answer) == tasks.CONTEXT
    assert tokenizer.decode(prompt).endswith("\nWhat is `x`?\nAnswer:")
    assert tokenizer.decode(answer) == " a number<end>"
    for text in ("", "🦀" * 300, "שלום עולם"):
        ((prompt, answer),) = tasks.rows(tokenizer, "translate", [(text, "好", "")])
        assert len(prompt) + len(answer) <= tasks.CONTEXT and tokenizer.decode(prompt).endswith("\n中文：")
    assert tasks.rows(tokenizer, "translate", []) == []
    with pytest.raises(UserError, match="no task is called 'sing': choose from classify"):
        tasks.items("sing")


def test_only_answers_are_targets():
    batch = tasks.pad([([7, 8, 9], [5, 0]), ([7], [6, 6, 0])])
    assert batch["labels"].tolist() == [[-100, -100, -100, 5, 0], [-100, 6, 6, 0, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_batches_hold_each_row_once_and_no_more_tokens_than_they_may():
    lengths = [1 + (i * 37) % 90 for i in range(200)]
    made = tasks.batches(lengths, 400, seed=1)
    assert sorted(i for batch in made for i in batch) == list(range(200))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 400 for batch in made)
    assert made == tasks.batches(lengths, 400, seed=1) != tasks.batches(lengths, 400, seed=2)


def test_likelihoods_equal_those_of_each_choice_alone():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(LAB / "backbone", dtype=torch.float32).eval()
    prompts, choices = [[9, 10, 11], [12]], [[20, 21, 0], [22, 0]]
    found = tasks.likelihoods(model, prompts, choices)
    for i, prompt in enumerate(prompts):
        for j, choice in enumerate(choices):
            logits = model(torch.tensor([[*prompt, *choice]])).logits[0].log_softmax(-1)
            alone = sum(logits[len(prompt) - 1 + k, token] for k, token in enumerate(choice))
            assert found[i, j].item() == pytest.approx(alone.item(), abs=1e-3)
