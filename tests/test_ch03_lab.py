"""Chapter 3's counts of bytes and FLOPs, held against torch on shapes that the author did not choose."""

import functools
import itertools

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from labkit import measure, plan
from labkit.models import GPT, GPTConfig

CELLS = ["imports", "lab-saved", "lab-block-parts", "lab-formula", "lab-elementwise"]
SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)


@functools.cache
def chapter():
    return run(sources("03"), CELLS)


@st.composite
def shapes(draw, least=1):
    """Batch, context, hidden size, heads."""
    heads = draw(st.integers(least, 4))
    return (draw(st.integers(least, 4)), draw(st.integers(2, 40)), heads * draw(st.integers(1, 17)), heads)


def block_and_input(shape, dtype, dropout):
    b, s, h, a = shape
    block = GPT(GPTConfig(context=s, num_heads=a, hidden_size=h, dropout=dropout)).blocks[0].to(dtype)
    return block, torch.randn(b, s, h, dtype=dtype, requires_grad=True)


dtypes = st.sampled_from([torch.float32, torch.bfloat16])
rates = st.sampled_from([0.0, 0.1, 0.5])


@SETTINGS
@given(shapes(least=2), dtypes, rates)
def test_the_parts_of_a_block_add_up_to_what_torch_keeps(shape, dtype, rate):
    parts = chapter()["block_parts"](*shape, w=dtype.itemsize, dropout=rate > 0)
    block, x = block_and_input(shape, dtype, rate)
    with measure.activations(block) as saved:
        block(x)
    assert saved.bytes == sum(parts.values())


@SETTINGS
@given(shapes(), dtypes, rates)
def test_the_planned_bytes_are_kept_also_with_one_sample_or_one_head(shape, dtype, rate):
    block, x = block_and_input(shape, dtype, rate)
    with measure.activations(block) as saved:
        block(x)
    assert saved.bytes == plan.block_activations(*shape, width=dtype.itemsize, dropout=rate > 0)


@SETTINGS
@given(shapes(), st.integers(1, 3), st.integers(2, 50), rates)
def test_the_planned_bytes_of_a_model_are_kept(shape, layers, vocab, rate):
    b, s, h, a = shape
    model = GPT(GPTConfig(vocab, s, layers, a, h, rate))
    x, y = torch.zeros(2, b, s, dtype=torch.long).unbind()
    y = y.clone()
    with measure.activations(model) as saved:
        model(x.clone(), y)
    assert saved.bytes == plan.gpt_activations(b, s, layers, h, a, vocab, dropout=rate > 0)


@SETTINGS
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 6), st.booleans())
def test_the_list_of_saved_tensors_is_what_the_hooks_see(widths, batch, gelu):
    layers = []
    for inside, outside in itertools.pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.GELU() if gelu else nn.LayerNorm(outside)]
    module = nn.Sequential(*layers)
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    with measure.activations(module) as saved:
        y = module(torch.randn(batch, widths[0], requires_grad=True))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for _, _, t in chapter()["saved_tensors"](y)}
    assert sum(n for place, n in storages.items() if place not in own) == saved.bytes


@SETTINGS
@given(shapes(), st.integers(1, 3), st.integers(2, 50))
def test_matrix_products_are_those_that_torch_counts(shape, layers, vocab):
    b, s, h, a = shape
    model, x = GPT(GPTConfig(vocab, s, layers, a, h)), torch.zeros(b, s, dtype=torch.long)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, x).backward()
    assert counter.get_total_flops() == 3 * sum(chapter()["blocks_and_logits"](b, s, h, layers, vocab))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(shapes(), st.integers(1, 3), st.integers(2, 50))
def test_deepspeeds_profiler_counts_these_and_the_elementwise_ones(shape, layers, vocab):
    from deepspeed.profiling.flops_profiler import FlopsProfiler

    b, s, h, a = shape
    model, x = GPT(GPTConfig(vocab, s, layers, a, h)), torch.zeros(b, s, dtype=torch.long)
    profiler = FlopsProfiler(model)
    profiler.start_profile()
    model(x, x)
    flops, macs = profiler.get_total_flops(), profiler.get_total_macs()
    profiler.end_profile()
    matrix = sum(chapter()["blocks_and_logits"](b, s, h, layers, vocab))
    assert (flops, 2 * macs) == (matrix + chapter()["elementwise"](b, s, h, layers), matrix)


@SETTINGS
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), dtypes)
def test_the_exercises_swiglu_keeps_the_bytes_of_its_solution(tokens, hidden, inner, dtype):
    gate, up, down = (nn.Linear(*size, bias=False, dtype=dtype)
                      for size in ((hidden, inner), (hidden, inner), (inner, hidden)))
    x = torch.randn(tokens, hidden, dtype=dtype, requires_grad=True)
    with measure.activations(nn.ModuleList([gate, up, down])) as saved:
        down(F.silu(gate(x)) * up(x))
    solution, = (source for source in sources("03").values()
                 if source.startswith("def swiglu_bytes") and "NotImplementedError" not in source)
    names: dict = {}
    exec(solution, names)
    assert names["swiglu_bytes"](tokens, hidden, inner, dtype.itemsize) == saved.bytes


def test_no_dropout_keeps_nothing_more_and_changes_nothing():
    torch.manual_seed(0)
    plain = GPT(GPTConfig(context=8, hidden_size=32))
    torch.manual_seed(0)
    dropped = GPT(GPTConfig(context=8, hidden_size=32, dropout=0.5))
    x = torch.arange(16).view(2, 8)
    assert torch.equal(plain(x), dropped.eval()(x))
    assert not torch.equal(plain(x), dropped.train()(x))
    for wrong in (1.0, -0.1, "0.1"):
        with pytest.raises(ValueError, match="dropout is"):
            GPTConfig(dropout=wrong)
