"""Chapter 5's order of samples: each once an epoch, for any rank count, length and resume."""

import runpy
from functools import cache
from pathlib import Path

import pytest
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.env import UserError

LAB = Path(__file__).resolve().parent.parent / "labs/lab05_trustworthy_run/sample_order.py"
lab = runpy.run_path(str(LAB))
SampleOrder = lab["SampleOrder"]
some = settings(max_examples=50, deadline=None, derandomize=True)
small = {"length": st.integers(1, 300), "batch_size": st.integers(1, 80), "seed": st.integers(0, 9)}


@cache
def chapter():
    return run(sources("05"), ["imports", "order-permuted", "order-class"])


@cache
def global_batches(length, batch_size, seed=0):
    order = SampleOrder(length, batch_size, seed=seed)
    return [order.global_indices(step) for step in range(order.steps_per_epoch)]


@pytest.mark.parametrize("length", range(1, 26))
def test_any_short_length_on_1_to_64_ranks(length):
    for batch_size in {1, 8, length}:
        order = SampleOrder(length, batch_size)
        batches = global_batches(length, batch_size)
        order.global_indices = batches.__getitem__  # the hashes once, the slices for every rank
        for ranks in range(1, 65):
            seen = [i for step in range(order.steps_per_epoch) for rank in range(ranks)
                    for i in order.indices(step, rank, ranks)]
            assert sorted(seen) == list(range(length))
            assert seen == [i for batch in batches for i in batch]


@settings(some, max_examples=16)
@given(st.integers(1, 5000), st.integers(1, 700), st.integers(1, 64))
def test_any_length_any_ranks_each_sample_once_an_epoch(length, batch_size, ranks):
    order = SampleOrder(length, batch_size)
    order.global_indices = global_batches(length, batch_size).__getitem__
    seen = []
    for step in range(order.steps_per_epoch):
        slices = [order.indices(step, rank, ranks) for rank in range(ranks)]
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
        seen += [i for mine in slices for i in mine]
    assert sorted(seen) == list(range(length))


@some
@given(**small, ranks=st.integers(1, 64), step=st.integers(0, 2000))
def test_a_step_is_the_same_on_any_number_of_ranks_and_in_any_run(length, batch_size, seed, ranks, step):
    first, resumed = (SampleOrder(length, batch_size, seed=seed) for _ in range(2))
    batch = first.global_indices(step)
    assert batch == [i for rank in range(ranks) for i in resumed.indices(step, rank, ranks)]
    last = (step + 1) % first.steps_per_epoch == 0
    assert len(batch) == (length - 1) % batch_size + 1 if last else len(batch) == batch_size


@some
@given(**small, kill=st.integers(0, 1000), before=st.integers(1, 64), after=st.integers(1, 64))
def test_a_killed_epoch_resumed_on_other_ranks_is_whole(length, batch_size, seed, kill, before, after):
    order = SampleOrder(length, batch_size, seed=seed)
    kill %= order.steps_per_epoch
    read = [i for step in range(kill) for r in range(before) for i in order.indices(step, r, before)]
    order = SampleOrder(length, batch_size, seed=seed)  # a new process
    for step in range(kill, order.steps_per_epoch):
        read += [i for r in range(after) for i in order.indices(step, r, after)]
    assert sorted(read) == list(range(length))


@some
@given(**small, step=st.integers(0, 500), ranks=st.integers(1, 64), rank=st.integers(0, 63))
def test_the_chapter_and_the_lab_have_one_order(length, batch_size, seed, step, ranks, rank):
    ours = chapter()["SampleOrder"](length, batch_size, seed=seed)
    theirs = SampleOrder(length, batch_size, seed=seed)
    assert ours.steps_per_epoch == theirs.steps_per_epoch
    assert ours.indices(step, rank % ranks, ranks) == theirs.indices(step, rank % ranks, ranks)


def test_epochs_and_seeds_differ_and_the_order_mixes():
    order, other = SampleOrder(500, 500, seed=1), SampleOrder(500, 500, seed=2)
    batches = [order.global_indices(0), order.global_indices(1), other.global_indices(0)]
    assert len(set(map(tuple, batches))) == 3
    for batch in batches:
        # A shuffle has one fixed point on average; more than 8 has probability 1e-6.
        assert sum(place == i for place, i in enumerate(batch)) <= 8
        # Mean rank correlation 0, deviation 1/√499 = 0.045; five of them.
        correlation = 1 - 6 * sum((place - i) ** 2 for place, i in enumerate(batch)) / (500 * (500**2 - 1))
        assert abs(correlation) < 0.23


@pytest.mark.parametrize("make", [
    lambda: SampleOrder(0, 4), lambda: SampleOrder(-1, 4), lambda: SampleOrder(10, 0),
    lambda: SampleOrder(10.0, 4), lambda: SampleOrder(10, 4, seed="a"),
    lambda: SampleOrder(10, 4).global_indices(-1), lambda: SampleOrder(10, 4).indices(0, 2, 2),
    lambda: SampleOrder(10, 4).indices(0, -1, 2), lambda: SampleOrder(10, 4).indices(0, 0, 0),
])
def test_bad_arguments_are_named_in_one_sentence(make):
    with pytest.raises(UserError, match=r"^(length|batch_size|seed|step|rank|world_size) is "):
        make()
