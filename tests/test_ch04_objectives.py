"""Chapter 4's corruptions, masks and network on lengths, rates and texts nobody chose."""

from functools import cache

import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

CELLS = ["imports", "objectives-causal", "objectives-masked", "objectives-span",
         "objectives-noise", "objectives-restore", "objectives-mask", "objectives-attention",
         "objectives-backbone", "objectives-batch"]
RANDOM = settings(max_examples=40, deadline=None, derandomize=True)
EPSILON = torch.finfo(torch.float32).eps
seeds = st.integers(0, 2**32 - 1)
MASK, SENTINEL, VOCAB = 256, 257, 264


@cache
def chapter() -> dict:
    return run(sources("04"), CELLS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@RANDOM
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40))
def test_any_cut_is_put_back(places):
    """Whatever is cut out, at either end too: input and target together hold the text."""
    tokens, noise = (torch.tensor(column) for column in zip(*places, strict=True))
    inputs, targets = chapter()["span_task"](tokens, noise, 10)
    assert chapter()["restore"](inputs, targets, 10) == tokens.tolist()
    gaps = sum(cut and not before for cut, before
               in zip(noise.tolist(), [False, *noise.tolist()], strict=False))
    assert inputs[inputs >= 10].tolist() == list(range(10, 10 + gaps))
    assert targets[targets >= 10].tolist() == list(range(10, 11 + gaps))
    assert inputs[inputs < 10].tolist() == tokens[~noise].tolist()
    assert targets[targets < 10].tolist() == tokens[noise].tolist()


@RANDOM
@given(st.integers(2, 300), st.floats(0.05, 0.4), st.integers(1, 6), seeds)
def test_noise_has_t5s_counts(length, rate, mean, seed):
    noise = chapter()["span_noise"](length, seeded(seed), rate, mean)
    cut = min(max(round(length * rate), 1), length - 1)
    starts = noise & ~F.pad(noise[:-1], (1, 0))
    assert (len(noise), noise.sum(), starts.sum()) == (length, cut, max(round(cut / mean), 1))
    assert not noise[0] and noise[-1]


@RANDOM
@given(st.integers(1, 5), st.integers(1, 60), st.floats(0, 1), seeds)
def test_masked_task_changes_only_what_it_asks_for(rows, time, rate, seed):
    tokens = torch.randint(MASK, (rows, time), generator=seeded(seed))
    before = tokens.clone()
    inputs, targets = chapter()["mask_tokens"](tokens, seeded(seed + 1), rate=rate)
    chosen = targets != -100
    assert torch.equal(tokens, before)
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    assert inputs.max() <= MASK


@RANDOM
@given(st.integers(1, 4), st.integers(2, 20), st.integers(2, 50), seeds)
def test_causal_loss_is_the_librarys(rows, time, size, seed):
    logits = torch.randn(rows, time, size, generator=seeded(seed))
    tokens = torch.randint(size, (rows, time), generator=seeded(seed))
    _, targets = chapter()["causal_task"](tokens)
    ours = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())
    theirs = ForCausalLMLoss(logits, labels=tokens, vocab_size=size)
    assert (ours - theirs).abs() <= 16 * EPSILON * max(1, theirs.abs())


@RANDOM
@given(st.integers(1, 12), st.data(), seeds)
def test_a_token_moves_only_those_who_may_see_it(time, data, seed):
    """Exact: a weight of e^-inf is 0, and 0 times anything finite adds nothing."""
    prefix = data.draw(st.integers(0, time))
    place = data.draw(st.integers(0, time - 1))
    allowed = chapter()["prefix_mask"](time, prefix)
    by_hand = [[j <= i or j < prefix for j in range(time)] for i in range(time)]
    assert allowed.tolist() == by_hand
    torch.manual_seed(seed)
    model = chapter()["Backbone"](width=16, layers=2, heads=4)
    tokens = torch.randint(256, (2, time))
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % VOCAB
    with torch.no_grad():
        moved = (model(tokens, allowed) != model(changed, allowed)).any(-1).any(0)
    assert torch.equal(moved, allowed[:, place])


@RANDOM
@given(st.sampled_from(["causal", "masked", "span"]), st.integers(1, 4), seeds)
def test_every_objective_pays_for_64_places(objective, rows, seed):
    windows = torch.randint(256, (rows, 65), generator=seeded(seed))
    inputs, targets, prefix = chapter()["make_batch"](objective, windows, seeded(seed))
    assert inputs.shape == targets.shape == (rows, 64)
    asked = targets != -100
    if objective == "causal":
        assert prefix == 0 and torch.equal(targets, windows[:, 1:])
    if objective == "masked":
        assert prefix == 64 and torch.equal(targets[asked], windows[:, :64][asked])
    if objective == "span":  # never asks for what the prefix shows, and for all that follows
        assert torch.equal(asked, (torch.arange(64) >= prefix - 1).expand(rows, -1))
        for row, target, window in zip(inputs, targets, windows, strict=True):
            answer = target[prefix - 1 :]
            assert chapter()["restore"](row[:prefix], answer) == window[:58].tolist()
            assert torch.equal(row[prefix:], answer[:-1])
