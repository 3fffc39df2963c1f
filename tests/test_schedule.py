"""Pipeline schedules: valid, as fast as the formulas say, and holding as little as they say."""

import math
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit import plan, schedule
from labkit.schedule import Action

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")  # a busy machine is not a failure

stages = st.integers(1, 7)
micro = st.integers(1, 13)
chunks = st.integers(1, 4)
costs = st.integers(1, 5)


def words(actions: list[Action]) -> str:
    return " ".join(map(str, actions))


def test_the_orders_for_three_stages_as_drawn_by_hand():
    assert [words(s) for s in schedule.gpipe(2, 3)] == ["F0 F1 F2 B2 B1 B0"] * 2
    assert [words(s) for s in schedule.one_f_one_b(3, 5)] == [
        "F0 F1 F2 B0 F3 B1 F4 B2 B3 B4",
        "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4",
        "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4",
    ]
    assert [words(s) for s in schedule.zero_bubble(3, 4)] == [
        "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3",
        "F0 F1 B0 F2 B1 W0 F3 B2 W1 B3 W2 W3",
        "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3",
    ]
    # Narayanan et al. 2021, Figure 4, in small: two devices, two chunks each.
    assert [words(s) for s in schedule.interleaved(2, 4, 2)] == [
        "F0 F1 F0.1 F1.1 F2 B0.1 F3 B1.1 F2.1 B0 F3.1 B1 B2.1 B3.1 B2 B3",
        "F0 F1 F0.1 B0.1 F1.1 B1.1 F2 B0 F3 B1 F2.1 B2.1 F3.1 B3.1 B2 B3",
    ]


def test_a_timeline_by_hand():
    spans = schedule.timeline(schedule.one_f_one_b(2, 2), {"F": 1, "B": 2})
    assert [(str(a), start, end) for a, start, end in spans[0]] == [
        ("F0", 0, 1), ("F1", 1, 2), ("B0", 4, 6), ("B1", 7, 9)]
    assert [(str(a), start, end) for a, start, end in spans[1]] == [
        ("F0", 1, 2), ("B0", 2, 4), ("F1", 4, 5), ("B1", 5, 7)]
    assert schedule.total_time(schedule.one_f_one_b(2, 2)) == 9


@given(stages, micro, chunks)
def test_every_schedule_is_valid(p, m, v):
    for made in (schedule.gpipe(p, m), schedule.one_f_one_b(p, m), schedule.zero_bubble(p, m),
                 schedule.interleaved(p, m * p, v)):
        schedule.validate(made)
        assert len(made) == p


@given(stages, micro, chunks, costs, costs)
def test_bubbles_are_those_of_the_formula(p, m, v, forward, backward):
    times = {"F": Fraction(forward), "B": Fraction(backward)}
    for made in (schedule.gpipe(p, m), schedule.one_f_one_b(p, m)):
        assert schedule.total_time(made, times) == (m + p - 1) * (forward + backward)
        assert math.isclose(schedule.bubble(made, times), plan.bubble_fraction(p, m), abs_tol=1e-12)
    made = schedule.interleaved(p, m * p, v)
    assert math.isclose(schedule.bubble(made, times), plan.bubble_fraction(p, m * p, v),
                        abs_tol=1e-12)


@given(stages, micro)
def test_what_is_held(p, m):
    assert schedule.in_flight(schedule.gpipe(p, m)) == [m] * p
    assert schedule.in_flight(schedule.one_f_one_b(p, m)) == [min(m, p - s) for s in range(p)]
    assert max(schedule.in_flight(schedule.zero_bubble(p, m))) <= p


@given(stages, micro, st.integers(2, 4))
def test_what_the_interleaved_schedule_holds(p, m, v):
    # 2205.05198, section 4.2.3: 1 + (p − 1)/(pv) times p, on the first stage.
    held = schedule.in_flight(schedule.interleaved(p, m * p, v))[0]
    assert held == min(p * v + p - 1, m * p * v)


@given(stages, st.integers(1, 3))
def test_zero_bubble_leaves_a_third(p, more):
    # 2401.10241, Table 2, with equal costs: (p − 1)(F + B − W) idle on every stage, from m ≥ p on.
    m = p * more
    made = schedule.zero_bubble(p, m)
    assert schedule.total_time(made) == 3 * m + p - 1
    assert schedule.total_time(made) <= schedule.total_time(schedule.one_f_one_b(p, m))


@pytest.mark.parametrize(("broken", "says"), [
    ([], "nothing to do"),
    ([[Action("F", 0), Action("B", 0)], []], "nothing to do"),
    ([[Action("B", 0), Action("F", 0)]], "cannot go on: stage 0 at B0"),
    ([[Action("F", 0), Action("F", 0), Action("B", 0)]], "stage 0 does F0 2 times"),
    ([[Action("F", 0), Action("B", 0)], [Action("F", 0)]], "stage 1 does B0 0 times"),
    ([[Action("F", 0), Action("B", 0), Action("X", 0)]], "unknown action, X0"),
    # Each order is fine by itself, together they wait for each other.
    ([[Action("F", 0), Action("B", 0), Action("F", 1), Action("B", 1)],
      [Action("F", 1), Action("B", 1), Action("F", 0), Action("B", 0)]],
     "cannot go on: stage 0 at B0, stage 1 at F1"),
])
def test_a_broken_schedule_is_named(broken, says):
    with pytest.raises(ValueError, match=says):
        schedule.validate(broken)


@given(stages, micro, st.randoms())
def test_two_actions_exchanged_never_go_unnoticed_or_faster(p, m, random):
    """A swap breaks the schedule, or leaves it valid and no shorter than the least possible."""
    made = schedule.one_f_one_b(p, m)
    stage, i, j = random.randrange(p), random.randrange(2 * m), random.randrange(2 * m)
    made[stage][i], made[stage][j] = made[stage][j], made[stage][i]
    try:
        schedule.validate(made)
    except ValueError:
        return
    assert schedule.total_time(made) >= 3 * (m + p - 1)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: schedule.gpipe(0, 1), "num_stages is 0: give a whole number of at least 1"),
    (lambda: schedule.one_f_one_b(2, 1.5), "micro_batches is 1.5"),
    (lambda: schedule.interleaved(4, 6, 2), "6 micro-batches cannot pass in groups of 4"),
    (lambda: schedule.interleaved(4, 8, 0), "chunks is 0"),
])
def test_bad_sizes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@given(stages, micro)
def test_deepspeeds_instructions_are_our_1f1b(p, m):
    from deepspeed.runtime.pipe.schedule import BackwardPass, ForwardPass, TrainSchedule

    kinds = {ForwardPass: "F", BackwardPass: "B"}
    for stage, ours in enumerate(schedule.one_f_one_b(p, m)):
        steps = TrainSchedule(micro_batches=m, stages=p, stage_id=stage)
        buffers = steps.num_pipe_buffers()  # DeepSpeed names a micro-batch by the buffer it is in
        done = [(kinds[type(i)], i.buffer_id) for step in steps for i in step if type(i) in kinds]
        assert done == [(action.kind, action.micro_batch % buffers) for action in ours]


def test_schedules_need_no_torch():
    code = "import sys, labkit.schedule; print({'torch', 'numpy', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@given(stages, micro, chunks)
def test_followers_are_those_who_need_it(p, m, v):
    made = schedule.interleaved(p, p, v)
    for stage, actions in enumerate(made):
        for action in actions:
            waiting = [s for s, others in enumerate(made) for other in others
                       if (stage, action) in schedule.needs(other, s, p, v)]
            told = [s for s in schedule.followers(action, stage, p, v)]
            assert set(waiting) - {stage} == set(told) - {stage}
            assert len(set(told) - {stage}) <= 1
