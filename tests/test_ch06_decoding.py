"""Chapter 6's decoding by hand equals transformers' `generate`, token by token or in distribution."""

import random
from functools import cache

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

CELLS = ["setup-6-2-b", "next-6-2-b", "write-on-6-2-b", "greedy-6-2-b", "grow-6-2-b", "beam-6-2-b",
         "weather-6-2-b", "filters-6-2-b", "kept-6-2-b", "draw-6-2-b", "positions-6-2-b"]
END, PAD, VOCABULARY, NEW = 0, 1, 50, 10
RANDOM = settings(max_examples=60, deadline=None, derandomize=True)


@cache
def chapter() -> dict:
    return run(sources("06"), CELLS)


@cache
def tiny(dtype: torch.dtype = torch.float64) -> GPT2LMHeadModel:
    """A small random model with large weights, so that its choices differ and some texts end."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4,
                        bos_token_id=END, eos_token_id=END, pad_token_id=PAD)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, weights in model.named_parameters():
        if "ln" not in name and weights.ndim == 2:
            weights.normal_(0, 0.35)
    model.transformer.wte.weight[END] *= 1.6
    return model.to(dtype)


@cache
def prompts(count: int = 200) -> list[list[int]]:
    """Prompts of 1 to 12 tokens; `<end>` and `<pad>` occur in some."""
    chance = random.Random(0)
    return [[chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 12))] for _ in range(count)]


def left(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows padded on the left, and their mask."""
    longest = max(map(len, rows))
    return (torch.tensor([[PAD] * (longest - len(row)) + row for row in rows]),
            torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]))


def new_tokens(row: list[int]) -> list[int]:
    """What was written, up to `<end>`: padding after it does not count."""
    return row[:row.index(END) + 1] if END in row else row


def theirs(model, rows: list[list[int]], new: int = NEW, **how) -> list[list[int]]:
    """What `generate` writes after each of the rows, given as one batch."""
    tokens, mask = left(rows)
    flags = {"do_sample": False, "max_new_tokens": new, "pad_token_id": PAD, "eos_token_id": END} | how
    written = model.generate(tokens, attention_mask=mask, **flags)
    return [new_tokens(row) for row in written[:, tokens.shape[1]:].tolist()]


def ours(model, rows: list[list[int]], rule, cached: bool, new: int = NEW) -> list[list[int]]:
    tokens, mask = left(rows)
    written = chapter()["write_on"](model, tokens, mask, new, rule, DynamicCache() if cached else None)
    return [new_tokens(row) for row in written[:, tokens.shape[1]:].tolist()]


def in_batches(rows: list, size: int) -> list[list]:
    return [rows[start:start + size] for start in range(0, len(rows), size)]


def together(rows: list[list[int]], decode) -> list[list[int]]:
    """What `decode` writes after batches of eight rows."""
    return [new for batch in in_batches(rows, 8) for new in decode(batch)]


@pytest.mark.parametrize("cached", [True, False], ids=["cache", "no cache"])
def test_greedy_is_generate_alone_and_in_batches(cached):
    greedy = chapter()["greedy"]
    alone = [ours(tiny(), [row], greedy, cached)[0] for row in prompts()]
    assert alone == [theirs(tiny(), [row], use_cache=cached)[0] for row in prompts()]
    assert alone == together(prompts(), lambda batch: ours(tiny(), batch, greedy, cached))
    assert alone == together(prompts(), lambda batch: theirs(tiny(), batch, use_cache=cached))
    ended = sum(row[-1] == END for row in alone)
    assert 20 <= ended <= 180  # else `<end>` was not tried
    assert len({tuple(row) for row in alone}) > 100  # else the model says the same to all


def test_the_comparison_of_batches_can_fail():
    """Padding on the right, or positions that count the padding, gives other texts."""
    model, batch = tiny(), prompts()[:64]
    alone = [theirs(model, [row], new=1)[0] for row in batch]
    tokens, mask = left(batch)
    counted = model(tokens, attention_mask=mask).logits[:, -1].argmax(-1).tolist()
    assert sum([token] == row for token, row in zip(counted, alone, strict=True)) < 48
    right = torch.tensor([[*row, *[PAD] * (12 - len(row))] for row in batch])
    after_padding = model(right).logits[:, -1].argmax(-1).tolist()
    assert sum([token] == row for token, row in zip(after_padding, alone, strict=True)) < 48


def beam(model, row: list[int], beams: int, alpha: float, cached: bool,
         new: int = NEW) -> tuple[float, list[int]]:
    score, tokens = chapter()["beam_search"](model, torch.tensor([row]), beams, new, alpha,
                                             DynamicCache() if cached else None)
    return score, tokens[len(row):].tolist()


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.4])
def test_beam_search_is_generate(beams, alpha):
    """200 prompts with a cache against batches of 8; every fourth one without, and against batches of 1."""
    how = {"num_beams": beams, "length_penalty": alpha}
    found = [beam(tiny(), row, beams, alpha, cached=True)[1] for row in prompts()]
    assert found == together(prompts(), lambda batch: theirs(tiny(), batch, **how))
    for i in range(0, 200, 4):
        row = prompts()[i]
        assert found[i] == beam(tiny(), row, beams, alpha, cached=False)[1]
        assert found[i] == theirs(tiny(), [row], use_cache=i % 8 == 0, **how)[0]
    ended = [row for row in found if row[-1] == END]
    assert len(ended) >= 20 and any(len(row) < NEW for row in ended)


def test_beams_differ_from_greedy_and_a_penalty_from_none():
    """Or the test above would compare one thing six times."""
    greedy = [theirs(tiny(), [row])[0] for row in prompts()[:60]]
    for one, other in (((2, 0.0), (4, 0.0)), ((4, 0.0), (4, 1.4))):
        pair = [[beam(tiny(), row, *how, cached=True)[1] for row in prompts()[:60]] for how in (one, other)]
        assert pair[0] != pair[1] != greedy != pair[0]
    assert greedy == [beam(tiny(), row, 1, 1.0, cached=True)[1] for row in prompts()[:60]]


def test_the_score_is_the_log_probability_over_a_power_of_the_length():
    for row in prompts()[:20]:
        for alpha in (0.0, 1.0, 1.4):
            score, new = beam(tiny(), row, 3, alpha, cached=True)
            logits = tiny()(torch.tensor([row + new])).logits[0, len(row) - 1:-1]
            log_p = logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None]).sum().item()
            assert score == pytest.approx(log_p / len(new)**alpha, rel=1e-4)
            tokens = torch.tensor([row])
            known = tiny().generate(tokens, attention_mask=torch.ones_like(tokens), num_beams=3,
                                    length_penalty=alpha, max_new_tokens=NEW, do_sample=False,
                                    return_dict_in_generate=True, output_scores=True)
            assert score == pytest.approx(known.sequences_scores.item(), rel=1e-4)


def test_the_picture_of_the_beam():
    names, search, model = (chapter()[name] for name in ("weather_words", "beam_search", "weather_model"))
    for beams, text, chance in ((1, "be cold", 0.20), (2, "rain today", 0.36), (3, "rain today", 0.36)):
        score, tokens = search(model, torch.tensor([[2]]), beams, 5, 0.0)
        assert " ".join(names[token] for token in tokens[1:-1]) == text
        assert score == pytest.approx(torch.tensor(chance).log().item(), rel=1e-5)


def test_the_real_backbone_decodes_as_generate_does():
    model = chapter()["backbone"]
    texts = chapter()["english_dev"][40:240:20]
    rows = [ids[:n] for ids, n in zip(texts, range(2, 12), strict=True)]
    greedy = chapter()["greedy"]
    for size in (1, 5):
        for batch in in_batches(rows, size):
            assert ours(model, batch, greedy, True, 20) == theirs(model, batch, 20)
    for alpha in (0.0, 1.0, 1.4):
        for row in rows[::3]:
            known = theirs(model, [row], 20, num_beams=4, length_penalty=alpha)[0]
            assert beam(model, row, 4, alpha, True, 20)[1] == known


# ---------------------------------------------------------------- cuts


def logits_of(seed: int, size: int, ties: bool) -> torch.Tensor:
    torch.manual_seed(seed)
    drawn = torch.randn(3, size) * 3
    return drawn.round() if ties else drawn


many = st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans()


@RANDOM
@given(*many, st.integers(1, 60))
def test_top_k(seed, size, ties, k):
    logits = logits_of(seed, size, ties)
    kept = chapter()["top_k"](logits, k)
    assert torch.equal(kept, TopKLogitsWarper(k)(None, logits))
    assert (kept.isfinite().sum(-1) >= min(k, size)).all()
    if not ties:
        assert (kept.isfinite().sum(-1) == min(k, size)).all()


@RANDOM
@given(*many, st.sampled_from([1e-9, 0.1, 0.5, 0.8, 0.9, 0.99, 1.0]))
def test_top_p(seed, size, ties, p):
    logits = logits_of(seed, size, ties)
    kept = chapter()["top_p"](logits, p)
    assert torch.equal(kept, TopPLogitsWarper(p)(None, logits))
    if not ties:  # the fewest likeliest tokens that reach p, by another way
        for row, chances in zip(kept, logits.double().softmax(-1).tolist(), strict=True):
            wanted, mass = set(), 0.0
            for token in sorted(range(size), key=lambda token: -chances[token]):
                if mass >= p - 1e-6:
                    break
                wanted.add(token)
                mass += chances[token]
            got = set(row.isfinite().nonzero()[:, 0].tolist())
            assert got == wanted or abs(mass - p) < 1e-5 or p == 1.0 or (p < 1e-6 and len(got) == 1)


@RANDOM
@given(*many, st.sampled_from([0.0, 1e-9, 0.05, 0.1, 0.5, 1.0]))
def test_min_p(seed, size, ties, share):
    logits = logits_of(seed, size, ties)
    kept = chapter()["min_p"](logits, share)
    assert torch.equal(kept, MinPLogitsWarper(share)(None, logits))
    chances = logits.double().softmax(-1)
    bar = share * chances.amax(-1, keepdim=True)
    clear = (chances - bar).abs() > 1e-6 * bar
    assert torch.equal(kept.isfinite()[clear], (chances > bar)[clear])


@RANDOM
@given(*many, st.floats(0.05, 5))
def test_temperature_divides(seed, size, ties, temperature):
    logits = logits_of(seed, size, ties)
    assert torch.equal(logits / temperature, TemperatureLogitsWarper(temperature)(None, logits))


# ---------------------------------------------------------------- drawing


def cuts() -> list[tuple]:
    draw, top_k, top_p, min_p = (chapter()[name] for name in ("draw", "top_k", "top_p", "min_p"))
    return [
        (draw, {"top_k": 0}),
        (lambda logits: draw(top_k(logits / 0.7, 5)), {"temperature": 0.7, "top_k": 5}),
        (lambda logits: draw(top_p(logits / 1.3, 0.8)), {"temperature": 1.3, "top_k": 0, "top_p": 0.8}),
        (lambda logits: draw(min_p(logits, 0.1)), {"top_k": 0, "min_p": 0.1}),
        (lambda logits: draw(top_k(logits, 50)), {}),  # generate's own 50
        (lambda logits: draw(min_p(top_p(top_k(logits / 2.0, 9), 0.7), 0.2)),
         {"temperature": 2.0, "top_k": 9, "top_p": 0.7, "min_p": 0.2})]


@pytest.mark.parametrize("number", range(6))
def test_the_same_dice_draw_the_same_texts(number):
    (rule, flags), model = cuts()[number], tiny(torch.float32)
    for batch in in_batches(prompts()[:64], 8):
        torch.manual_seed(11)
        drawn = ours(model, batch, rule, cached=True)
        torch.manual_seed(11)
        assert drawn == theirs(model, batch, do_sample=True, **flags)


def pair_chances(model, row: list[int], temperature: float, p: float) -> dict[tuple, float]:
    """Exact probabilities of the next two tokens (one, if it is `<end>`), by a top-p of another kind."""

    def after(tokens: list[int]) -> dict[int, float]:
        chances = (model(torch.tensor([tokens])).logits[0, -1].double() / temperature).softmax(-1).tolist()
        kept, mass = {}, 0.0
        for token in sorted(range(VOCABULARY), key=lambda token: -chances[token]):
            if mass < p:
                kept[token], mass = chances[token], mass + chances[token]
        return {token: chance / mass for token, chance in kept.items()}

    found: dict[tuple, float] = {}
    for first, chance in after(row).items():
        if first == END:
            found[(first,)] = chance
        else:
            found |= {(first, second): chance * q for second, q in after([*row, first]).items()}
    return found


def p_value(drawn: list[list[int]], chances: dict[tuple, float]) -> float:
    """Pearson's chi-square; pairs expected fewer than 5 times are one class, others' appearance is 0."""
    counts = dict.fromkeys(chances, 0)
    for row in drawn:
        if tuple(row) not in counts:
            return 0.0
        counts[tuple(row)] += 1
    expected = {pair: chance * len(drawn) for pair, chance in chances.items()}
    often = [pair for pair in chances if expected[pair] >= 5]
    seen = [counts[pair] for pair in often]
    wanted = [expected[pair] for pair in often]
    if len(often) < len(chances):
        seen.append(len(drawn) - sum(seen))
        wanted.append(len(drawn) - sum(wanted))
    return stats.chisquare(seen, wanted, sum_check=False).pvalue


@pytest.mark.parametrize("by", ["hand", "generate"])
def test_drawn_texts_have_the_exact_frequencies(by):
    """6 000 pairs; the control draws with another temperature from the same tokens, and is found out."""
    model, row = tiny(torch.float32), [7, 7, 31]
    draw, top_p = chapter()["draw"], chapter()["top_p"]
    chances = pair_chances(model, row, 3.0, 0.9)
    assert len(chances) > 20
    found, rows = {}, [row] * 6000
    for heat in (3.0, 2.6):
        torch.manual_seed(5)
        if by == "hand":
            found[heat] = ours(model, rows, lambda logits, t=heat: draw(top_p(logits / t, 0.9)), True, 2)
        else:
            found[heat] = theirs(model, rows, 2, do_sample=True, temperature=heat, top_k=0, top_p=0.9)
    assert p_value(found[3.0], chances) > 1e-3
    assert p_value(found[2.6], chances) < 1e-9


def test_the_defaults_that_the_chapter_warns_of():
    """20 new tokens, greedy; 50 candidates when drawing, also where only top_p is set."""
    model, tokens = chapter()["backbone"], chapter()["openings"][:1]
    how = {"attention_mask": torch.ones_like(tokens), "suppress_tokens": [END]}
    written = model.generate(tokens, **how)[0, tokens.shape[1]:].tolist()
    assert len(written) == 20
    assert written == model.generate(tokens, do_sample=False, max_new_tokens=20, **how)[0, -20:].tolist()
    how = {"attention_mask": torch.ones_like(tokens), "do_sample": True, "max_new_tokens": 1,
           "output_scores": True, "return_dict_in_generate": True}
    for flags, most in (({}, 50), ({"top_p": 0.99}, 50), ({"top_k": 0, "top_p": 0.999999}, 6144)):
        kept = int(model.generate(tokens, **how, **flags).scores[0].isfinite().sum())
        assert kept == 50 if flags == {} else kept <= 50 if most == 50 else kept > 50


# ---------------------------------------------------------------- the cache


@RANDOM
@given(st.integers(1, 12), st.integers(1, 20))
def test_positions_and_bytes_of_the_cache(m, n):
    tokens, model = torch.arange(2, 2 + m)[None], tiny(torch.float32)
    count = chapter()["count_positions"]
    plain, _, without = count(model, tokens, n)
    cache = DynamicCache()
    cached, _, with_cache = count(model, tokens, n, cache)
    assert (plain, cached) == (n * m + n * (n - 1) // 2, m + n - 1)
    assert torch.equal(without, with_cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 2 * 2 * 32 * 4 * (m + n - 1)
