"""Chapter 3's recurrent cells, attention and heads equal torch's on shapes nobody chose."""

from functools import cache

import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

CELLS = ["imports", "sequence-cells", "sequence-lstm", "attention-attend", "attention-heads"]
RANDOM = settings(max_examples=30, deadline=None, derandomize=True)
EPSILON = torch.finfo(torch.float64).eps
small = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


@cache
def chapter() -> dict:
    return run(sources("03"), CELLS)


def close(ours: torch.Tensor, theirs: torch.Tensor, terms: int) -> None:
    """Equal but for the rounding of this many float64 terms; 8 for what softmax and gates add."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 8 * terms * EPSILON * max(1.0, theirs.abs().max())


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@RANDOM
@given(seeds, small, small, small, small)
def test_recurrent_cells(seed, time, batch, size, hidden):
    torch.manual_seed(seed)
    x = draw(time, batch, size)
    for name, theirs in (("rnn", nn.RNN), ("lstm", nn.LSTM)):
        layer = theirs(size, hidden).double().requires_grad_(False)
        ours = chapter()[name](x, *chapter()["weights_of"](layer))
        close(ours, layer(x)[0], time * (size + hidden))


@RANDOM
@given(seeds, small, small, small, small, st.booleans())
def test_attend(seed, queries, keys, size, width, masked):
    torch.manual_seed(seed)
    q, k, v = draw(2, 3, queries, size), draw(2, 3, keys, size), draw(2, 3, keys, width)
    allowed = torch.rand(2, 1, queries, keys) < 0.5 if masked else None
    if masked:
        allowed[..., torch.randint(keys, (1,))] = True  # nobody may look nowhere
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    close(chapter()["attend"](q, k, v, allowed), theirs, size + keys)
    weights = chapter()["attention_weights"](q, k, allowed)
    close(weights.sum(-1), torch.ones(2, 3, queries, dtype=torch.float64), keys)
    if masked:
        assert not weights.masked_fill(allowed, 0).any()


@RANDOM
@given(seeds, small, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.data())
def test_multi_head(seed, time, heads, head_size, causal, data):
    torch.manual_seed(seed)
    hidden = heads * head_size
    layer = nn.MultiheadAttention(hidden, heads, batch_first=True).double().requires_grad_(False)
    for bias in (layer.in_proj_bias, layer.out_proj.bias):
        bias.normal_()  # torch starts them at 0, which would hide one left out
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, time), min_size=3, max_size=3)))
    real = torch.arange(time) < lengths[:, None]
    allowed = real[:, None, None, :].expand(-1, -1, time, -1)
    if causal:
        allowed = allowed & torch.ones(time, time, dtype=torch.bool).tril()
    x = draw(3, time, hidden)
    ours = chapter()["multi_head"](x, heads, layer.in_proj_weight, layer.in_proj_bias,
                                   layer.out_proj.weight, layer.out_proj.bias, allowed)
    hidden_keys = ~allowed.expand(3, heads, time, time).flatten(0, 1)
    theirs = layer(x, x, x, attn_mask=hidden_keys, need_weights=False)[0]
    close(ours, theirs, 2 * hidden + head_size + time)
    parts = chapter()["split_heads"](x, heads)
    assert parts.shape == (3, heads, time, head_size)
    assert torch.equal(chapter()["merge_heads"](parts), x)


@RANDOM
@given(seeds, st.integers(2, 9), st.integers(1, 6), st.data())
def test_the_future_changes_nothing_and_order_means_nothing(seed, time, size, data):
    torch.manual_seed(seed)
    attend, x = chapter()["attend"], draw(time, size)
    now = data.draw(st.integers(1, time - 1))
    mask = torch.ones(time, time, dtype=torch.bool).tril()
    changed = torch.cat([x[:now], 1e3 * draw(time - now, size)])
    before, after = attend(x, x, x, mask), attend(changed, changed, changed, mask)
    assert torch.equal(before[:now], after[:now])
    order = torch.tensor(data.draw(st.permutations(range(time))))
    close(attend(x[order], x[order], x[order]), attend(x, x, x)[order], size + time)
