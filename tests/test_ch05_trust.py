"""Chapter 5, Lab 5: a run resumed at any micro-batch is the run left alone; what is forgotten is seen."""

from functools import cache

import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

CELLS = ("imports", "trust-data", "trust-training", "trust-micro-step", "trust-checkpoint", "trust-put-back",
         "interval-simulate")
PARTS = ("weights", "master weights", "moments", "schedule", "gradients", "position", "random state")


@cache
def chapter() -> dict:
    return run(sources("05"), list(CELLS))


def losses(training, count: int) -> list[float]:
    return [chapter()["micro_step"](training) for _ in range(count)]


def straight(stop: int, count: int) -> tuple[dict, list[float]]:
    """(checkpoint after ``stop`` micro-batches, the next ``count`` losses without a stop)."""
    training = chapter()["Training"]()
    losses(training, stop)
    return chapter()["keep"](training), losses(training, count)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(stop=st.integers(0, 90), count=st.integers(1, 60), noise=st.integers(0, 2**32))
def test_resumed_anywhere_it_is_the_same_run(stop, count, noise):
    saved, expected = straight(stop, count)
    torch.manual_seed(noise)  # whatever happened in between
    assert losses(chapter()["restore"](saved), count) == expected
    assert losses(chapter()["restore"](saved), count) == expected  # a checkpoint is not used up


@settings(max_examples=20, deadline=None, derandomize=True)
@given(stop=st.integers(20, 90), part=st.sampled_from(PARTS))
def test_what_is_forgotten_is_seen_no_sooner_than_it_acts(stop, part):
    saved, expected = straight(stop, 12)
    found = losses(chapter()["restore"](saved, (part,)), 12)
    first = next((i for i in range(12) if found[i] != expected[i]), 12)
    if part == "gradients" and stop % 4 == 0:
        assert first == 12  # nothing was accumulated
    elif part in ("weights", "position", "random state"):
        assert first == 0
    else:
        assert 12 > first >= 4 - stop % 4  # after the next update


@settings(max_examples=20, deadline=None, derandomize=True)
@given(tau=st.floats(1, 50), delta=st.floats(0.1, 5), scale=st.floats(1, 40), seed=st.integers(0, 99))
def test_the_simulation_agrees_with_the_exact_time(tau, delta, scale, seed):
    M = scale * (tau + delta)
    mean, error = chapter()["simulate"](tau, delta, M, 2000, seed)
    exact = M * torch.expm1(torch.tensor((tau + delta) / M, dtype=torch.float64)).item() / tau
    assert abs(mean - exact) < 5 * error + 1e-9  # beyond 5 standard errors once in two million
