"""Section 2.1's automatic differentiation against torch.autograd, on programs hypothesis draws."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cells import run, sources
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

EPS = np.finfo(float).eps
CELLS = ["imports", "autodiff-operators", "autodiff-value", "autodiff-functions",
         "autodiff-topological", "autodiff-backward", "autodiff-unbroadcast",
         "autodiff-array-shapes", "autodiff-array", "autodiff-backward-arrays"]
few = settings(max_examples=40, deadline=None, derandomize=True)

# Small integers: float64 computes these exactly, so that gradients must be equal, not close.
EXACT = {
    "+": lambda a, b, lib: a + b,
    "-": lambda a, b, lib: lib.minus(a, b),
    "*": lambda a, b, lib: a * b,
    "2": lambda a, b, lib: a**2,
    "n": lambda a, b, lib: lib.minus(3, a),
    "r": lambda a, b, lib: lib.relu(a),
    "s": lambda a, b, lib: lib.sum(a),
}
# Values stay below 5 and slopes below 2, and no slope loses digits (1 - tanh² ≥ 0.3).
SMOOTH = {
    "+": lambda a, b, lib: (a + b) / 2,
    "-": lambda a, b, lib: (a - b) * 0.5,
    "*": lambda a, b, lib: a * b / (1 + b * b),
    "/": lambda a, b, lib: 1 / (1.5 + a * a),
    "√": lambda a, b, lib: (1 + a * a) ** 0.5,
    "e": lambda a, b, lib: lib.exp(a / 4),
    "l": lambda a, b, lib: lib.log(1 + a * a),
    "t": lambda a, b, lib: lib.tanh(a / 4),
}


@cache
def ours() -> SimpleNamespace:
    lib = SimpleNamespace(**run(sources("02"), CELLS))
    lib.minus, lib.sum = (lambda a, b: a - b), lambda a: a.sum(-1, keepdims=True)
    return lib


def theirs(minus=lambda a, b: a - b, relu=torch.relu) -> SimpleNamespace:
    return SimpleNamespace(exp=torch.exp, log=torch.log, tanh=torch.tanh, minus=minus, relu=relu,
                           sum=lambda a: a.sum(-1, keepdim=True))


def evaluate(program, leaves, ops, lib, touch=lambda node: node):
    """All nodes of the program; the last one depends on every other."""
    nodes = list(leaves)
    for op, i, j in program:
        nodes.append(ops[op](touch(nodes[i % len(nodes)]), touch(nodes[j % len(nodes)]), lib))
    last = nodes[0]
    for node in nodes[1:]:
        last = last + touch(node)
    return [*nodes, last]


def programs(ops, max_size):
    step = st.tuples(st.sampled_from(sorted(ops)), st.integers(0, 99), st.integers(0, 99))
    return st.lists(step, min_size=1, max_size=max_size)


@st.composite
def leaves(draw, elements, scalars):
    """Arrays whose shapes broadcast, or plain numbers (arrays without axes)."""
    count = draw(st.integers(1, 4))
    shapes = [()] * count if scalars else draw(
        mutually_broadcastable_shapes(num_shapes=count, min_dims=1, max_dims=3, max_side=4)
    ).input_shapes
    return [draw(arrays(np.float64, shape, elements=elements)) for shape in shapes]


def as_torch(values):
    return [torch.tensor(v, requires_grad=True) for v in values]


def our_gradients(program, values, ops, scalars):
    """Gradients by the chapter's code, and the result (an array's sum)."""
    nodes = [ours().Value(float(v)) if scalars else ours().Array(v) for v in values]
    last = evaluate(program, nodes, ops, ours())[-1]
    (ours().backward if scalars else ours().backward_arrays)(last)
    return [np.asarray(node.grad) for node in nodes], np.sum(last.data)


def torch_gradients(program, values, ops, touch=lambda node: node):
    tensors = as_torch(values)
    last = evaluate(program, tensors, ops, theirs(), touch)[-1]
    last.sum().backward()
    return [t.grad.numpy() for t in tensors], last.sum().item()


def stays_exact(program, values) -> bool:
    """True if no number, partial sums included, can leave the range of exact integers.

    Without minus signs nothing cancels: every partial sum is at most what this program has.
    """
    tensors = as_torch([np.abs(v) for v in values])
    nodes = evaluate(program, tensors, EXACT, theirs(minus=lambda a, b: a + b, relu=lambda a: a))
    for node in nodes:
        node.retain_grad()
    nodes[-1].sum().backward()
    return all(n.detach().sum() < 2**52 and (n.grad is None or n.grad.sum() < 2**52)
               for n in nodes)


integers = st.integers(-3, 3).map(float)


@pytest.mark.parametrize("scalars", [True, False], ids=["scalars", "arrays"])
def test_integer_programs_have_exactly_torchs_gradients(scalars):
    ops = {op: f for op, f in EXACT.items() if op != "s"} if scalars else EXACT

    @few
    @given(programs(ops, 8), leaves(integers, scalars))
    def holds(program, values):
        assume(stays_exact(program, values))
        got, result = our_gradients(program, values, ops, scalars)
        want, reference = torch_gradients(program, values, ops)
        assert result == reference
        for g, w, v in zip(got, want, values, strict=True):
            assert g.shape == v.shape
            assert (g == w).all()

    holds()


def rounding(program, values):
    """What float64's rounding may do to the result and to each gradient: (float, arrays).

    Measured, not guessed: every use of a number is disturbed by η = 1e-6, forward and backward;
    the effect is scaled to ε. An operation rounds a few times (at most 6, each within 2 ε, in two
    libraries: 24 ε), and errors may add up where random signs do not (a factor of √13 < 4).
    """
    eta, rng = 1e-6, np.random.default_rng(0)

    def touch(node):
        return node * torch.tensor(1 + eta * rng.choice([-1.0, 1.0], size=tuple(node.shape)))

    gradients, result = torch_gradients(program, values, SMOOTH)
    moved = [torch_gradients(program, values, SMOOTH, touch) for _ in range(4)]
    scale = 24 * 4 * EPS / eta
    spread = [scale * np.max([abs(m[k] - g) for m, _ in moved], axis=0)
              for k, g in enumerate(gradients)]
    return scale * max(abs(r - result) for _, r in moved), spread


reals = st.floats(0.1, 2).flatmap(lambda v: st.sampled_from([-v, v]))


@pytest.mark.parametrize("scalars", [True, False], ids=["scalars", "arrays"])
def test_smooth_programs_have_torchs_gradients_within_rounding(scalars):
    @few
    @given(programs(SMOOTH, 12), leaves(reals, scalars))
    def holds(program, values):
        got, _ = our_gradients(program, values, SMOOTH, scalars)
        want, _ = torch_gradients(program, values, SMOOTH)
        _, allowed = rounding(program, values)
        for g, w, a in zip(got, want, allowed, strict=True):
            assert g.shape == w.shape
            assert (abs(g - w) <= a + 24 * EPS * abs(w)).all()

    holds()


@pytest.mark.parametrize("scalars", [True, False], ids=["scalars", "arrays"])
def test_smooth_programs_agree_with_central_differences(scalars):
    h = EPS ** (1 / 3)

    @few
    @given(programs(SMOOTH, 12), leaves(reals, scalars), st.integers(0, 99))
    def holds(program, values, seed):
        rng = np.random.default_rng(seed)
        ways = [rng.choice([-1.0, 1.0], size=v.shape) for v in values]

        def quotient(step):
            ends = [our_gradients(program, [v + s * d for v, d in zip(values, ways, strict=True)],
                                  SMOOTH, scalars)[1] for s in (step, -step)]
            return (ends[0] - ends[1]) / (2 * step)

        gradients, _ = our_gradients(program, values, SMOOTH, scalars)
        slope = sum((g * d).sum() for g, d in zip(gradients, ways, strict=True))
        by_result, by_gradients = rounding(program, values)
        # The error h² f‴/6 is a third of D(2h) - D(h) = h² f‴/2; rounding moves f by `by_result`.
        truncation = abs(quotient(2 * h) - quotient(h))
        allowed = truncation + 2 * by_result / h + sum(a.sum() for a in by_gradients)
        assert abs(quotient(h) - slope) <= allowed

    holds()


@few
@given(st.data())
def test_matrix_products_of_stacks_sums_and_reshapes_are_exact(data):
    batches = data.draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3))
    n, k, m = (data.draw(st.integers(1, 4)) for _ in "nkm")
    first, second = batches.input_shapes
    a, b = (data.draw(arrays(np.float64, shape, elements=integers))
            for shape in ((*first, n, k), (*second, k, m)))
    shape = (*batches.result_shape, n, m)
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    keepdims = data.draw(st.booleans())

    def program(a, b, relu, sum):
        flat = relu(a @ b - 1).reshape((int(np.prod(shape)),)) * 3
        return sum(flat.reshape(shape)) ** 2

    nodes, tensors = [ours().Array(v) for v in (a, b)], as_torch((a, b))
    ours().backward_arrays(program(*nodes, ours().relu, lambda x: x.sum(axis, keepdims=keepdims)))
    program(*tensors, torch.relu, lambda x: x.sum() if axis is None and not keepdims else
            x.sum(axis, keepdim=keepdims)).sum().backward()
    for node, tensor in zip(nodes, tensors, strict=True):
        assert node.grad.shape == node.data.shape
        assert (node.grad == tensor.grad.numpy()).all()


@few
@given(mutually_broadcastable_shapes(num_shapes=1, base_shape=(3, 2, 4), max_dims=3))
def test_unbroadcast_undoes_broadcasting(shapes):
    """Sums over the copies: an array of ones becomes the number of copies, in the old shape."""
    (shape,) = shapes.input_shapes
    back = ours().unbroadcast(np.ones(shapes.result_shape), shape)
    assert back.shape == shape
    copies = np.prod(shapes.result_shape) // max(1, np.prod(shape, dtype=int))
    assert (back == copies).all()


@few
@given(programs(EXACT, 12), leaves(integers, scalars=False))
def test_parents_come_first_and_every_node_once(program, values):
    last = evaluate(program, [ours().Array(v) for v in values], EXACT, ours())[-1]
    order = ours().topological(last)
    place = {node: i for i, node in enumerate(order)}
    assert len(place) == len(order)
    assert order[-1] is last
    assert all(place[parent] < place[node] for node in order for parent, _ in node.edges)


@pytest.mark.parametrize("scalars", [True, False], ids=["scalars", "arrays"])
def test_leaves_add_up_over_backward_passes_and_nothing_else_does(scalars):
    x = ours().Value(3.0) if scalars else ours().Array([3.0, 1.0])
    backward = ours().backward if scalars else ours().backward_arrays
    y = (x * x + x) * x
    backward(y)
    once = x.grad * 1
    backward(y)
    assert np.all(x.grad == 2 * once)


def test_a_long_chain_needs_no_recursion():
    x = node = ours().Value(1.0)
    for _ in range(5000):
        node = node + 1.0
    ours().backward(node)
    assert x.grad == 1.0
