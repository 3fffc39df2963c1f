"""Chapter 2's data parallelism on batches and gradients that the chapter did not choose."""

import math
import sys

import cloudpickle
import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labkit import env, ranks

quick = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def chapter():
    threads = torch.get_num_threads()
    yield run(sources("02"), ["imports", "dp-digits", "dp-net", "dp-wilson", "dp-average", "dp-accumulate"])
    torch.set_num_threads(threads)


@quick
@given(micro=st.integers(1, 6), pieces=st.integers(1, 7), seed=st.integers(0, 99))
def test_accumulation_gives_the_whole_batch_s_gradient(chapter, micro, pieces, seed):
    torch.manual_seed(seed)
    size = micro * pieces
    images, labels = torch.randn(size, 5, dtype=torch.float64), torch.randint(0, 4, (size,))
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    chapter["accumulate"](net, images, labels, micro)
    found = chapter["flat"](p.grad for p in net.parameters())
    net.zero_grad()
    nn.functional.cross_entropy(net(images), labels).backward()
    whole = chapter["flat"](p.grad for p in net.parameters())
    # sums of some 100 products, each rounded at 1.1e-16, and terms that cancel to a hundredth
    assert (found - whole).norm() <= 1e-13 * (whole.norm() + 0.01)


@quick
@given(batch=st.integers(1, 448), passes=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_pass_takes_each_image_at_most_once(chapter, batch, passes, seed):
    a_pass = chapter["NUM_TRAIN"] // batch
    found = list(chapter["batches"](batch, passes * a_pass, seed))
    assert all(len(chosen) == batch for chosen in found)
    for i in range(passes):
        taken = torch.cat(found[i * a_pass : (i + 1) * a_pass])
        assert len(taken.unique()) == len(taken) == a_pass * batch and taken.max() < chapter["NUM_TRAIN"]


@quick
@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_wilson_s_ends_are_z_deviations_from_what_was_seen(chapter, n, share):
    k = round(share * n)
    low, high = chapter["wilson"](k, n)
    for p in (low, high):
        # squared, the equation is polynomial in p: float64 rounds its terms, below 1, at 1e-16
        assert (k / n - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / n, abs=1e-13)
    assert low <= k / n + 1e-15 and high >= k / n - 1e-15


@pytest.mark.parametrize(("n", "worst"), [(901, 0.94), (100, 0.92)])
def test_wilson_covers_the_truth_95_times_in_100(chapter, n, worst):
    """Exactly, from the binomial distribution; it is discrete, so single p miss 0.95 a little."""
    coverage = []
    for p in torch.linspace(0.05, 0.95, 31).tolist():
        inside = [k for k in range(n + 1) if chapter["wilson"](k, n)[0] <= p <= chapter["wilson"](k, n)[1]]
        logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
                + k * math.log(p) + (n - k) * math.log(1 - p) for k in inside]
        coverage.append(sum(map(math.exp, logs)))
    assert sum(coverage) / len(coverage) == pytest.approx(0.95, abs=0.005)
    assert min(coverage) > worst


def on_rank(average, seeds):
    """Averages of random gradients of random shapes, made by seed and rank."""
    return [average_one(average, seed, torch.distributed.get_rank()) for seed in seeds]


def gradients(seed, rank):
    shapes = torch.Generator().manual_seed(seed)
    number = int(torch.randint(1, 5, (), generator=shapes))
    sizes = [torch.randint(1, 6, (int(torch.randint(0, 4, (), generator=shapes)),), generator=shapes).tolist()
             for _ in range(number)]
    values = torch.Generator().manual_seed(1000 * rank + seed)
    return [torch.randn(size, generator=values, dtype=torch.float64) for size in sizes]


def average_one(average, seed, rank):
    net = nn.ParameterList([nn.Parameter(torch.zeros_like(g)) for g in gradients(seed, rank)])
    net.to(env.device())
    for p, g in zip(net.parameters(), gradients(seed, rank), strict=True):
        p.grad = g.to(env.device())
    average(net)
    return [p.grad.cpu() for p in net.parameters()]


def test_averages_over_ranks_are_the_mean(chapter):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pool = ranks.Pool(2, timeout=600)
    try:
        found = pool.run(on_rank, chapter["average_gradients"], range(30))
    finally:
        pool.stop()
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    for seed in range(30):
        mean = [(a + b) / 2 for a, b in zip(gradients(seed, 0), gradients(seed, 1), strict=True)]
        for on_this in found:  # of two summands there is only one order: no rounding to allow
            assert all(torch.equal(a, b) for a, b in zip(on_this[seed], mean, strict=True))
