"""Chapter 4's scaling law: the fit finds laws drawn at random, the optimum is one, entropy is scipy's."""

import math

import numpy as np
import pytest
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

few = settings(max_examples=20, deadline=None, derandomize=True)
exponents = st.floats(0.2, 0.8)
# Terms at the middle of the data, in nats: there the three can be told apart.
terms = st.floats(0.3, 3.0)


@pytest.fixture(scope="module")
def ch():
    names = ["imports", "significance-bits-define", "scaling-law", "scaling-fit", "scaling-bootstrap"]
    return run(sources("04"), [*names, "scaling-optimum"])


def points(seed, count=25):
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(4, 9, count), 10 ** rng.uniform(6, 11, count)


@few
@given(seed=st.integers(0, 999), E=terms, small=terms, short=terms, alpha=exponents, beta=exponents)
def test_the_fit_finds_a_law_that_is_there(ch, seed, E, small, short, alpha, beta):
    N, D = points(seed)
    middle = [float(np.exp(np.log(x).mean())) for x in (N, D)]
    known = [E, small * middle[0] ** alpha, short * middle[1] ** beta, alpha, beta]
    found = ch["fit"](N, D, ch["law"](N, D, *known))
    # The search stops at relative steps or gradients of 1e-8; the problem's condition takes some.
    assert found == pytest.approx(known, rel=1e-4)


@few
@given(seed=st.integers(0, 999), odd=st.integers(0, 24))
def test_one_odd_training_does_not_rule_the_fit(ch, seed, odd):
    N, D = points(seed)
    loss = ch["law"](N, D, 1.5, 50.0, 200.0, 0.4, 0.4)
    loss[odd] *= 1.5
    found = ch["fit"](N, D, loss)
    # Huber's pull of one point is at most that of a residual of 1 %, spread over the others.
    rest = np.arange(25) != odd
    assert np.median(np.abs(np.log(ch["law"](N, D, *found) / loss)[rest])) < 0.01


@few
@given(C=st.floats(1e12, 1e26), A=st.floats(1, 1e4), B=st.floats(1, 1e4), alpha=exponents, beta=exponents)
def test_the_optimum_is_one(ch, C, A, B, alpha, beta):
    N, D = ch["optimum"](C, A, B, alpha, beta)
    assert pytest.approx(C, rel=1e-12) == 6 * N * D

    def slope(x):  # of log(second term / third term): zero where both bring as much
        return math.log(alpha * A / (beta * B)) - alpha * x + beta * (math.log(C / 6) - x)

    assert math.log(N) == pytest.approx(optimize.brentq(slope, -99, 99, xtol=1e-13), abs=1e-9)
    best = ch["law"](N, D, 0.0, A, B, alpha, beta)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert best < ch["law"](factor * N, D / factor, 0.0, A, B, alpha, beta)


@few
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_entropy_is_scipys(ch, counts):
    items = [kind for kind, count in enumerate(counts) for _ in range(count)]
    assert ch["entropy"](items) == pytest.approx(stats.entropy(counts, base=2), abs=1e-12)


def test_the_bootstrap_repeats_and_an_exact_law_has_no_spread(ch):
    N, D = points(3)
    loss = ch["law"](N, D, 1.5, 50.0, 200.0, 0.4, 0.4)
    best, refits, noise = ch["bootstrap"](N, D, loss, times=5, seed=7)
    again = ch["bootstrap"](N, D, loss, times=5, seed=7)
    assert (refits == again[1]).all() and refits.shape == (5, 5)
    assert np.abs(noise).max() < 1e-6 and refits == pytest.approx(np.tile(best, (5, 1)), rel=1e-3)
