"""Section 3.1's own cells on text and programs that the author did not choose."""

from functools import cache

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

CELLS = ["imports", "utf8-by-hand", "bpe-merge", "bpe-bytes", "bpe-split", "bpe-tally",
         "bpe-start", "bpe-train", "bpe-library", "bpe-encode", "sgns-gradient", "sgns-noise",
         "sgns-expected"]
COMMON = settings(max_examples=30, deadline=None, derandomize=True)
# few letters make ties, runs such as aaaa, and tokens that can be built in two ways
few = st.text("ab 中é", min_size=1, max_size=30)
texts = st.lists(few | st.text(max_size=30), min_size=1, max_size=12)


@cache
def chapter() -> dict:
    return run(sources("03"), CELLS)


def trained(texts: list[str], vocab_size: int) -> tuple:
    c = chapter()
    tokens, merges = c["train_bpe"](c["count_pieces"](texts), vocab_size)
    return tokens, merges, c["library_bpe"](texts, vocab_size)


@COMMON
@given(texts, st.integers(257, 330))
def test_merges_and_numbers_equal_the_library(texts, vocab_size):
    c = chapter()
    tokens, merges, library = trained(texts, vocab_size)
    visible = [c["visible"](token) for token in tokens]
    assert [(visible[a], visible[b]) for a, b in merges] == c["library_merges"](library)
    assert {token: i for i, token in enumerate(visible)} == library.get_vocab()


@COMMON
@given(texts, st.text("ab 中é", max_size=40) | st.text(max_size=40))
def test_encodings_equal_the_library(texts, new):
    _, merges, library = trained(texts, 300)
    assert chapter()["encode_text"](new, merges) == library.encode(new).ids


@COMMON
@given(texts, st.binary(max_size=60))
def test_any_bytes_come_back(texts, some):
    c = chapter()
    tokens, merges = c["train_bpe"](c["count_pieces"](texts), 300)
    assert c["decode_bytes"](c["encode_piece"](some, merges), tokens) == some


@pytest.mark.parametrize("some", [b"", b"\x00" * 5, b"\xff\xfe\xe4\xb8", "🙂👩‍👩‍👧".encode()])
def test_awkward_bytes_come_back(some):
    test_any_bytes_come_back.hypothesis.inner_test(["🙂🙂 中中", "\x00\x00\x00"], some)


@COMMON
@given(st.text(max_size=60))
def test_pieces_are_a_cut_of_the_text(text):
    assert "".join(chapter()["PIECES"].findall(text)) == text


@COMMON
@given(st.lists(st.integers(0, 2), max_size=20), st.integers(0, 2), st.integers(0, 2))
def test_merge_joins_what_replace_joins(tokens, a, b):
    """str.replace also goes from left to right, without overlap."""
    as_text = "".join("xyz"[t] for t in tokens).replace("xyz"[a] + "xyz"[b], "n")
    merged = chapter()["merge"](tokens, (a, b), 3)
    assert "".join("xyzn"[t] for t in merged) == as_text


@COMMON
@given(st.integers(2, 9), st.integers(1, 7), st.integers(1, 20), st.integers(1, 6),
       st.integers(0, 10**6))
def test_skip_gram_gradients_equal_autograd(size, width, batch, k, seed):
    g = torch.Generator().manual_seed(seed)
    U, V = torch.randn(2, size, width, generator=g, dtype=torch.float64).requires_grad_()
    words = torch.randint(size, (batch,), generator=g)
    contexts = torch.randint(size, (batch, 1 + k), generator=g)
    loss, *by_hand = chapter()["sgns"](U, V, words, contexts)
    u, v = F.embedding(words, U), F.embedding(contexts, V)
    scores = (v @ u[:, :, None])[:, :, 0]
    direct = -(F.logsigmoid(scores[:, 0]) + F.logsigmoid(-scores[:, 1:]).sum(1)).mean()
    # up to 20 × 7 terms, each a few units large: 140 × 5 × 2.2e-16, and a factor of ten
    assert abs(loss - direct) < 1e-12
    for mine, theirs in zip(by_hand, torch.autograd.grad(direct, (U, V)), strict=True):
        assert (mine - theirs).abs().max() < 2e-12
    absent = [i for i in range(size) if i not in words]
    assert not by_hand[0][absent].any()
