"""Chapter 2's layers by hand against torch, on shapes and numbers that the author did not choose."""

import math
from functools import cache

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

EPSILON = torch.finfo(torch.float64).eps
CELLS = ["imports", "arch-mlp", "arch-conv1d", "arch-conv2d", "arch-moments", "arch-normalize",
         "arch-norm-backward", "arch-batch-norm"]
often = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(1, 12)
seeds = st.integers(0, 10**6)


@cache
def chapter() -> dict:
    return run(sources("02"), CELLS)


def numbers(seed: int, *shape: int, size: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + size * torch.randn(*shape, generator=generator, dtype=torch.float64)


@often
@given(widths=st.lists(sizes, min_size=2, max_size=6), samples=sizes)
def test_size_of_a_multilayer_perceptron(widths, samples):
    network = chapter()["mlp"](widths)
    with FlopCounterMode(display=False) as forward:
        outputs = network(torch.randn(samples, widths[0]))
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    counted = forward.get_total_flops(), backward.get_total_flops()
    assert chapter()["mlp_flops"](widths, samples) == counted
    assert chapter()["mlp_params"](widths) == sum(p.numel() for p in network.parameters())


@often
@given(seed=seeds, kernel=sizes, more=st.integers(0, 20))
def test_convolution_in_one_dimension(seed, kernel, more):
    weights, signal = numbers(seed, kernel), numbers(seed + 1, kernel + more)
    ours = chapter()["conv_matrix"](weights, kernel + more) @ signal
    theirs = F.conv1d(signal.view(1, 1, -1), weights.view(1, 1, -1)).view(-1)
    # k products of numbers below 6 (Gaussians), each sum rounded k times, twice
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2 * kernel**2 * 36 * EPSILON)


@often
@given(seed=seeds, kernel=st.tuples(sizes, sizes), more=st.tuples(sizes, sizes))
def test_convolution_in_two_dimensions(seed, kernel, more):
    weights = numbers(seed, *kernel)
    image = numbers(seed + 1, *(k + m for k, m in zip(kernel, more, strict=True)))
    ours = chapter()["conv2d"](image, weights)
    theirs = F.conv2d(image[None, None], weights[None, None])[0, 0]
    terms = kernel[0] * kernel[1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2 * terms**2 * 36 * EPSILON)


@often
@given(variance=st.floats(1e-3, 1e3))
def test_moments_of_relu_are_halves(variance):
    second, slope = chapter()["moments"](F.relu, variance)
    assert second == pytest.approx(variance / 2, rel=1e-9)
    assert slope == pytest.approx(1 / 2, rel=1e-9)


def rounding(x: torch.Tensor, grad: torch.Tensor, gain: torch.Tensor, dim: int) -> float:
    """What fp64 may lose: sums of n rounded numbers, divided by the smallest deviation twice."""
    std = (x.var(dim, correction=0) + 1e-5).sqrt().min().item()
    n, size = x.numel(), 1 + x.abs().max().item()
    slope = 1 + (grad * gain).abs().max().item() + grad.abs().max().item()
    y = math.sqrt(x.shape[dim])  # the largest that a normalized number can be
    return 8 * n * EPSILON * (size / std) * slope * y**2 * max(1, 1 / std)


@pytest.mark.parametrize("dim", [-1, 0], ids=["LayerNorm", "BatchNorm"])
@often
@given(seed=seeds, rows=st.integers(2, 12), features=st.integers(2, 12),
       size=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_norms_forward_and_backward(dim, seed, rows, features, size, shift):
    x, grad = numbers(seed, rows, features, size=size, shift=shift), numbers(seed + 1, rows, features)
    gain, bias = numbers(seed + 2, features), numbers(seed + 3, features)
    inputs = [t.clone().requires_grad_() for t in (x, gain, bias)]
    if dim == -1:
        theirs = F.layer_norm(inputs[0], (features,), *inputs[1:])
    else:
        theirs = F.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
    atol = rounding(x, grad, gain, dim)
    assert atol < 1e-4  # otherwise the comparison would say little
    ours = chapter()["norm_forward"](x, gain, bias, dim)
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=atol)
    for mine, autograd in zip(chapter()["norm_backward"](grad, x, gain, dim),
                              torch.autograd.grad(theirs, inputs, grad), strict=True):
        torch.testing.assert_close(mine, autograd, rtol=0, atol=atol)


@often
@given(seed=seeds, features=sizes, momentum=st.floats(0.01, 1),
       batches=st.lists(st.integers(2, 9), min_size=1, max_size=5))
def test_batch_norm_keeps_torchs_running_statistics(seed, features, momentum, batches):
    ours = chapter()["BatchNorm"](features, momentum=momentum, dtype=torch.float64)
    theirs = nn.BatchNorm1d(features, momentum=momentum, affine=False, dtype=torch.float64)
    for number, rows in enumerate(batches):
        x = numbers(seed + number, rows, features, size=2.0, shift=3.0)
        one = torch.ones(features, dtype=torch.float64)
        torch.testing.assert_close(ours(x, True), theirs(x), rtol=0, atol=rounding(x, x, one, 0))
    # sums of 9 squares below (3 + 6 · 2)², mixed 5 times
    atol = 5 * 9 * 225 * EPSILON
    torch.testing.assert_close(ours.mean, theirs.running_mean, rtol=0, atol=atol)
    torch.testing.assert_close(ours.var, theirs.running_var, rtol=0, atol=atol)
    std = (theirs.running_var + 1e-5).sqrt().min().item()
    torch.testing.assert_close(ours(x, False), theirs.eval()(x), rtol=0, atol=atol / std**3)


@often
@given(seed=seeds, tokens=st.integers(2, 9), features=st.integers(2, 9),
       padding=st.integers(1, 20), size=st.floats(0.1, 10))
def test_only_layer_norm_ignores_the_rest_of_the_batch(seed, tokens, features, padding, size):
    normalize = chapter()["normalize"]
    sentence = numbers(seed, tokens, features, size=size)
    padded = torch.cat([sentence, torch.zeros(padding, features, dtype=torch.float64)])
    assert torch.equal(normalize(padded, -1)[0][:tokens], normalize(sentence, -1)[0])
    assert not torch.allclose(normalize(padded, 0)[0][:tokens], normalize(sentence, 0)[0])
