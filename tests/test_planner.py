"""The planner against published runs, against small cases worked by hand, and against mutation."""

import ast
import inspect
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan import UTILIZATION, Breaker, close, formula_nodes, load, printed

from labkit import plan, planner
from labkit.planner import Cluster, Layout, Shape

# Korthikanti et al. 2022 (2205.05198), Table 3: heads, pipeline stages, micro-batch, chunks a rank;
# tensor parallel 8. Table 5: seconds with full recomputation. The rest stands in UTILIZATION.
RUNS = [(64, 1, 4, 1, 1.42), (96, 8, 1, 3, 18.13), (128, 35, 1, 3, 49.05), (160, 64, 1, 1, 94.42)]


def published(row: int, p, *, full: bool = False) -> tuple:
    """(shape, cluster at nameplate rates, layout, batch) of a row of Table 5."""
    layers, hidden, gpus, batch, *_ = UTILIZATION[row]
    heads, stages, micro, chunks, _ = RUNS[row]
    layout = p.Layout(8, stages, 1, 0, micro, chunks, "full" if full else "selective", not full)
    cluster = replace(p.PRESETS["a100"], gpus=gpus, efficiency=1.0)
    return p.Shape(layers, hidden, heads, 51_200, 2048), cluster, layout, batch


def check_published_runs(p) -> None:
    # The one free constant, from the 175 B row, predicts the other three within 10 %.
    seconds = [row[4] for row in UTILIZATION]
    eta = p.calibrate(*published(1, p), seconds[1]).efficiency
    shape, cluster, layout, batch = published(1, p)
    exact = p.estimate(shape, replace(cluster, efficiency=eta), layout, batch).step
    assert close(exact, seconds[1]) and printed(eta, "0.69")
    assert p.PRESETS["a100"].efficiency == 0.69
    for row in range(4):
        shape, cluster, layout, batch = published(row, p)
        got = p.estimate(shape, replace(cluster, efficiency=eta), layout, batch)
        assert abs(100 * got.mfu / UTILIZATION[row][5] - 1) < 0.1
        again = p.estimate(shape, replace(cluster, efficiency=eta),
                           *published(row, p, full=True)[2:])
        assert abs(again.step / got.step / (RUNS[row][4] / seconds[row]) - 1) < 0.1
        assert got.fits  # they ran


SMALL = Shape(8, 16, 4, 32, 8)
NODES = Cluster(64, 1e6, 1e6, 1e5, 1e4, 1e3, per_node=4, latency=1e-3, efficiency=0.5)
LAYER = 12 * 16**2 + 13 * 16
PARAMS = {1: 8 * LAYER + 40 * 16, 2: 4 * LAYER + 40 * 16, 4: 2 * LAYER + 40 * 16}  # first stage


def check_terms(p) -> None:
    """Every term of a few layouts, written out in numbers; a micro-batch of 2 has 16 tokens."""

    def at(**layout):
        return p.estimate(SMALL, NODES, p.Layout(**layout), 48)

    linear, scores, logits = 16 * 24 * 256, 16 * 4 * 8 * 16, 16 * 6 * 16 * 32
    one = at(micro=2)  # one rank, 24 micro-batches
    assert one.sent == {"tensor": 0, "pipeline": 0, "data": 0}
    assert close(one.seconds["matrix products"], 24 * (8 * 3 * (linear + scores) + logits) / 5e5)
    # Passes over 512 scores, 1024 GELU inputs, 256 tokens' elements, 2 bytes each, 10, 5 and 22 times.
    assert close(one.seconds["element-wise"], 24 * 8 * 2 * (512 * 10 + 1024 * 5 + 256 * 22) / 5e4)
    assert close(one.seconds["optimizer"], 28 * PARAMS[1] / 5e4)
    assert one.seconds["bubble"] == one.seconds["data parallel"] == one.seconds["stage to stage"] == 0
    assert close(one.states.total, 16 * PARAMS[1])
    kept = 8 * 256 * (34 + 5 * 4 * 8 / 16)
    assert close(one.activations, kept + 256 + 4 * 256 + 4 * 16 * 32)
    assert close(one.mfu, plan.iteration_flops(48, 8, 8, 16, 32) / one.step / 1e6)

    # Selective recomputation adds the scores once more, full the layer once more.
    less = at(micro=2, recompute="selective")
    more = (less.seconds["matrix products"] - one.seconds["matrix products"]) * 5e5
    assert close(more, 24 * 8 * scores)
    more = (less.seconds["element-wise"] - one.seconds["element-wise"]) * 5e4
    assert close(more, 24 * 8 * 4.5 * 1024)
    assert close(less.activations, one.activations - 8 * 5 * 4 * 8 * 16)
    least = at(micro=2, recompute="full")
    more = (least.seconds["matrix products"] - one.seconds["matrix products"]) * 5e5
    assert close(more, 24 * 8 * (scores + linear))
    more = (least.seconds["element-wise"] - one.seconds["element-wise"]) * 5e4
    assert close(more, 24 * 8 * 2 * (512 * 4.5 + 1024 * 2 + 256 * 11))
    assert close(least.activations, one.activations - kept + 7 * 512 + kept / 8)

    # Tensor parallel 4 in a node: 4 all-reduces a layer (6 with full recomputation) as rings.
    four = at(tp=4, micro=2)
    assert close(four.sent["tensor"], 24 * 8 * 4 * 2 * 3 / 4 * 512)
    assert close(four.seconds["tensor parallel"], four.sent["tensor"] / 5e3 + 24 * 8 * 4 * 6e-3)
    assert close(at(tp=4, micro=2, recompute="full").sent["tensor"], four.sent["tensor"] * 1.5)
    assert close(four.seconds["matrix products"], one.seconds["matrix products"] / 4)
    words = 512 * 10 / 4 + 1024 * 5 / 4 + 256 * 22
    assert close(four.seconds["element-wise"], 24 * 8 * 2 * words / 5e4)
    split = at(tp=4, micro=2, sequence_parallel=True)
    assert close(split.seconds["element-wise"], one.seconds["element-wise"] / 4)
    assert close(split.activations, one.activations / 4)
    assert close(four.states.total, 4 * PARAMS[1])
    assert close(p.estimate(SMALL, replace(NODES, per_node=2), p.Layout(tp=4, micro=2), 48)
                 .seconds["tensor parallel"], four.sent["tensor"] / 500 + 24 * 8 * 4 * 6e-3)

    # Two stages, whole and in two pieces; across nodes when there are more than four ranks.
    two = at(pp=2, micro=2)
    assert close(two.sent["pipeline"], 24 * 2 * 512)
    assert close(two.seconds["stage to stage"], 24 * 2 * (1e-3 + 512 / 5e3))
    each = (4 * 3 * (linear + scores) / 5e5 + 4 * 2 * (512 * 10 + 1024 * 5 + 256 * 22) / 5e4
            + 2 * (1e-3 + 512 / 5e3))
    assert close(two.seconds["bubble"], each)
    assert close(two.activations, kept + 2 * 256) and close(two.states.total, 16 * PARAMS[2])
    pieces = at(pp=2, micro=2, interleave=2)
    hop = 2 * (1e-3 + 512 / 5e3)
    assert close(pieces.sent["pipeline"], 2 * two.sent["pipeline"])
    assert close(pieces.seconds["bubble"], (each + hop) / 2)
    assert close(pieces.activations, 2.5 * (kept / 2 + 256))
    wide = at(tp=4, pp=2, micro=2)
    assert close(wide.seconds["stage to stage"], 24 * 2 * (1e-3 + 128 / 500))

    # ZeRO on 4 ranks of a node and on 8 of two; 6 or 3 micro-batches.
    for stage, volume in ((0, 2), (1, 2), (2, 7), (3, 18)):
        got = at(dp=4, micro=2, stage=stage)
        assert close(got.sent["data"], volume * 3 / 4 * 2 * PARAMS[1])
        assert close(got.seconds["data parallel"], got.sent["data"] / 5e3 + volume * 3e-3)
        assert close(got.states.total, plan.zero_states(PARAMS[1], 4, stage).total)
        assert close(got.seconds["optimizer"], 28 * PARAMS[1] / (4 if stage else 1) / 5e4)
        gathered = 24 * 256 if stage == 3 else 0
        assert close(got.activations, one.activations + gathered)
    both = at(tp=2, dp=4, micro=2)
    assert close(both.seconds["data parallel"], both.sent["data"] / 500 + 2 * 3e-3)
    assert close(at(tp=2, dp=4, micro=2, stage=3).activations
                 - both.activations, 24 * 256 / 2)


def check_presets(p) -> None:
    """Data sheets: dense bf16 FLOP/s, bytes, bytes/s; NVLink one way, InfiniBand per GPU."""
    a100, h100, h200 = (p.PRESETS[name] for name in ("a100", "h100", "h200"))
    assert (a100.memory, a100.peak, a100.bandwidth) == (80e9, 312e12, 2.039e12)
    assert (h100.memory, h100.peak, h100.bandwidth) == (80e9, 989e12, 3.35e12)
    assert (h200.memory, h200.peak, h200.bandwidth) == (141e9, 989e12, 4.8e12)
    assert (a100.intra, a100.inter) == (600e9 / 2, 200e9 / 8)
    assert (h100.intra, h100.inter) == (h200.intra, h200.inter) == (900e9 / 2, 400e9 / 8)
    assert {cluster.gpus for cluster in p.PRESETS.values()} == {8}


CHECKS = [check_published_runs, check_terms, check_presets]
FORMULAS = {"PRESETS", "calibrate", "estimate", "rank_params", "_memory", "elementwise_bytes", "_time"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_reference(check):
    check(planner)


def terms(tree: ast.Module) -> list[ast.expr]:
    """Numbers, sums and products of what `estimate` returns; the search around it has tests below."""
    body = [node for node in tree.body if getattr(node, "name", None) in FORMULAS
            or (isinstance(node, ast.Assign) and node.targets[0].id in FORMULAS)]
    return formula_nodes(ast.Module(body, []))


def test_breaking_any_term_by_one_per_cent_is_noticed():
    source = inspect.getsource(planner)
    broken, survivors = 0, []
    for i in range(len(terms(ast.parse(source)))):
        tree = ast.parse(source)
        node = terms(tree)[i]
        where = f"line {node.lineno}: {ast.unparse(node)}"
        try:
            module = load(Breaker(node).visit(tree))
            for check in CHECKS[::-1]:
                check(module)
        except Exception:
            broken += 1
            continue
        if not module.saw or module.saw & {int, float}:
            survivors.append(where)
    assert broken > 100
    assert not survivors, "\n".join(survivors)


# --- The search -----------------------------------------------------------------------------------

GPT2 = Shape(12, 768, 12, 50_257, 1024)
TRILLION = Shape(128, 25_600, 160, 51_200, 2048)


def a100s(gpus: int, **changes) -> Cluster:
    return replace(planner.PRESETS["a100"], gpus=gpus, **changes)


def test_the_search_finds_what_trying_everything_finds():
    cluster = a100s(16, memory=4e9)
    everything = [
        planner.estimate(GPT2, cluster, layout, 48)
        for tp in range(1, 9) for pp in range(1, 17) for dp in range(1, 17) for stage in range(4)
        for micro in range(1, 49) for interleave in (1, 2, 3, 4, 6, 12)
        for recompute in planner.RECOMPUTE
        if tp * pp * dp <= 16 and 12 % (pp * interleave) == 0 and 48 % (micro * dp) == 0
        for layout in [Layout(tp, pp, dp, stage, micro, interleave, recompute, tp > 1)]
        if not planner.refused(GPT2, layout, 48, 16) and (pp > 1 or interleave == 1)]
    best = min((e for e in everything if e.fits), key=lambda e: e.step)
    found = planner.search(GPT2, cluster, 48)
    assert math.isclose(found[0].step, best.step, rel_tol=1e-9)
    assert [e.step for e in found] == sorted(e.step for e in found) and all(e.fits for e in found)


def test_what_is_fixed_stays_fixed():
    for e in planner.search(TRILLION, a100s(10_000), 2304, tp=4, recompute="full", stage=1):
        assert (e.layout.tp, e.layout.recompute, e.layout.stage) == (4, "full", 1)


def test_when_nothing_fits_the_nearest_is_told():
    (nearest,) = planner.search(TRILLION, a100s(8), 8)
    assert not nearest.fits and "nothing fits: the least is" in planner.verdict(nearest)
    assert "most of it states" in planner.verdict(nearest)
    (nearest,) = planner.search(GPT2, a100s(1, memory=3e9), 64, micro=64)
    assert "most of it activations" in planner.verdict(nearest)


def test_the_table_has_a_line_a_layout():
    found = planner.search(TRILLION, a100s(10_000), 2304)
    lines = planner.table(found).splitlines()
    assert len(lines) == 6 and "selective" in lines[1]
    assert "9,216 GPUs busy" in planner.verdict(found[0])


@given(st.integers(1, 6), st.integers(0, 2), st.sampled_from(planner.RECOMPUTE))
def test_more_bandwidth_is_never_slower_and_bytes_stay(dp, power, recompute):
    layout = Layout(2**power, 2, dp, 1, 1, 1, recompute, power > 0)
    shape, slow = Shape(4, 64, 4, 128, 32), a100s(64)
    quick = replace(slow, intra=2 * slow.intra, inter=2 * slow.inter)
    first, second = (planner.estimate(shape, c, layout, 60) for c in (slow, quick))
    assert second.step <= first.step and second.sent == first.sent
    assert second.states == first.states and second.activations == first.activations


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Shape(2, 10, 3, 5, 5), "cannot be divided among 3 heads"),
        (lambda: Shape(2, 1.5, 1, 5, 5), "hidden is 1.5"),
        (lambda: a100s(8, efficiency=0), "efficiency is 0"),
        (lambda: a100s(8, inter=math.nan), "inter is nan"),
        (lambda: planner.estimate(GPT2, a100s(8), Layout(pp=2, stage=2), 8), "DeepSpeed refuses"),
        (lambda: planner.estimate(GPT2, a100s(8), Layout(pp=4, interleave=3), 6), "a multiple of 4"),
        (lambda: planner.estimate(GPT2, a100s(8), Layout(dp=3), 8), "a batch of 8 cannot be divided"),
        (lambda: planner.calibrate(GPT2, a100s(8), Layout(), 8, 1e-9), "nameplate rates"),
    ],
)
def test_bad_input_names_the_value_and_the_cure(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_planner_needs_neither_torch_nor_numpy():
    code = "import sys, labkit.planner; print({'torch', 'numpy', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
