"""Lab 4's own cells: weighted gradients on any ranks, files of any tensors."""

import json
import math
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from torch import nn

COMMON = settings(max_examples=40, deadline=None, derandomize=True)
NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@cache
def chapter() -> dict:
    return run(sources("04"), ["imports", "lab-weights", "lab-file-read", "lab-solve-mean", "lab-solve-file"])


class Scores(nn.Module):
    """As small as a masked model can be: logits of the inputs themselves."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(9, 7, dtype=torch.float64)

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.table(input_ids))


@COMMON
@given(st.data(), st.integers(1, 5), st.integers(0, 99))
def test_weights_give_the_gradient_of_the_whole_batch(draw, ranks, seed):
    """float64: a sum of at most 60 terms in another order, each rounded by 1e-16."""
    rows, length = draw.draw(st.integers(1, 3)), draw.draw(st.integers(2, 4))
    torch.manual_seed(seed)
    inputs = torch.randint(9, (ranks * rows, length))
    targets = torch.where(torch.rand(inputs.shape) < 0.5, torch.randint(7, inputs.shape), -100)
    targets[::rows, 0] = 0  # each rank has a target, at least
    shares = list(zip(inputs.split(rows), targets.split(rows), strict=True))
    counts = [int((share != -100).sum()) for _, share in shares]
    c, model = chapter(), Scores(seed)
    weights = c["rank_weights"](counts)
    assert math.isclose(sum(weights), ranks)
    whole = c["gradient"](model, [(inputs, targets)], [1.0])
    torch.testing.assert_close(c["gradient"](model, shares, weights), whole, rtol=1e-12, atol=1e-14)


@COMMON
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_files_of_any_tensors_are_read_to_the_bit(shapes, seed, with_metadata):
    chance = np.random.default_rng(seed)
    tensors = {name: chance.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    read = chapter()["read_safetensors"](save(tensors, {"format": "np"} if with_metadata else None))
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


@COMMON
@given(st.dictionaries(NAMES, SHAPES, min_size=1, max_size=4), st.integers(0, 99))
def test_the_answer_reads_bf16_as_torch_does(shapes, seed):
    from safetensors.torch import save

    torch.manual_seed(seed)
    tensors = {name: torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    blob = save(tensors)
    for name, tensor in tensors.items():
        got = chapter()["read_bf16"](blob, name)
        assert got.dtype == np.float32 and np.array_equal(got, tensor.float().numpy())


@COMMON
@given(st.lists(st.lists(st.floats(-50, 50), max_size=6), min_size=1, max_size=5).filter(any))
def test_the_answer_is_the_mean_over_all_ranks(losses):
    means = [float(np.mean(each)) if each else math.nan for each in losses]
    every = [x for each in losses for x in each]
    assert chapter()["batch_loss"](means, list(map(len, losses))) == pytest.approx(np.mean(every), abs=1e-12)


def test_a_header_of_another_format_is_not_read_as_numbers():
    blob = save({"a": np.ones(3, np.float32), "b": np.ones(3, np.int32)})
    assert json.loads(blob[8:8 + int.from_bytes(blob[:8], "little")])["b"]["dtype"] == "I32"
    assert chapter()["read_safetensors"](blob).keys() == {"a"}
