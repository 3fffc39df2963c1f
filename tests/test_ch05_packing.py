"""Chapter 5's packing, on documents that the author did not choose: nothing lost, nothing leaks."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import models

few = settings(max_examples=40, deadline=None, derandomize=True)
documents = st.lists(st.lists(st.integers(0, 65535), max_size=9), min_size=1, max_size=12)
lengths = st.lists(st.integers(1, 40), max_size=60)


@cache
def chapter():
    return run(sources("05"), ["imports", "tokens-file", "pack-best-fit", "pack-pieces",
                                "pack-mask", "pack-forward", "pack-losses"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@few
@given(documents)
def test_a_token_file_reads_back_equal(folder, documents):
    chapter()["write_tokens"](documents, folder / "any")
    flat, starts = chapter()["open_tokens"](folder / "any")
    assert [flat[a : b - 1].tolist() for a, b in pairwise(starts)] == documents
    assert all(flat[starts[1:] - 1] == chapter()["END"]) and starts[-1] == len(flat)
    assert flat.dtype == np.uint16


def test_a_token_number_too_large_for_two_bytes_is_refused(folder):
    with pytest.raises(OverflowError):
        chapter()["write_tokens"]([[1, 65536]], folder / "large")


@few
@given(lengths, st.integers(1, 24))
def test_best_fit_places_every_piece_once_and_no_row_overflows(lengths, context):
    pieces = chapter()["pieces"](lengths, context)
    assert sum(pieces) == sum(lengths) and all(1 <= n <= context for n in pieces)
    rows = chapter()["best_fit"](pieces, context)
    assert sorted(i for row in rows for i in row) == list(range(len(pieces)))
    assert all(sum(pieces[i] for i in row) <= context for row in rows)
    # A row was begun only when no other had room, so no two rows could be one.
    full = sorted(sum(pieces[i] for i in row) for row in rows)
    assert len(full) < 2 or full[0] + full[1] > context


@few
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 2**31))
def test_packed_losses_are_those_of_each_document_alone(lengths, padding, seed):
    torch.manual_seed(seed)
    context = sum(lengths) + padding
    config = models.GPTConfig(vocab_size=11, context=context, num_layers=2, num_heads=2, hidden_size=8)
    model = models.GPT(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # at GPT's own 0.02 attention hardly matters
    tokens = torch.randint(11, (1, context))
    document, position = chapter()["layout"](lengths, context)
    with torch.no_grad():
        losses = chapter()["packed_losses"](model, tokens, document[None], position[None])[0]
        expected, at = torch.zeros(context, dtype=torch.float64), 0
        for n in lengths:
            for last in range(1, n):
                piece = tokens[:, at : at + last + 1]
                logits = model(piece[:, :-1])[0, -1]
                expected[at + last - 1] = torch.nn.functional.cross_entropy(logits, piece[0, -1])
            at += n
    # float64, ε 2.2e-16: losses below 100 from chains of some 20 sums of up to 32 terms
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)


@few
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 4))
def test_the_mask_shows_the_past_of_the_same_document_only(lengths, padding):
    context = sum(lengths) + padding
    document, position = chapter()["layout"](lengths, context)
    mask = chapter()["block_mask"](document)
    owner = [i for i, n in enumerate(lengths) for _ in range(n)]
    assert position[: len(owner)].tolist() == [i for n in lengths for i in range(n)]
    for query in range(len(owner)):
        for key in range(context):
            sees = key <= query and owner[key] == owner[query]
            assert mask[query, key] == sees
    assert mask.any(-1).all()  # a row of the mask without any key would give NaN
