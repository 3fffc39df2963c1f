"""Chapter 3's Transformer, by hand, equals torch's and transformers' on shapes drawn at random."""

import math

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from labkit.models import GPT, GPTConfig

# fmt: off
PARTS = [
    "apart", "split", "attend", "attention", "mlp", "residual", "layer", "rename", "twins",
    "stack", "gpt", "sinusoid", "rotation", "rotate", "rms-norm", "swiglu", "grouped",
    "llama-attention", "llama-layer", "llama", "llama-names", "step",
]
# fmt: on
NAMES = ["imports", *(f"transformer-{part}" for part in PARTS)]
EPS = torch.finfo(torch.float64).eps
# A number passes through about six sums in a layer, of at most 4h products each. Here h ≤ 32 and
# there are at most three layers: 3 · (5 · 32 + 128) / 2 = 432 roundings at worst.
BOUND = 1000

few = settings(max_examples=20, deadline=None, derandomize=True)
shapes = st.fixed_dictionaries(
    {
        "vocab_size": st.integers(3, 40),
        "context": st.integers(4, 12),
        "num_layers": st.integers(1, 3),
        "num_heads": st.sampled_from([1, 2, 4]),
        "hidden_size": st.sampled_from([8, 16, 32]),
    }
)


@pytest.fixture(scope="module")
def ch():
    return run(sources("03"), NAMES)


def apart(ours, theirs):
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def padding(lengths, time):
    return torch.arange(time) < torch.tensor(lengths)[:, None]


@few
@given(
    seed=st.integers(0, 999),
    cross=st.booleans(),
    pre_norm=st.booleans(),
    activation=st.sampled_from([F.relu, F.gelu]),
    size=st.sampled_from([(8, 1), (8, 4), (24, 3), (32, 2)]),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    time=st.integers(1, 9),
)
def test_layers_are_torchs(ch, seed, cross, pre_norm, activation, size, lengths, time):
    torch.manual_seed(seed)
    ours, theirs = ch["twins"](cross, pre_norm, activation, *size)
    real = padding(lengths, 7)
    memory = torch.randn(len(lengths), 7, size[0], dtype=torch.float64)
    if cross:
        x = torch.randn(len(lengths), time, size[0], dtype=torch.float64)
        causal = torch.ones(time, time, dtype=torch.bool).tril()
        got = ours(x, causal, memory, real[:, None, None])
        want = theirs(x, memory, tgt_mask=~causal, memory_key_padding_mask=~real)
    else:
        got, want = ours(memory, real[:, None, None]), theirs(memory, src_key_padding_mask=~real)
    assert apart(got, want) <= BOUND * EPS


@few
@given(seed=st.integers(0, 999), shape=shapes)
def test_the_decoder_is_the_labs_gpt(ch, seed, shape):
    torch.manual_seed(seed)
    lab_model = ch["shake"](GPT(GPTConfig(**shape)).double())
    decoder = ch["gpt_shape"](**shape).double()
    decoder.load_state_dict(ch["rename"](lab_model.state_dict(), {"blocks": "layers"}))
    tokens = torch.randint(shape["vocab_size"], (2, shape["context"]))
    assert apart(ch["logits"](decoder, tokens), lab_model(tokens)) <= BOUND * EPS


@few
@given(seed=st.integers(0, 999), shape=shapes)
def test_the_decoder_is_gpt2(ch, seed, shape):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["context"],
        n_layer=shape["num_layers"],
        n_head=shape["num_heads"],
        n_embd=shape["hidden_size"],
        bos_token_id=None,
        eos_token_id=None,
    )
    gpt2 = ch["shake"](GPT2LMHeadModel(config).double())
    decoder = ch["gpt_shape"](**shape).double()
    decoder.load_state_dict(ch["from_gpt2"](gpt2.transformer.state_dict()))
    tokens = torch.randint(shape["vocab_size"], (2, shape["context"]))
    assert apart(ch["logits"](decoder, tokens), gpt2(tokens).logits) <= BOUND * EPS


@few
@given(seed=st.integers(0, 999), shape=shapes, data=st.data())
def test_the_cache_changes_nothing_however_the_text_is_cut(ch, seed, shape, data):
    torch.manual_seed(seed)
    time = shape["context"]
    model = ch["shake"](ch["gpt_shape"](**shape).double())
    tokens = torch.randint(shape["vocab_size"], (2, time))
    cuts = sorted(data.draw(st.sets(st.integers(1, time - 1))))
    rows, cache = [], None
    for start, end in zip([0, *cuts], [*cuts, time], strict=True):
        row, cache = ch["step"](model, tokens[:, start:end], cache)
        rows.append(row)
    assert apart(torch.cat(rows, 1), ch["logits"](model, tokens)) <= BOUND * EPS
    numbers = sum(tensor.numel() for pair in cache for tensor in pair)
    assert numbers == 2 * shape["num_layers"] * 2 * time * shape["hidden_size"]


@few
@given(
    seed=st.integers(0, 999),
    heads=st.sampled_from([(1, 1), (4, 1), (4, 2), (4, 4), (6, 3)]),
    time=st.integers(1, 9),
    size=st.integers(1, 16),
)
def test_grouped_attention_is_torchs(ch, seed, heads, time, size):
    torch.manual_seed(seed)
    query = torch.randn(2, heads[0], time, size, dtype=torch.float64)
    key, value = torch.randn(2, 2, heads[1], time, size, dtype=torch.float64)
    causal = torch.ones(time, time, dtype=torch.bool).tril()
    theirs = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert apart(ch["grouped_attend"](query, key, value, causal), theirs) <= BOUND * EPS


@few
@given(
    seed=st.integers(0, 999),
    heads=st.sampled_from([(1, 1), (4, 1), (4, 2), (4, 4)]),
    size=st.sampled_from([2, 4, 8]),
    mlp_size=st.integers(1, 40),
    num_layers=st.integers(1, 3),
    time=st.integers(1, 20),
)
def test_llama_is_transformers(ch, seed, heads, size, mlp_size, num_layers, time):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = (20, num_layers, size * heads[0], *heads, mlp_size)
    config = LlamaConfig(
        vocab_size=shape[0],
        num_hidden_layers=num_layers,
        hidden_size=shape[2],
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        intermediate_size=mlp_size,
    )
    theirs, ours = ch["shake"](LlamaForCausalLM(config)), ch["Llama"](*shape)
    ours.load_state_dict(ch["rename"](theirs.state_dict(), ch["LLAMA"]))
    tokens = torch.randint(20, (2, time))
    # Their norms and angles are float32 in any dtype.
    bound = BOUND * torch.finfo(torch.float32).eps
    assert apart(ours(tokens), theirs(tokens).logits) <= bound


@few
@given(
    seed=st.integers(0, 999),
    half=st.integers(1, 32),
    start=st.integers(-1000, 1000),
    shift=st.integers(-1000, 1000),
)
def test_rotary_knows_distance_only_and_keeps_length(ch, seed, half, start, shift):
    torch.manual_seed(seed)
    q, k = torch.randn(2, 5, 2 * half, dtype=torch.float64)
    here, there = torch.arange(5) + start, torch.arange(5) + start + shift
    scores = [ch["rotate"](q, p) @ ch["rotate"](k, p).T for p in (here, there)]
    # An angle up to 2005 is rounded by 2005 · EPS / 2, in query and key, here and there.
    assert (scores[0] - scores[1]).abs().max() <= 4 * 2005 * EPS * q.norm() * k.norm()
    turned = ch["rotate"](q, there)
    assert torch.allclose(turned.norm(dim=-1), q.norm(dim=-1), rtol=2 * half * 4 * EPS, atol=0)


@few
@given(half=st.integers(1, 32), t=st.integers(0, 1000), k=st.integers(-1000, 1000))
def test_a_shift_of_a_sinusoid_is_a_rotation(ch, half, t, k):
    size = 2 * half
    moved = ch["sinusoid"](torch.tensor([t + k]), size)
    turned = ch["sinusoid"](torch.tensor([t]), size) @ ch["rotation"](k, size).T
    assert (moved - turned).abs().max() <= 4 * 2000 * EPS  # angles up to 2000, three of them


@few
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 5),
    size=st.integers(1, 64),
    scale=st.floats(1e-3, 1e3),
)
def test_rms_norm_is_torchs(ch, seed, rows, size, scale):
    torch.manual_seed(seed)
    x = scale * torch.randn(rows, size, dtype=torch.float64)
    ours, theirs = ch["RMSNorm"](size).double(), torch.nn.RMSNorm(size, eps=1e-6).double()
    weight = torch.randn(size, dtype=torch.float64)
    ours.load_state_dict({"weight": weight})
    theirs.load_state_dict({"weight": weight})
    assert torch.allclose(ours(x), theirs(x), rtol=(size + 4) * EPS, atol=0)


def test_a_mask_that_is_shifted_wrongly_would_be_seen(ch):
    """The bound is tight enough to notice one key too many."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, 6, 4, dtype=torch.float64)
    right = ch["attend"](query, key, value, ch["causal_mask"](6))
    wrong = ch["attend"](query, key, value, torch.ones(6, 6, dtype=torch.bool).tril(1))
    assert apart(wrong, right) > math.sqrt(EPS)
