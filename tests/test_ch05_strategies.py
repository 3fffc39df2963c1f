"""Chapter 5's schedules, clipping and noise scale, from its own cells, beside the libraries.

In float64. Rates are numbers up to 1 made by some ten roundings of ε/2 each: 20 ε = 4e-15. A cosine's
argument is up to π, and OneCycleLR computes its phases' ends from a rounded fraction, which moves the
argument by a few ε times the number of steps: 1e-12 leaves room for both.
"""

import functools
import math

import pytest
import torch
import transformers.optimization as hf
from cells import run, sources
from deepspeed.runtime import lr_schedules as ds
from hypothesis import assume, given, settings
from hypothesis import strategies as st

TOLERANCE = 1e-12
quick = settings(max_examples=30, deadline=None, derandomize=True)
lengths = st.tuples(st.integers(2, 40), st.integers(2, 80))  # warm-up; what follows


@functools.cache
def chapter():
    names = ["imports", "strategies-schedules", "strategies-libraries", "strategies-clip",
             "strategies-noise-scale", "strategies-batch-norm", "solution-ex05-clip"]
    threads = torch.get_num_threads()
    shared = run(sources("05"), names)
    torch.set_num_threads(threads)
    return shared


def assert_rates(ours, scheduler, total):
    theirs = chapter()["seen_rates"](scheduler, total)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= TOLERANCE


@quick
@given(lengths)
def test_linear_and_cosine(sizes):
    warm, total = sizes[0], sum(sizes)
    for name, make in (("linear", hf.get_linear_schedule_with_warmup),
                       ("cosine", hf.get_cosine_schedule_with_warmup)):
        assert_rates([chapter()[name](k, warm, total) for k in range(total)],
                     lambda opt, make=make: make(opt, warm, total), total)


@quick
@given(lengths, st.integers(1, 80))
def test_wsd(sizes, decay):
    warm, total = sizes[0], sum(sizes)
    assume(decay <= sizes[1])
    assert_rates([chapter()["wsd"](k, warm, total, decay) for k in range(total)],
                 lambda opt: hf.get_wsd_schedule(opt, warm, decay, total, decay_type="linear"),
                 total)


@quick
@given(lengths)
def test_one_cycle(sizes):
    warm, total = sizes[0], sum(sizes)
    assert_rates([chapter()["one_cycle"](k, warm, total) for k in range(total)],
                 lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 1.0, total,
                                                                 pct_start=warm / total), total)


@quick
@given(lengths)
def test_deepspeed_is_late(sizes):
    """Its linear schedule by one update; its cosine only while it warms up."""
    warm, total = sizes[0], sum(sizes)
    late = [0, *range(total - 1)]
    linear, cosine = chapter()["linear"], chapter()["cosine"]
    assert_rates([linear(k, warm, total) for k in late],
                 lambda opt: ds.WarmupDecayLR(opt, total, 0.0, 1.0, warm, "linear"), total)
    assert_rates([cosine(late[k] if k <= warm else k, warm, total) for k in range(total)],
                 lambda opt: ds.WarmupCosineLR(opt, total, 0.0, warm, 0.0, "linear"), total)


@quick
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(1e-3, 1e3),
       st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_clip(sizes, max_norm, scale, seed):
    """Equal to torch's, in the norm it reports too; and the shards' exercise agrees but for 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    gradients = [scale * torch.randn(n, dtype=torch.float64, generator=generator) for n in sizes]
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    theirs = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    ours, norm = chapter()["clip"](gradients, max_norm)
    assert norm == pytest.approx(theirs, rel=TOLERANCE)
    shards = chapter()["clip_shards"]([[g] for g in gradients], max_norm)
    for mine, parameter, (shard,), gradient in zip(ours, parameters, shards, gradients, strict=True):
        assert torch.allclose(mine, parameter.grad, rtol=TOLERANCE, atol=0)
        assert torch.allclose(shard, mine, rtol=2e-6 / norm, atol=0)
        assert (mine.abs() <= gradient.abs()).all()


@quick
@given(st.floats(0.1, 1e4), st.floats(1e-3, 1e3), st.integers(1, 64), st.integers(2, 64))
def test_noise_scale_is_unbiased(trace, square, small, times):
    """From the expected norms it finds what they were made of; cancellation costs a few digits."""
    large = small * times
    found = chapter()["noise_scale"](small, large, square + trace / small, square + trace / large)
    room = 1e-13 * small * (square + trace / small) * 4  # 1/small − 1/large is at least 1/(2 small)
    assert abs(found[0] - trace) <= room
    assert abs(found[1] - square) <= room / small + 1e-13 * (square + trace)


@quick
@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 12), st.integers(0, 2**31))
def test_batch_norm_over_all_tokens(batch, time, features, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, time, features, dtype=torch.float64, generator=generator)
    y = chapter()["TokenBatchNorm"](features).double()(x)
    centred = x - x.mean((0, 1))
    expected = centred / (centred.square().mean((0, 1)) + 1e-5).sqrt()
    assert torch.allclose(y, expected, rtol=1e-9, atol=1e-9)  # variances may be near 1e-5
    assert math.isfinite(y.sum().item())
