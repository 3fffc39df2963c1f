"""Chapter 5's metrics, tests, quantization and masks, against scikit-learn, scipy and torch."""

import warnings
from functools import cache

import numpy as np
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from sklearn import metrics

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


@cache
def chapter():
    return run(sources("05"), ["imports", "eval-scores", "eval-intervals", "eval-mcnemar",
                               "eval-quantize", "eval-stride"])


@EXAMPLES
@given(st.integers(1, 5).flatmap(lambda k: st.tuples(
    st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1))))
def test_scores_equal_scikit_learns(case):
    classes, items = case
    truth, called = map(np.array, zip(*items, strict=True))
    labels = list(range(classes))
    ours = chapter()["scores"](chapter()["confusion"](truth, called, classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where it sets 0/0 to 0
        theirs = metrics.precision_recall_fscore_support(truth, called, labels=labels, zero_division=0)
    np.testing.assert_allclose(ours["precision"], theirs[0], rtol=1e-14)
    np.testing.assert_allclose(ours["recall"], theirs[1], rtol=1e-14)
    np.testing.assert_allclose(ours["F1"], theirs[2], rtol=1e-14)
    assert np.isclose(ours["accuracy"], metrics.accuracy_score(truth, called), rtol=1e-14)


@EXAMPLES
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipys(case):
    right, n = case
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(chapter()["wilson"](right, n), (theirs.low, theirs.high), atol=1e-12)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(10, 200).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))))
def test_the_bootstrap_needs_no_simulation(case):
    right, n = case
    sample = np.zeros(n)
    sample[:right] = 1
    drawn = stats.bootstrap((sample,), np.mean, n_resamples=4000, method="percentile",
                            rng=np.random.default_rng(0)).confidence_interval
    spread = np.sqrt(right / n * (1 - right / n) / n)
    np.testing.assert_allclose(chapter()["bootstrap"](right, n), (drawn.low, drawn.high),
                               atol=0.25 * spread + 1.5 / n)  # Monte-Carlo error, and one item's step


@EXAMPLES
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_equals_the_binomial_test(b, c):
    theirs = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert abs(chapter()["mcnemar"](b, c) - theirs) < 1e-10


@EXAMPLES
@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
                     elements=st.floats(-100, 100, width=32)), st.integers(2, 8))
def test_no_weight_moves_by_more_than_half_a_scale(weight, bits):
    weight = torch.tensor(weight)
    whole, scale = chapter()["integers"](weight, bits)
    near = chapter()["quantized"](weight, bits)
    assert whole.abs().max() <= 2 ** (bits - 1) - 1
    assert ((near - weight).abs() <= scale * (0.5 + 1e-5)).all()
    top = 2 ** (bits - 1) - 1
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scale.flatten(), torch.zeros(len(weight), dtype=torch.int32), 0, -top, top)
    # torch multiplies by 1/scale where we divide: a tie may go the other way, by one whole scale
    assert ((theirs - near).abs() <= scale * (1 + 1e-5)).all()
    assert ((theirs - near).abs() > scale * 1e-3).float().mean() <= 0.2


@EXAMPLES
@given(n=st.integers(1, 60), context=st.integers(1, 12), data=st.data())
def test_each_token_is_scored_once_with_enough_context(n, context, data):
    stride = data.draw(st.integers(1, context))
    tokens = torch.arange(n + 1)
    asked = []

    def model(inputs):  # remembers what it saw; its loss on target t is lowest when t = input + 1
        asked.append(inputs[0].tolist())
        return torch.nn.functional.one_hot(inputs + 1, n + 2).float() * 50

    losses, count = chapter()["stride_losses"](model, tokens, context, stride)
    assert len(losses) == n
    assert losses.max() < 1e-6  # every target was scored from its own input
    assert count == sum(map(len, asked))
    assert max(map(len, asked)) <= context
    windows = 1 + max(0, -(-(n - context) // stride))
    assert len(asked) == windows
