"""Plausible wrong answers to the exercises of 6.2 c, and what the check says to each; right ones, too."""

_WHICH = """
import numpy as np

def better_system(a, b):
    if len(a) != len(b):
        raise ValueError("unequal")
    if len(a) < 10:
        return "cannot tell"
    d = np.subtract(a, b)
    drawn = np.random.default_rng(1).choice(d, (1000, len(d))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return "A" if low > 0 else "B" if high < 0 else "cannot tell"
"""

_SHORT = """
import math

def without_penalty(score, lengths):
    c, r = sum(p[0] for p in lengths), sum(p[1] for p in lengths)
    if not c:
        return 0.0
    return score / math.exp(min(0.0, 1 - r / c))
"""


def _edit(answer: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


WRONG = {
    "ex06-which-system": [
        ("import numpy as np\ndef better_system(a, b):\n    if len(a) != len(b):\n        raise ValueError\n"
         "    if len(a) < 10:\n        return 'cannot tell'\n    d = np.mean(a) - np.mean(b)\n"
         "    return 'A' if d > 0 else 'B' if d < 0 else 'cannot tell'\n", "The larger mean alone"),
        (_edit(_WHICH, ("np.subtract(a, b)", "np.subtract(b, a)")), "Your A is our B"),
        ("import numpy as np\ndef better_system(a, b):\n    if len(a) != len(b):\n        raise ValueError\n"
         "    if len(a) < 10:\n        return 'cannot tell'\n    rng = np.random.default_rng(0)\n"
         "    d = rng.choice(a, (2000, len(a))).mean(1) - rng.choice(b, (2000, len(b))).mean(1)\n"
         "    low, high = np.percentile(d, [2.5, 97.5])\n"
         "    return 'A' if low > 0 else 'B' if high < 0 else 'cannot tell'\n",
         "a hard text is hard for both"),
        ("import numpy as np\ndef better_system(a, b):\n    if len(a) != len(b):\n        raise ValueError\n"
         "    if len(a) < 10:\n        return 'cannot tell'\n    rng = np.random.default_rng(0)\n"
         "    p, q = (np.percentile(rng.choice(x, (2000, len(x))).mean(1), [2.5, 97.5])\n"
         "            for x in (a, b))\n"
         "    return 'A' if p[0] > q[1] else 'B' if q[0] > p[1] else 'cannot tell'\n",
         "a hard text is hard for both"),
        (_edit(_WHICH, ("[2.5, 97.5]", "[5, 95]")), "narrower than 95 %"),
        (_edit(_WHICH, ("[2.5, 97.5]", "[16, 84]")), "narrower than 95 %"),
        (_edit(_WHICH, ("if len(a) < 10", "if len(a) < 1")), "fewer than 10 texts"),
        (_edit(_WHICH, ("len(a) < 10", "len(a) <= 10")), "expected 'A'"),
        (_edit(_WHICH, ("drawn = np.random.default_rng(1).choice(d, (1000, len(d))).mean(1)",
                        "drawn = d")),
         "single texts' differences"),
        (_edit(_WHICH, ('"cannot tell"\n', '"unknown"\n')), "expected 'cannot tell'"),
        (_edit(_WHICH, ('raise ValueError("unequal")', 'return "cannot tell"')),
         "it should raise ValueError"),
        (_edit(_WHICH, ("low, high = np.percentile(drawn, [2.5, 97.5])", "low = high = drawn.mean()")),
         "expected 'cannot tell'"),
    ],
    "ex06-short-output": [
        (_edit(_SHORT, ("score / math", "score * math")), "Multiplied"),
        ("import math\ndef without_penalty(score, lengths):\n    if not score:\n        return 0.0\n"
         "    each = [math.exp(min(0.0, 1 - r / c)) if c else 0.0 for c, r in lengths]\n"
         "    return score * len(each) / sum(each)\n", "adds the lengths over the corpus first"),
        (_edit(_SHORT, ("sum(p[1] for p in lengths)", "sum(max(p) for p in lengths)")),
         "Texts that are too long pay"),
        (_edit(_SHORT, ("min(0.0, 1 - r / c)", "1 - r / c")), "never exceeds 1"),
        (_edit(_SHORT, ("min(0.0, 1 - r / c)", "min(0.0, 1 - c / r)")), "the reference's length is above"),
        (_edit(_SHORT, ("min(0.0, 1 - r / c)", "min(0.0, c / r - 1)")), "not c/r"),
        (_edit(_SHORT, ("math.exp(min(0.0, 1 - r / c))", "min(1.0, c / r)")), "not the ratio"),
        (_edit(_SHORT, ("math.exp(min(0.0, 1 - r / c))", "(math.exp(-r / c) if c < r else 1.0)")),
         "the 1 is missing"),
        (_edit(_SHORT, ("    if not c:\n        return 0.0\n", "")), "ZeroDivisionError"),
        (_edit(_SHORT, ("return score / math", "math")), "returns nothing"),
    ],
}

RIGHT = {
    "ex06-which-system": [
        _WHICH,
        _edit(_WHICH, ("low, high = np.percentile(drawn, [2.5, 97.5])",
                       "high, low = 2 * d.mean() - np.percentile(drawn, [2.5, 97.5])")),
        _edit(_WHICH, ("choice(d, (1000, len(d))).mean(1)",
                       "multinomial(len(d), np.ones(len(d)) / len(d), 1500) @ d / len(d)")),
        """
import random

def better_system(a, b):
    if len(a) != len(b):
        raise ValueError(len(b))
    d = [x - y for x, y in zip(a, b)]
    if len(d) < 10:
        return "cannot tell"
    chance = random.Random(3)
    means = sorted(sum(chance.choices(d, k=len(d))) / len(d) for _ in range(1000))
    return "A" if means[25] > 0 else "B" if means[974] < 0 else "cannot tell"
""",
        """
import numpy as np

def better_system(a, b):
    a, b = np.array(a), np.array(b)
    if a.shape != b.shape:
        raise ValueError("unequal")
    if len(a) < 10:
        return "cannot tell"
    i = np.random.default_rng(8).integers(0, len(a), (3000, len(a)))
    share = (a[i].mean(1) - b[i].mean(1) > 1e-12).mean()
    share_b = (b[i].mean(1) - a[i].mean(1) > 1e-12).mean()
    return "A" if share > 0.975 else "B" if share_b > 0.975 else "cannot tell"
""",
    ],
    "ex06-short-output": [
        _SHORT,
        """
import numpy as np

def without_penalty(score, lengths):
    c, r = np.array(lengths).reshape(-1, 2).sum(0)
    return float(score * np.exp(max(0.0, r / c - 1))) if c else 0.0
""",
        """
import math

def without_penalty(score, lengths):
    if not lengths or not sum(c for c, _ in lengths):
        return 0
    c, r = map(sum, zip(*lengths))
    return score if c >= r else score * math.e ** (r / c - 1)
""",
    ],
}
