"""Chapter 6's metrics, written by hand, equal sacrebleu, nltk and rouge-score; its tests keep their level."""

import ast
import math
import random
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import sacrebleu
from cells import run, sources
from nltk.translate.bleu_score import corpus_bleu as nltk_bleu
from nltk.translate.nist_score import corpus_nist
from rouge_score.rouge_scorer import RougeScorer
from scipy import stats

BEFORE, CELLS = "setup-6-2-c", [f"{name}-6-2-c" for name in (
    "ngrams", "bleu", "chrf", "bootstrap", "randomize", "rouge", "nist", "holm", "pass")]
WORDS = [*"请关闭客厅的灯设备", "door", "open", "the", "the", "light", "30", "{name}", ",", "."]
DEGENERATE = [
    ("", ""), ("", "a b c d e"), ("a b c d e", ""), ("a a a a a a", "a"), ("a", "a a a a a a"),
    ("a b", "a b"), ("a", "b"), ("a b c", "a b c"), ("a b c d", "a b c d"), ("a b c d e", "f g h i j"),
    ("a a b b a a", "a b a b a b"), ("a b c d e f g", "g f e d c b a")]


@cache
def chapter() -> dict:
    """The functions of the part. What its cells show of the corpus is left out: it needs the systems."""
    cells = sources("06")
    imports = "\n".join(line for line in cells[BEFORE].splitlines() if line.startswith(("import", "from")))
    made = {BEFORE: imports} | {name: functions(cells[name]) for name in CELLS}
    return run(made, [BEFORE, *CELLS])


def functions(source: str) -> str:
    """A cell without the lines that run: only its imports and functions, as readers see them."""
    wanted = ast.FunctionDef | ast.Import | ast.ImportFrom
    kept = [node for node in ast.parse(source).body if isinstance(node, wanted)]
    return "\n\n".join(ast.get_source_segment(source, node) for node in kept)


@cache
def random_pairs(count: int = 1000) -> list[tuple[str, str]]:
    """(hypothesis, reference), 0 to 14 tokens; many share much, some nothing."""
    chance, pairs = random.Random(0), []
    for _ in range(count):
        reference = chance.choices(WORDS, k=chance.randint(0, 14))
        keep = chance.choice([0.0, 0.5, 0.9, 1.0])
        hypothesis = [word if chance.random() < keep else chance.choice(WORDS) for word in reference]
        if chance.random() < 0.4:
            more = chance.choices(WORDS, k=chance.randint(0, 4))
            hypothesis = hypothesis[:chance.randint(0, len(hypothesis))] + more
        pairs.append((" ".join(hypothesis), " ".join(reference)))
    return pairs


def corpora(count: int = 60) -> list[list[tuple[str, str]]]:
    """Corpora of 1 to 20 of the pairs."""
    chance = random.Random(1)
    return [chance.sample(random_pairs(), chance.randint(1, 20)) for _ in range(count)]


def their_bleu(pairs: list, tokenize: str = "none", **how) -> float:
    hypotheses, references = map(list, zip(*pairs, strict=True))
    return sacrebleu.BLEU(tokenize=tokenize, **how).corpus_score(hypotheses, [references]).score


def our_bleu(pairs: list, cut=str.split) -> float:
    return float(chapter()["bleu"](sum(chapter()["bleu_counts"](cut(a), cut(b)) for a, b in pairs)))


def test_sentence_bleu_is_sacrebleus():
    differ = 0
    for pair in [*random_pairs(), *DEGENERATE]:
        assert our_bleu([pair]) == pytest.approx(their_bleu([pair]), rel=1e-9, abs=1e-9), pair
        differ += abs(our_bleu([pair]) - their_bleu([pair], smooth_method="floor")) > 1e-6
    assert differ > 100  # the control: with another smoothing they are not the same


@pytest.mark.parametrize("cutter", ["zh", "13a", "char"])
def test_corpus_bleu_is_sacrebleus_for_its_tokenizers(cutter):
    theirs = sacrebleu.BLEU(tokenize=cutter).tokenizer
    for pairs in [*corpora(), DEGENERATE]:
        ours = our_bleu(pairs, lambda text: theirs(text.rstrip()).split())
        assert ours == pytest.approx(their_bleu(pairs, cutter), rel=1e-9)


def test_many_corpora_at_once_are_each_as_by_itself():
    pairs = [*random_pairs(200), *DEGENERATE]
    counts = np.stack([chapter()["bleu_counts"](a.split(), b.split()) for a, b in pairs])
    assert np.array_equal(chapter()["bleu"](counts), [float(chapter()["bleu"](row)) for row in counts])


def test_corpus_bleu_is_nltks_where_nothing_is_smoothed():
    compared = 0
    pairs = [pair for pair in random_pairs() if len(pair[0].split()) >= 4]
    for start in range(0, len(pairs) - 20, 20):
        # of a text shorter than n, nltk counts one n-gram, sacrebleu none
        some = pairs[start:start + 20]
        theirs = nltk_bleu([[b.split()] for _, b in some], [a.split() for a, _ in some])
        assert our_bleu(some) == pytest.approx(100 * theirs, rel=1e-9)
        compared += 1
    assert compared > 20


def test_chrf_is_sacrebleus():
    theirs, other = sacrebleu.CHRF(), sacrebleu.CHRF(beta=1)
    differ = 0
    for a, b in [*random_pairs(), *DEGENERATE]:
        ours = chapter()["chrf"](chapter()["chrf_counts"](a, b))
        assert ours == pytest.approx(theirs.corpus_score([a], [[b]]).score, rel=1e-9, abs=1e-9), (a, b)
        differ += abs(ours - other.corpus_score([a], [[b]]).score) > 1e-6
    assert differ > 100
    for pairs in [*corpora(), DEGENERATE]:
        summed = sum(chapter()["chrf_counts"](a, b) for a, b in pairs)
        hypotheses, references = map(list, zip(*pairs, strict=True))
        expected = theirs.corpus_score(hypotheses, [references]).score
        assert chapter()["chrf"](summed) == pytest.approx(expected, rel=1e-9)


class Cut:
    """rouge-score with tokens as they are: its own tokenizer drops Chinese."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def test_rouge_is_rouge_scores():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Cut())
    differ = 0
    for a, b in [*random_pairs(), *DEGENERATE]:
        theirs = {name: score.fmeasure for name, score in scorer.score(b, a).items()}
        x, y = a.split(), b.split()
        ours = {"rouge1": chapter()["rouge_n"](x, y, 1), "rouge2": chapter()["rouge_n"](x, y, 2),
                "rougeL": chapter()["rouge_l"](x, y)}
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12), (a, b)
        differ += abs(ours["rougeL"] - ours["rouge1"]) > 1e-9
    assert differ > 100  # word order matters to one of them only


def test_rouge_score_drops_chinese():
    assert RougeScorer(["rouge1"]).score("打开灯", "打开灯")["rouge1"].fmeasure == 0


def test_nist_is_nltks():
    unlike = 0
    for pairs in corpora(100):
        hypotheses, references = ([side.split() for side in sides] for sides in zip(*pairs, strict=True))
        if max(map(len, hypotheses)) < 5 or not any(references):
            continue  # nltk divides by zero
        ours = chapter()["nist"](hypotheses, references)
        assert ours == pytest.approx(corpus_nist([[b] for b in references], hypotheses), rel=1e-9, abs=1e-12)
        unlike += abs(ours - corpus_nist([[b] for b in references], hypotheses, n=1)) > 1e-6
    assert unlike > 30
    for a, b in random_pairs():
        a, b = a.split(), b.split()
        if len(a) >= 5 and b:
            assert chapter()["nist"]([a], [b]) == pytest.approx(corpus_nist([[b]], [a]), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("a, b", [([], list("abcde")), (list("abcde"), []), (list("ab"), list("ab"))])
def test_nist_gives_a_number_where_nltk_divides_by_zero(a, b):
    with pytest.raises(ZeroDivisionError):
        corpus_nist([[b]], [a])
    assert math.isfinite(chapter()["nist"]([a], [b]))
    assert (chapter()["nist"]([a], [b]) > 0) == bool(a and b)


def test_the_randomization_test_keeps_its_level():
    rng = np.random.default_rng(4)
    counts = np.array([[chapter()["bleu_counts"](chance_drop(b.split(), rng), b.split()) for _ in range(4)]
                       for _, b in random_pairs(120)])
    every, p = np.arange(len(counts)), []
    for _ in range(1500):
        a, b = (counts[every, rng.integers(0, 4, len(counts))] for _ in range(2))
        p.append(chapter()["randomization_p"](a, b, 99, rng))
    for level in (0.05, 0.2, 0.5):
        assert stats.binomtest(int(np.sum(np.array(p) <= level)), len(p), level).pvalue > 0.001
    better = np.array([chapter()["bleu_counts"](b.split(), b.split()) for _, b in random_pairs(120)])
    assert chapter()["randomization_p"](better, counts[:, 0], 99, rng) == 0.01  # a real one is seen


def chance_drop(tokens: list, rng: np.random.Generator) -> list:
    return [token for token in tokens if rng.random() > 0.2]


def test_the_bootstrap_resamples_the_same_texts_for_both_systems():
    counts = np.stack([chapter()["bleu_counts"](a.split(), b.split()) for a, b in random_pairs(80)])
    a, b = chapter()["bootstrap_bleu"](counts, counts, times=300)
    assert np.array_equal(a, b) and a.std() > 0.5


def test_holm_rejects_what_adjusted_p_values_do():
    rng = np.random.default_rng(0)
    for _ in range(500):
        p = rng.random(rng.integers(1, 12)) ** 3
        order = np.argsort(p)
        adjusted = np.empty(len(p))
        adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
        assert np.array_equal(chapter()["holm"](p), adjusted <= 0.05)
        assert not np.any((p <= 0.05 / len(p)) & ~chapter()["holm"](p))


def test_pass_at_k_is_the_share_of_subsets():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                share = np.mean([min(subset) < c for subset in combinations(range(n), k)])
                assert chapter()["pass_at_k"](n, c, k) == pytest.approx(share)
    assert chapter()["plug_in_pass"](4, 1, 2) != chapter()["pass_at_k"](4, 1, 2)
