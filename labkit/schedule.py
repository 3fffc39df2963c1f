"""Pipeline schedules as data: which stage works on which micro-batch, in which order.

A schedule is one list of actions per stage. Nothing here needs torch: the same lists are drawn,
timed by a simulator, and carried out on ranks.

With ``v`` chunks a stage, chunk ``c`` of stage ``s`` holds layers number ``c·p + s`` of ``v·p``
equal slices: a micro-batch passes all stages ``v`` times. Time and memory are given per whole
stage, so a chunk costs 1/v.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Action(NamedTuple):
    """``F`` forward, ``B`` backward, ``W`` weight gradients (then B computes only the input's)."""

    kind: str
    micro_batch: int
    chunk: int = 0

    def __str__(self) -> str:
        return f"{self.kind}{self.micro_batch}" + (f".{self.chunk}" if self.chunk else "")


class Span(NamedTuple):
    """When a stage carries out an action."""

    action: Action
    start: float
    end: float


Schedule = list[list[Action]]


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number of at least 1")


# --- The schedules --------------------------------------------------------------------------------


def gpipe(num_stages: int, micro_batches: int) -> Schedule:
    """All forwards, then all backwards, last one first (Huang et al. 2019, arXiv 1811.06965)."""
    _check_sizes(num_stages=num_stages, micro_batches=micro_batches)
    forwards = [Action("F", m) for m in range(micro_batches)]
    backwards = [Action("B", m) for m in reversed(range(micro_batches))]
    return [forwards + backwards for _ in range(num_stages)]


def one_f_one_b(num_stages: int, micro_batches: int) -> Schedule:
    """1F1B: p − 1 − s forwards to warm up, then a forward and a backward in turn.

    The synchronous form of PipeDream's schedule (Narayanan et al. 2021, arXiv 2104.04473, Figure 4).
    """
    _check_sizes(num_stages=num_stages, micro_batches=micro_batches)
    order = range(micro_batches)
    return [_in_turn([Action("F", m) for m in order], [Action("B", m) for m in order],
                     warm_up=num_stages - 1 - stage) for stage in range(num_stages)]


def interleaved(num_stages: int, micro_batches: int, chunks: int) -> Schedule:
    """Interleaved 1F1B with ``chunks`` slices of the model a stage (2104.04473, section 2.2).

    Micro-batches pass in groups of p: each group through one chunk after the other.

    Raises:
        ValueError: when the number of micro-batches is no multiple of the number of stages.
    """
    _check_sizes(num_stages=num_stages, micro_batches=micro_batches, chunks=chunks)
    if chunks == 1:
        return one_f_one_b(num_stages, micro_batches)
    if micro_batches % num_stages:
        raise ValueError(f"{micro_batches} micro-batches cannot pass in groups of {num_stages}: "
                         "the interleaved schedule needs a multiple of the number of stages")
    groups = range(0, micro_batches, num_stages)
    forwards = [Action("F", first + i, c) for first in groups for c in range(chunks)
                for i in range(num_stages)]
    backwards = [Action("B", first + i, c) for first in groups for c in reversed(range(chunks))
                 for i in range(num_stages)]
    return [_in_turn(forwards, backwards,
                     warm_up=2 * (num_stages - 1 - stage) + (chunks - 1) * num_stages)
            for stage in range(num_stages)]


def zero_bubble(num_stages: int, micro_batches: int) -> Schedule:
    """ZB-H1 (Qi et al. 2024, arXiv 2401.10241): 1F1B with the backward pass in two halves.

    B computes the gradient that the stage before waits for. W, the weights' gradient, is put off by
    s micro-batches on stage s, where it fills what would be idle time at the end.
    """
    actions = []
    for stage, order in enumerate(one_f_one_b(num_stages, micro_batches)):
        split = []
        for action in order:
            split.append(action)
            if action.kind == "B" and action.micro_batch >= stage:
                split.append(Action("W", action.micro_batch - stage))
        late = range(max(0, micro_batches - stage), micro_batches)
        actions.append(split + [Action("W", m) for m in late])
    return actions


def _in_turn(forwards: list[Action], backwards: list[Action], warm_up: int) -> list[Action]:
    """``warm_up`` forwards, then one forward and one backward in turn, then what is left."""
    warm_up = min(warm_up, len(forwards))
    pairs = zip(forwards[warm_up:], backwards, strict=False)
    steady = [action for pair in pairs for action in pair]
    return forwards[:warm_up] + steady + backwards[len(forwards) - warm_up :]


# --- What they mean -------------------------------------------------------------------------------


def num_chunks(schedule: Schedule) -> int:
    """Slices of the model that each stage holds."""
    return 1 + max(action.chunk for actions in schedule for action in actions)


def needs(action: Action, stage: int, num_stages: int, chunks: int) -> list[tuple[int, Action]]:
    """(stage, action) pairs that must be over before this one may start."""
    kind, m, chunk = action
    place = chunk * num_stages + stage  # of the slices, in the order of the model
    if kind == "F":
        before = [("F", place - 1)] if place else []
    elif kind == "B":
        before = [("F", place)] + ([("B", place + 1)] if place + 1 < chunks * num_stages else [])
    else:
        before = [("B", place)]
    return [(p % num_stages, Action(k, m, p // num_stages)) for k, p in before]


def followers(action: Action, stage: int, num_stages: int, chunks: int) -> list[int]:
    """Stages that wait for this action, this one included: the ones to send its result to."""
    place = action.chunk * num_stages + stage
    steps = {"F": (place + 1, place), "B": (place - 1, place)}.get(action.kind, ())
    return [later % num_stages for later in steps if 0 <= later < chunks * num_stages]


def timeline(schedule: Schedule, costs: Mapping[str, float] | None = None) -> list[list[Span]]:
    """When each action runs if every stage starts its next one as soon as it may.

    Args:
        costs: time of each kind of action for a whole stage. By default a backward pass costs two
            forwards: ``{"F": 1, "B": 2}``, or ``{"F": 1, "B": 1, "W": 1}`` where it is split.

    Raises:
        ValueError: if the stages wait for each other, or for something that is never done.
    """
    p, chunks = len(schedule), num_chunks(schedule)
    costs = costs or default_costs(schedule)
    over: dict[tuple[int, Action], float] = {}
    spans: list[list[Span]] = [[] for _ in schedule]
    moved = True
    while moved:
        moved = False
        for stage, actions in enumerate(schedule):
            for action in actions[len(spans[stage]) :]:
                before = needs(action, stage, p, chunks)
                if any(need not in over for need in before):
                    break
                free = spans[stage][-1].end if spans[stage] else 0
                start = max([free, *(over[need] for need in before)])
                over[stage, action] = start + costs[action.kind] / chunks
                spans[stage].append(Span(action, start, over[stage, action]))
                moved = True
    stuck = [f"stage {stage} at {actions[len(done)]}"
             for stage, (actions, done) in enumerate(zip(schedule, spans, strict=True))
             if len(done) < len(actions)]
    if stuck:
        raise ValueError("the schedule cannot go on: " + ", ".join(stuck))
    return spans


def default_costs(schedule: Schedule) -> dict[str, float]:
    """A forward costs 1, its backward 2, in two halves where the schedule has W."""
    split = any(action.kind == "W" for actions in schedule for action in actions)
    return {"F": 1, "B": 1, "W": 1} if split else {"F": 1, "B": 2}


def total_time(schedule: Schedule, costs: Mapping[str, float] | None = None) -> float:
    """Time from the first action's start to the last one's end, in the unit of ``costs``."""
    return max(spans[-1].end for spans in timeline(schedule, costs))


def bubble(schedule: Schedule, costs: Mapping[str, float] | None = None) -> float:
    """Share of the stages' time in which they are idle, from the simulated timeline."""
    spans = [span for row in timeline(schedule, costs) for span in row]
    busy = sum(end - start for _, start, end in spans)
    return 1 - busy / (len(schedule) * max(end for *_, end in spans))


def in_flight(schedule: Schedule) -> list[int]:
    """Most micro-batches (of one chunk each) whose activations each stage holds at a time.

    They live from the forward pass to the last action that needs them: B, or W where there is one.
    """
    last = "W" if "W" in default_costs(schedule) else "B"
    peaks = []
    for actions in schedule:
        alive = [0]
        for action in actions:
            alive.append(alive[-1] + (action.kind == "F") - (action.kind == last))
        peaks.append(max(alive))
    return peaks


def validate(schedule: Schedule) -> None:
    """Every stage does the same work, each part once, and no stage waits for ever.

    Raises:
        ValueError: that names the first fault.
    """
    if not schedule or not all(schedule):
        raise ValueError("a stage has nothing to do")
    micro_batches = 1 + max(action.micro_batch for actions in schedule for action in actions)
    work = [Action(kind, m, c) for kind in default_costs(schedule)
            for m in range(micro_batches) for c in range(num_chunks(schedule))]
    for stage, actions in enumerate(schedule):
        times = Counter(actions)
        for action in work:
            if times[action] != 1:
                raise ValueError(f"stage {stage} does {action} {times[action]} times")
        if unknown := [action for action in times if action not in work]:
            raise ValueError(f"stage {stage} has an unknown action, {unknown[0]}")
    timeline(schedule)
