"""Part 6.1 d and the lab's tagger: a field against all its paths, spans of words, and the record."""

import itertools
import json
import sys
from functools import cache

import numpy as np
import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from labkit.env import UserError
from labkit.launch import find_lab

LAB = find_lab("lab06")
sys.path.insert(0, str(LAB))
import segment  # noqa: E402
from code_hash import code_hash  # noqa: E402

COMMON = settings(max_examples=40, deadline=None, derandomize=True)
RECORD = LAB / "recorded" / "segment.json"
TINY = tuple((("北京", "ns"), ("的", "u"), ("天气" * (i % 3 + 1), "n"), ("很", "d"), ("好", "a"))
             for i in range(40))
NAMES = ["lw6-tags", "lw6-possible-function", "lw6-f1", "lw6-forward", "lw6-viterbi", "lw6-brute",
         "lw6-marginals", "lw6-formula"]


@cache
def chapter() -> dict:
    cells = sources("06")
    imports = "import itertools\nimport numpy as np\nimport torch\n"
    return run({**cells, "imports": imports}, ["imports", *NAMES])


def lattice(seed: int, time: int, tags: int) -> list[torch.Tensor]:
    """(scores, start, step, end) in float64."""
    chance = torch.Generator().manual_seed(seed)
    shapes = [(time, tags), (tags,), (tags, tags), (tags,)]
    return [3 * torch.randn(shape, generator=chance, dtype=torch.float64) for shape in shapes]


def with_ends(scores, start, end):
    """The field's scores for the first and the last tag, added to those of their characters."""
    scores = scores.clone()
    scores[0] += start
    scores[-1] += end
    return scores


WORD = st.text("好的天", min_size=1, max_size=5)
LATTICES = given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 4))


@COMMON
@LATTICES
def test_the_chapters_loss_and_best_path_are_those_of_all_paths(seed, time, tags):
    """Summed in float64 over at most 4,096 paths whose scores are below 100: 1e-9 is far above rounding."""
    c, (scores, _, step, _) = chapter(), lattice(seed, time, tags)
    paths = list(itertools.product(range(tags), repeat=time))
    totals = torch.stack([sum(scores[i, a] for i, a in enumerate(path))
                          + sum(step[a, b] for a, b in itertools.pairwise(path)) for path in paths])
    torch.testing.assert_close(c["log_z"](scores, step), totals.logsumexp(0), rtol=0, atol=1e-9)
    for path, total in list(zip(paths, totals, strict=True))[::17]:
        wanted = totals.logsumexp(0) - total
        torch.testing.assert_close(c["crf_loss"](path, scores, step), wanted, rtol=0, atol=1e-9)
    assert c["best_tags"](scores, step) == list(paths[int(totals.argmax())])
    assert [p for p, _ in zip(c["brute_force"](scores, step)[0], paths, strict=True)] == paths


@COMMON
@LATTICES
def test_the_gradient_is_expected_minus_observed_counts(seed, time, tags):
    """Autograd through the forward algorithm = autograd through the sum over all paths = the counts."""
    c, (scores, _, step, _) = chapter(), lattice(seed, time, tags)
    path = [(7 * seed + 3 * i) % tags for i in range(time)]
    paths, chances = c["brute_force"](scores, step)
    expected, pairs = torch.zeros_like(scores), torch.zeros_like(step)
    for other, chance in [*zip(paths, chances, strict=True), (path, -1.0)]:
        for i, tag in enumerate(other):
            expected[i, tag] += chance
        for a, b in itertools.pairwise(other):
            pairs[a, b] += chance
    for loss in (c["crf_loss"], lambda *a: -c["brute_force"](*a[1:])[1][paths.index(tuple(a[0]))].log()):
        leaves = scores.clone().requires_grad_(), step.clone().requires_grad_()
        found = torch.autograd.grad(loss(path, *leaves), leaves, allow_unused=True)
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(pairs if found[1] is None else found[1], pairs, rtol=0, atol=1e-9)


@COMMON
@given(st.integers(0, 999), st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 4))
def test_the_labs_batches_are_the_chapters_sentences(seed, lengths, tags):
    """Padding changes nothing: losses, marginals and best paths of a batch, sentence by sentence."""
    c, longest = chapter(), max(lengths)
    scores, start, step, end = lattice(seed, longest * len(lengths), tags)
    scores = scores.reshape(len(lengths), longest, tags)
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    gold = torch.arange(longest * len(lengths)).reshape(real.shape) * (seed + 1) % tags * real
    field = start, step, end
    sums = torch.logsumexp(segment.forward_sums(scores, real, *field)[-1] + end, 1)
    losses = sums - segment.path_score(scores, real, gold, *field)
    marginals, best = segment.log_marginals(scores, real, *field), segment.best_paths(scores, real, *field)
    for row, length in enumerate(lengths):
        one, path = with_ends(scores[row, :length], start, end), gold[row, :length].tolist()
        torch.testing.assert_close(losses[row], c["crf_loss"](path, one, step), rtol=0, atol=1e-9)
        if length > 1:
            chances, _ = c["marginal_chances"](one, step)
            torch.testing.assert_close(marginals[row, :length].exp(), chances, rtol=0, atol=1e-9)
        assert best[row] == c["best_tags"](one, step)


@COMMON
@given(st.integers(0, 999), st.integers(2, 5), st.integers(2, 3), st.booleans())
def test_the_two_losses_agree_for_all_paths_just_where_the_table_is_a_sum(seed, time, tags, additive):
    c, (scores, start, step, end) = chapter(), lattice(seed, time, tags)
    table = start[:, None] + end if additive else step
    apart = [float(c["token_sum"](path, scores, table) - c["crf_loss"](path, scores, table))
             for path in itertools.product(range(tags), repeat=time)]
    assert (max(map(abs, apart)) < 1e-9) == additive


@COMMON
@given(st.lists(st.lists(WORD, max_size=6), max_size=4), st.integers(0, 99))
def test_span_scores_are_scikit_learns_over_all_possible_spans(sentences, seed):
    c, chance = chapter(), np.random.default_rng(seed)
    true, found, flat = [], [], ([], [])
    for sentence in sentences:
        text = "".join(sentence)
        cuts = sorted({0, len(text), *chance.integers(0, len(text) + 1, 3).tolist()})
        true.append(c["word_spans"](sentence))
        found.append({pair for pair in itertools.pairwise(cuts) if pair[0] < pair[1]})
        for span in itertools.combinations(range(len(text) + 1), 2):
            flat[0].append(span in true[-1])
            flat[1].append(span in found[-1])
    wanted = (0, 0, 0)
    if flat[0]:
        wanted = precision_recall_fscore_support(*flat, average="binary", zero_division=0)[:3]
    assert c["span_scores"](true, found) == pytest.approx(wanted)


WORDS = st.lists(st.tuples(WORD, st.sampled_from(["n", "v", "Ng", "nr"])), min_size=1, max_size=6)


@COMMON
@given(WORDS, st.booleans())
def test_tags_of_words_are_possible_and_give_the_words_back(sentence, parts):
    tags = segment.tags_of(sentence, parts)
    words = [word for word, _ in sentence]
    assert {span[:2] for span in segment.spans(tags)} == chapter()["word_spans"](words)
    assert segment.impossible(tags) == 0
    assert "".join(tag[0] for tag in tags) == chapter()["tags_from_words"](words)


@COMMON
@given(st.text("BMES", max_size=9))
def test_any_tags_give_spans_that_tile_the_text(tags):
    found = sorted(segment.spans(list(tags)))
    assert [a for a, _, _ in found] == [0, *(b for _, b, _ in found)][:len(found)]
    assert (found[-1][1] if found else 0) == len(tags)
    if len(tags) <= 6 and not segment.impossible(tags) and tags:
        words = ["好" * (b - a) for a, b, _ in found]
        assert chapter()["tags_from_words"](words) == tags


def test_the_legal_path_is_the_best_of_the_possible_ones():
    text_tags = segment.all_tags()
    torch.manual_seed(0)
    model = segment.Tagger(9, 4)
    characters = torch.randint(1, 9, (6, 5))
    found = segment.decode("legal", model, characters, text_tags)
    scores = model(characters).detach()
    for row, path in enumerate(found):
        possible = [p for p in itertools.product(range(4), repeat=5)
                    if not segment.impossible([text_tags[i] for i in p])]
        assert len(possible) == 2 ** 4
        totals = [sum(float(scores[row, i, t]) for i, t in enumerate(p)) for p in possible]
        assert tuple(path) == possible[int(np.argmax(totals))]


def test_longest_match_takes_the_longest_known_word_from_the_left():
    known = {"研究", "研究生", "生命", "起源"}
    assert "".join(segment.longest_match("研究生命起源", known, 3)) == "BMESBE"
    assert segment.longest_match("", {"好"}, 1) == []


def test_unknown_words_and_impossible_borders_are_counted():
    sentence = (("北京", "ns"), ("好", "a"), ("天气", "n"))
    rows = segment.counts([sentence], [list("BEBBE")], {"北京", "好"})
    assert rows.tolist() == [[3, 3, 3, 1, 1, 1, 1]]
    assert segment.impossible(list("MB")) == 3  # begins with M, B after M, ends with B
    assert segment.impossible([]) == 0


@pytest.fixture
def tiny(monkeypatch):
    """A corpus of forty sentences, all in one paragraph's place."""
    unknown = tuple((*sentence, ("新词", "n")) for sentence in TINY[30:])
    tiny_split = segment.splits.Split(TINY[:30], unknown[:5], unknown[5:])
    monkeypatch.setattr(segment.splits, "split", lambda _: tiny_split)
    monkeypatch.setattr(segment.corpora, "paragraph_of", lambda: dict.fromkeys(unknown, "x"))
    monkeypatch.setattr(segment.splits, "place", lambda _: 0.01)


@pytest.mark.parametrize("parts", [False, True])
def test_the_smoke_setting_of_the_recorded_command_runs_and_goes_on(tiny, tmp_path, parts, capsys):
    flags = ["--out", str(tmp_path / "short.json"), *["--parts"] * parts]
    segment.main(flags)
    first = json.loads((tmp_path / "short.json").read_text())
    ways = segment.WAYS[:2] if parts else segment.WAYS
    assert [run["way"] for run in first["runs"]] == list(ways)
    for run_ in first["runs"]:
        assert {"crf nats", "marginals nats", *segment.DECODED[run_["way"]]} <= run_.keys()
        if run_["way"] == "softmax":  # no table: the two losses are one
            assert run_["crf nats"] == pytest.approx(run_["marginals nats"], abs=2e-5)
            assert run_["legal"]["impossible borders"] == 0
    segment.main(flags)
    assert json.loads((tmp_path / "short.json").read_text()) == first
    with pytest.raises(UserError, match="another parts"):
        segment.main(["--out", str(tmp_path / "short.json"), *["--parts"] * (not parts)])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="not a file of this script"):
        segment.main(["--out", str(tmp_path / "other.json")])


def test_the_record_is_whole_and_of_todays_code():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record["settings"]["code"] == code_hash(*segment.CODE), "the code has changed: record again"
    assert record["settings"]["steps"] is None
    seeds = {run["seed"] for run in record["runs"]}
    assert len(seeds) >= 3
    runs = {(run["way"], run["seed"]) for run in record["runs"]}
    assert runs == set(itertools.product(segment.WAYS, seeds))
    assert record["command"].startswith("python labs/lab06_three_tasks/segment.py --out labs/")
    assert "--full" in record["command"]
    for way in segment.WAYS:
        assert {f"{way} {rate:g}" for rate in segment.RATES} <= record["choice"].keys()


def test_the_record_knows_its_own_figures():
    """Groups add up to the F1 beside them; without a table both losses are one, with one they are not."""
    for run_ in json.loads(RECORD.read_text(encoding="utf-8"))["runs"]:
        for how in segment.DECODED[run_["way"]]:
            right, found, true = np.array(run_[how]["groups"]).sum(0)
            assert run_[how]["f1"] == pytest.approx(2 * right / (found + true), abs=1e-5)
        same = run_["crf nats"] == pytest.approx(run_["marginals nats"], abs=1e-4)
        assert same == (run_["way"] == "softmax")


def test_what_the_prose_says_of_the_record_holds_for_every_seed():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    lucky, match = (record["opponents"][name] for name in ("most frequent tag", "longest match"))
    assert lucky["f1"] < 0.7
    assert match["recall of unknown words"] < 0.1
    runs = {(run["way"], run["seed"]): run for run in record["runs"]}
    for seed in {seed for _, seed in runs}:
        soft, crf, own = (runs[way, seed] for way in segment.WAYS)
        assert match["f1"] < soft["argmax"]["f1"] < soft["legal"]["f1"]
        assert soft["argmax"]["f1"] < crf["viterbi"]["f1"] < own["viterbi"]["f1"]
        assert soft["argmax"]["recall of unknown words"] > 0.5
        rising = (soft["legal"], crf["viterbi"], own["viterbi"], crf["marginals"], own["marginals"],
                  soft["argmax"])
        borders = [tagger["impossible borders"] for tagger in rising]
        assert borders == sorted(borders)
        assert borders[2] > 5 * borders[1]
        assert crf["marginals nats"] > 1.5 * crf["crf nats"]
        assert record["choice"][f"crf {crf['rate']:g}"] == max(
            f1 for name, f1 in record["choice"].items() if name.startswith("crf "))
        assert soft["rate"] == crf["rate"] == own["rate"] == max(segment.RATES)
