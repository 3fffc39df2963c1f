"""Chapter 2's optimizers, run from its own cells, beside torch's on random shapes and settings.

All in float64. A hundred steps of some ten roundings each are 1000 ε = 2e-13; where a running mean
divides another, rounding may weigh more: 1e-10 leaves room for a factor of 450.
"""

import math

import pytest
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = 1e-10
STEPS = 100
quick = settings(max_examples=20, deadline=None, derandomize=True)
sides = st.integers(1, 12)
seeds = st.integers(0, 2**31)
rates = st.floats(1e-4, 0.5)
fractions = st.floats(0.0, 0.95)
decays = st.floats(0.0, 0.5)


@pytest.fixture(scope="module")
def chapter():
    names = ["imports", "opt-follow", "opt-momentum", "opt-adaptive", "opt-muon",
             "solution-largest-step", "solution-adam-step", "solution-optimizer-bytes"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of tiny products: threads would only wait for each other
    yield run(sources("02"), names)
    torch.set_num_threads(threads)


def normal(generator, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_equal_to_torch(rule, make, shape, seed, ours, theirs):
    """The same gradients, of very different sizes, for both; parameters equal on the way, too."""
    generator = torch.Generator().manual_seed(seed)
    w = normal(generator, *shape)
    scale = torch.exp(3 * normal(generator, *shape))
    gradients = scale * normal(generator, STEPS, *shape)
    there, memory = w.clone(), {}
    optimizer = make([there], **theirs)
    for step, g in enumerate(gradients, start=1):
        there.grad = g.clone()
        optimizer.step()
        w = rule(w, g, memory, **ours)
        if step in (1, 2, 10, STEPS):
            assert (w - there).abs().max() <= TOLERANCE * there.abs().max()


@quick
@given(sides, sides, seeds, rates)
def test_sgd(chapter, rows, cols, seed, lr):
    assert_equal_to_torch(chapter["sgd"], torch.optim.SGD, (rows, cols), seed,
                          {"lr": lr}, {"lr": lr})


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
@quick
@given(rows=sides, cols=sides, seed=seeds, lr=rates, mu=st.floats(0.01, 0.99))
def test_momentum(chapter, name, rows, cols, seed, lr, mu):
    theirs = {"lr": lr, "momentum": mu, "nesterov": name == "nesterov"}
    assert_equal_to_torch(chapter[name], torch.optim.SGD, (rows, cols), seed,
                          {"lr": lr, "mu": mu}, theirs)


@quick
@given(sides, sides, seeds, rates, st.floats(0.5, 0.999))
def test_rmsprop(chapter, rows, cols, seed, lr, alpha):
    assert_equal_to_torch(chapter["rmsprop"], torch.optim.RMSprop, (rows, cols), seed,
                          {"lr": lr, "alpha": alpha}, {"lr": lr, "alpha": alpha})


@pytest.mark.parametrize("name", ["adam", "adamw"])
@quick
@given(rows=sides, cols=sides, seed=seeds, lr=rates, beta1=fractions,
       beta2=st.floats(0.9, 0.9999), decay=decays)
def test_adam(chapter, name, rows, cols, seed, lr, beta1, beta2, decay):
    ours, theirs = {"lr": lr, "beta1": beta1, "beta2": beta2}, {"lr": lr, "betas": (beta1, beta2)}
    if name == "adamw":
        ours["decay"] = theirs["weight_decay"] = decay
    make = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    assert_equal_to_torch(chapter[name], make, (rows, cols), seed, ours, theirs)


@settings(quick, max_examples=15)
@given(sides, sides, seeds, rates, fractions, decays)
def test_muon(chapter, rows, cols, seed, lr, mu, decay):
    """In bf16 inside, with torch's operations in torch's order: the same numbers."""
    theirs = {"lr": lr, "momentum": mu, "weight_decay": decay}
    assert_equal_to_torch(chapter["muon"], torch.optim.Muon, (rows, cols), seed,
                          {"lr": lr, "mu": mu, "decay": decay}, theirs)


@quick
@given(sides, sides, seeds)
def test_newton_schulz_changes_singular_values_only(chapter, rows, cols, seed):
    g = normal(torch.Generator().manual_seed(seed), rows, cols)
    u, s, vt = torch.linalg.svd(g / g.norm(), full_matrices=False)
    a, b, c = chapter["QUINTIC"]
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    ours = chapter["orthogonalize"](g, torch.float64)
    # 12 ε a product, at most 3.4445⁵ = 485 times as much at the end: 1.3e-12
    assert torch.allclose(ours, u @ torch.diag(s) @ vt, rtol=0, atol=1e-11)


@quick
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.floats(0.001, 0.19))
def test_gradient_descent_shrinks_each_direction_by_its_factor(chapter, curvatures, lr):
    lam = torch.tensor(curvatures, dtype=torch.float64)
    path = chapter["follow"](chapter["sgd"], lambda w: lam * w, torch.ones_like(lam), 30, lr=lr)
    expected = (1 - lr * lam) ** 30
    # 30 steps round 1 and ηλ w to ε each: 60 ε of the largest value on the way, 1
    assert len(path) == 31
    assert torch.allclose(path[-1], expected, rtol=0, atol=1e-13)


@settings(quick, max_examples=15)
@given(st.integers(1, 4), seeds, st.floats(0.0, 0.9))
def test_the_largest_step_is_the_limit(chapter, n, seed, mu):
    factor = normal(torch.Generator().manual_seed(seed), n, n)
    hessian = factor @ factor.T + 0.1 * torch.eye(n, dtype=torch.float64)
    limit = chapter["largest_step"](hessian, mu)
    top = torch.linalg.eigh(hessian).eigenvectors[:, -1]

    def after(share):
        path = chapter["follow"](chapter["momentum"], lambda w: hessian @ w, top, 600,
                                 lr=share * limit, mu=mu)
        return path[-1].norm()

    assert after(0.98) < 0.5 < 2 < after(1.02)


@quick
@given(seeds, st.integers(1, 1000), rates)
def test_the_exercise_step_is_adam(chapter, seed, t, lr):
    w, g, m = normal(torch.Generator().manual_seed(seed), 3)
    s = m**2 + g**2
    memory = {"t": t - 1, "m": m, "s": s}
    expected = chapter["adam"](w, g, memory, lr)
    got = chapter["adam_step"](w.item(), g.item(), m.item(), s.item(), t, lr)
    wanted = [expected.item(), memory["m"].item(), memory["s"].item()]
    # 1 − 0.999ᵗ loses up to 1/(1 − 0.999) = 1000 ε at t = 1, where both do the same
    assert all(math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
               for a, b in zip(got, wanted, strict=True))


@quick
@given(st.lists(st.tuples(sides, sides), max_size=4), st.lists(sides, max_size=4))
def test_state_bytes_add_up(chapter, matrices, vectors):
    shapes = {f"layer{i}.weight": shape for i, shape in enumerate(matrices)}
    shapes |= {f"layer{i}.bias": (size,) for i, size in enumerate(vectors)}
    shapes["embed.weight"] = (7, 3)
    in_matrices = sum(rows * cols for rows, cols in matrices)
    assert chapter["state_bytes"](shapes) == 12 * in_matrices + 16 * (sum(vectors) + 21)
