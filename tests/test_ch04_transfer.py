"""Chapter 4's LoRA, merge, paired bootstrap and counts of bytes and FLOPs, on shapes nobody chose."""

from functools import cache

import numpy as np
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

CELLS = ["imports", "paired-bootstrap", "lora", "lora-merge", "lora-peft", "train-steps",
         "cost-formulas", "lora-flops"]
SIZES = st.integers(1, 9)
few = settings(max_examples=20, deadline=None, derandomize=True)


@cache
def chapter() -> dict:
    return run(sources("04"), CELLS)


def network(into: int, middle: int, out: int, seed: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(into, middle), nn.Tanh(), nn.Linear(middle, out)).double()
    return net, torch.randn(7, into).double(), torch.randn(7, out).double()


@few
@given(SIZES, SIZES, SIZES, st.integers(1, 12), st.integers(1, 32), st.integers(0, 5), st.integers(0, 99))
def test_lora_is_pefts(into, middle, out, rank, alpha, steps, seed):
    plain, X, Y = network(into, middle, out, seed)
    mine = chapter()["with_lora"](plain, ("0", "2"), rank, alpha)
    theirs = chapter()["same_in_peft"](mine, plain, ("0", "2"), rank, alpha)
    first = mine(X)
    assert torch.equal(first, plain(X))  # B = 0: nothing has changed, to the last bit
    results = [chapter()["train_steps"](model, X, Y, steps) for model in (mine, theirs)]
    # ε = 2.2e-16 over sums of under 100 terms; a large alpha lets weights grow: relative to their size
    for a, b in zip(*results, strict=True):
        for p, q in zip([a] if torch.is_tensor(a) else a, [b] if torch.is_tensor(b) else b, strict=True):
            if p is not None:
                size = max(1.0, *(w.abs().max().item() for w in results[0][2]))
                torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11 * size)
    merged = chapter()["merged"](mine[0])
    torch.testing.assert_close(nn.functional.linear(X, merged, mine[0].base.bias), mine[0](X),
                               rtol=1e-10, atol=1e-12 * merged.abs().max().item() + 1e-12)
    change = (merged - plain[0].weight).detach()
    sizes = torch.linalg.svdvals(change)
    assert int((sizes > 1e-10 * (merged.abs().max() + 1)).sum()) <= rank
    assert all(p.requires_grad == name.endswith((".A", ".B")) for name, p in mine.named_parameters())


@few
@given(st.integers(1, 4), st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.integers(2, 40),
       st.integers(1, 9))
def test_flops_of_a_step_with_lora(batch, context, layers, heads, vocab, rank):
    names = chapter()
    hidden = 4 * heads
    torch.manual_seed(0)
    gpt = names["models"].GPT(names["models"].GPTConfig(vocab, context, layers, heads, hidden))
    x, y = torch.randint(vocab, (2, batch, context))
    adapted = names["with_lora"](gpt, ("qkv",), rank, 2 * rank)
    assert names["counted_flops"](adapted, x, y) == names["lora_step_flops"](batch, context, layers, hidden,
                                                                             vocab, rank)


@few
@given(st.integers(10, 200), st.sampled_from([32, 64]), st.integers(1, 3), st.integers(1, 9))
def test_weights_of_each_way(vocab, hidden, layers, rank):
    from transformers import ModernBertConfig, ModernBertForSequenceClassification
    config = ModernBertConfig(
        vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * hidden, num_labels=2, pad_token_id=0, cls_token_id=2, bos_token_id=2,
        sep_token_id=3, eos_token_id=3)
    model = ModernBertForSequenceClassification(config)
    total = sum(p.numel() for p in model.parameters())
    assert chapter()["trained_and_all"]("full", vocab, hidden, layers, rank) == (total, total)
    adapted = chapter()["with_lora"](model, ("attn.Wqkv", "attn.Wo"), rank, 1)
    adapted.classifier.requires_grad_(True)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    every = sum(p.numel() for p in adapted.parameters())
    assert chapter()["trained_and_all"]("lora", vocab, hidden, layers, rank) == (trained, every)


@few
@given(st.integers(2, 80), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_paired_bootstrap(reviews, first, second, seed):
    paired, chance = chapter()["paired"], np.random.default_rng(seed)
    a, b = chance.random((first, reviews)) < 0.7, chance.random((second, reviews)) < 0.5
    low, mean, high = paired(a, b)
    assert np.isclose(mean, a.mean() - b.mean(), atol=1e-12) and -1 <= low <= high <= 1
    other = paired(b, a)  # the same draws: the interval turned round
    assert np.allclose([-high, -mean, -low], other, atol=1e-12)
    assert paired(a, a) == (0, 0, 0)
    # the bootstrap's spread is the standard error; 2,000 draws know a quantile to some 5 %, few
    # reviews make it coarse by 1/n
    if reviews >= 20:
        error = (a.mean(0) - b.mean(0)).std() / reviews**0.5
        assert abs((high - low) - 2 * 1.96 * error) <= 0.25 * (2 * 1.96 * error) + 2 / reviews
