"""Exercise checks: say what is wrong with the reader's own answer, and never stop the notebook."""

import copy
import math
import numbers
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TIME_LIMIT = 20  # seconds for all cases of one exercise, on a machine that does nothing else
BUSY = 6  # at most so many times that, for an answer that has not had its share of the processor
_KINDS = {type(None): "nothing", bool: "True or False", numbers.Real: "a number", str: "text",
          list | tuple | range: "a list", dict: "a dictionary"}
_NAMED = {"ndarray": "a numpy array", "Tensor": "a torch tensor", "Parameter": "a torch tensor",
          "generator": "a generator (make it a list)", "function": "a function (not called?)"}


@dataclass
class _Raised:
    error: BaseException


class AnswerFailed(RuntimeError):
    """Raised for the answer, not by it: the message goes on where "`answer(1, 2)`" ends."""


class _TooLong(BaseException):
    """Not an Exception, so that an ``except Exception`` in the answer does not swallow it."""


def check(id: str, answer: Callable, cases: Sequence[tuple[tuple, Any]], *,
          mistakes: dict[str, Callable] | None = None, rtol: float = 1e-6, atol: float = 1e-9,
          invariants: dict[str, Callable[..., bool]] | None = None) -> None:
    """Run ``answer`` on every case and print one line: not attempted, ok, or what is wrong.

    Args:
        id: ``exNN-words``.
        cases: ``((arguments…), expected)``; ``...`` as expected leaves the case to the invariants,
            an exception's class asks the answer to raise it.
        mistakes: message → function computing what a typical wrong answer computes. A message is
            shown when its function agrees with the answer on all cases, or up to one where both raise.
        rtol, atol: ``|got − expected| ≤ atol + rtol·|expected|`` for every number.
        invariants: message → predicate ``(result, *arguments)`` that must hold in every case.

    Raises:
        ValueError: to the author of the exercise, when a mistake cannot be told from the answer.
    """
    if not cases:
        raise ValueError(f"{id}: a check needs at least one case")
    cases = [(args, _Raised(expected()) if isinstance(expected, type) else expected)
             for args, expected in cases]
    for message, mistake in (mistakes or {}).items():
        results = [_call(mistake, args)[0] for args, _ in cases]
        if all(isinstance(result, _Raised) for result in results):
            raise ValueError(f"{id}: mistake {message!r} raises {results[0].error!r} on every case")
        if not any(_differs(result, expected, rtol, atol)
                   for result, (_, expected) in zip(results, cases, strict=True)):
            raise ValueError(f"{id}: mistake {message!r} gives the right answer on every case")
    problem = _problem(answer, cases, mistakes or {}, invariants or {}, rtol, atol)
    print(f"{id}: {' '.join(problem.split()) if problem else 'ok'}", flush=True)


def _problem(answer: Callable, cases: Sequence, mistakes: dict, invariants: dict, rtol: float,
             atol: float) -> str:
    """What to tell the reader; empty when all is well."""
    name = getattr(answer, "__name__", "the answer")
    if not callable(answer):
        return f"not yet. The answer should be a function, but it is {_brief(answer)}."
    results, changed = [], None
    try:
        with _alarm(TIME_LIMIT):
            for args, expected in cases:
                result, left_args = _call(answer, args)
                results.append(result)
                if isinstance(result, _Raised) and _differs(result, expected, rtol, atol):
                    break
                if changed is None and _differs(left_args, args, 0, 0):
                    changed = args
    except _TooLong:
        args = cases[min(len(results), len(cases) - 1)][0]
        return (f"not yet. {_spell(name, args)} did not finish within {TIME_LIMIT} s: "
                "does its loop ever end?")
    wrong = [i for i, result in enumerate(results) if _differs(result, cases[i][1], rtol, atol)]
    last, (args, expected) = results[-1], cases[len(results) - 1]
    crashed = isinstance(last, _Raised) and len(results) - 1 in wrong
    if crashed and isinstance(last.error, NotImplementedError) and is_stub(last.error, answer):
        return "not attempted yet. Replace the `raise NotImplementedError` by your code."
    if crashed and isinstance(last.error, AnswerFailed):
        return f"not yet. {_spell(name, args)} {last.error}."
    if wrong and (len(results) > 1 or not crashed):  # one exception alone fits too much
        for message, mistake in mistakes.items():
            if not any(_differs(result, _call(mistake, args)[0], rtol, atol)
                       for result, (args, _) in zip(results, cases, strict=False)):
                return f"not yet. {message}"
    if crashed:
        instead = f"; {_due(expected)}" if isinstance(expected, _Raised) else ""
        return f"not yet. {_spell(name, args)} raises {tell_error(last.error, answer)}{instead}."
    for i in [*wrong, *range(len(cases))]:
        if isinstance(cases[i][1], _Raised):
            continue
        for message, holds in invariants.items():
            verdict, _ = _call(holds, (results[i], *cases[i][0]))
            if isinstance(verdict, _Raised) or not verdict:
                return f"not yet. {message} (seen in {_spell(name, cases[i][0])})"
    if wrong:
        args, expected = cases[wrong[0]]
        fault = _differs(results[wrong[0]], expected, rtol, atol)
        return f"not yet. {_spell(name, args)} {fault}.{_common_factor(results, cases, rtol)}"
    if changed is not None:
        return (f"not yet. The result is right, but {_spell(name, changed)} changes its argument "
                "in place: work on a copy.")
    return ""


def _call(function: Callable, args: tuple) -> tuple[Any, tuple]:
    """(result or what was raised, the arguments as the function left them)."""
    try:
        args = copy.deepcopy(args)
    except Exception:  # for example a tensor inside an autograd graph
        args = tuple(args)
    try:
        return function(*args), args
    except (Exception, SystemExit) as error:
        return _Raised(error), args


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TooLong after this time, again and again, where the platform can interrupt us.

    Later, by up to BUSY times, while this process has computed for less than half of it: others compute.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and hasattr(signal, "setitimer")):
        yield
        return

    began, computed = time.monotonic(), time.process_time()

    def ring(*_: Any) -> None:
        if time.process_time() - computed >= seconds / 2 or time.monotonic() - began >= BUSY * seconds:
            raise _TooLong

    handler = signal.signal(signal.SIGALRM, ring)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, waiting, interval)
        signal.signal(signal.SIGALRM, handler)


def _differs(got: Any, want: Any, rtol: float, atol: float) -> str:
    """Why ``got`` is not ``want``, as the end of a sentence; empty when it is."""
    if isinstance(want, _Raised):
        same = isinstance(got, _Raised) and isinstance(got.error, type(want.error))
        return "" if same else f"returns {_brief(got)}; {_due(want)}"
    if isinstance(got, _Raised):
        return "raises an exception"
    if want is ...:
        return ""
    if got is None and want is not None:
        return f"returns nothing (did you forget `return`?), expected {_brief(want)}"
    if _is_scalar(want) and _is_scalar(got):  # 2, np.int64(2) and torch.tensor(2) are one number
        got, want = _scalar(got), _scalar(want)
    if isinstance(want, list | tuple) and hasattr(got, "dtype") and len(got.shape):
        got = got.tolist() if len(got.shape) == 1 else list(got)  # an array serves as a list of its rows
    kind, want_kind = _kind(got), _kind(want)
    if kind != want_kind:
        return f"returns {kind}, {_brief(got)}, expected {want_kind}, {_brief(want)}"
    if hasattr(want, "shape") and hasattr(want, "dtype"):
        if tuple(got.shape) != tuple(want.shape):
            turned = " (transposed?)" if tuple(got.shape) == tuple(want.shape)[::-1] else ""
            return f"returns shape {tuple(got.shape)}, expected {tuple(want.shape)}{turned}"
        if _dtype_kind(got) != _dtype_kind(want):
            return f"returns dtype {got.dtype}, expected {want.dtype}"
        got, want = got.tolist(), want.tolist()
    if isinstance(want, dict):
        missing, extra = [k for k in want if k not in got], [k for k in got if k not in want]
        if missing or extra:
            words = [f"lacks the key {_brief(missing[0])}"] if missing else []
            words += [f"has a key {_brief(extra[0])} that is not expected"] if extra else []
            return " and ".join(words)
        pairs = [(f"at [{_brief(k)}] ", got[k], want[k]) for k in want]
    elif isinstance(want, list | tuple):
        if len(got) != len(want):
            return f"returns {len(got)} items, expected {len(want)}: {_brief(got)}"
        pairs = [(f"at [{i}] ", g, w) for i, (g, w) in enumerate(zip(got, want, strict=True))]
    elif want_kind == "a number":
        both_nan = got != got and want != want
        if got == want or abs(got - want) <= atol + rtol * abs(want) < math.inf or both_nan:
            return ""
        show = repr if _brief(got) == _brief(want) else _brief
        return f"gives {show(got)}, expected {show(want)}"
    elif isinstance(want, str | bytes | bool | set | frozenset):
        return "" if got == want else f"gives {_brief(got)}, expected {_brief(want)}"
    else:
        return ""  # modules, files, …: left to the invariants
    for place, g, w in pairs:
        if why := _differs(g, w, rtol, atol):
            return (place + why).replace("] at [", "][")
    return ""


def _kind(value: Any) -> str:
    for kind, name in _KINDS.items():
        if isinstance(value, kind):
            return name
    name = type(value).__name__
    return _NAMED.get(name, f"an object of type {name}")


def _due(expected: _Raised) -> str:
    return f"it should raise {type(expected.error).__name__}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | float) or (hasattr(value, "item") and value.shape == ())


def _scalar(value: Any) -> float:
    return value.item() if hasattr(value, "item") else value


def _dtype_kind(value: Any) -> str:
    return re.sub(r"torch\.|u(?=int)|b(?=float)|\d+", "", str(value.dtype))


def _brief(value: Any) -> str:
    """The value on one short line."""
    text = f"{value:.6g}" if isinstance(value, float) else " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "…"


def _spell(name: str, args: tuple) -> str:
    return f"`{name}({', '.join(map(_brief, args))})`"


def is_stub(error: BaseException, answer: Callable) -> bool:
    """True if the reader's own cell raised this, not a library that it calls."""
    home = getattr(answer, "__code__", None)
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return home is None or raised_in == home.co_filename


def tell_error(error: BaseException, answer: Callable) -> str:
    """``ValueError: planted, in line 3 of your cell: `…```, the line being the answer's own."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ").rstrip(".")
    home = getattr(answer, "__code__", None)
    own = [frame for frame in traceback.extract_tb(error.__traceback__)
           if home and frame.filename == home.co_filename]
    return f"{said}, in line {own[-1].lineno} of your cell: `{own[-1].line}`" if own else said


def _common_factor(results: list, cases: Sequence, rtol: float) -> str:
    """A sentence if every number is off by the same factor: a sign, a base, a missing mean."""
    pairs = [(_scalar(got), want) for got, (_, want) in zip(results, cases, strict=True)
             if _is_scalar(got) and isinstance(want, int | float) and want]
    if len(pairs) < 2 or len(pairs) < len(cases):
        return ""
    factor = pairs[0][0] / pairs[0][1]
    if not factor or any(not math.isclose(g, factor * w, rel_tol=rtol + 1e-9) for g, w in pairs):
        return ""
    return f" Every result is {factor:.4g} times what it should be."
