# ruff: noqa: E501 - answers are kept on one line
"""Plausible wrong answers to the exercises of Parts 6.1 a to c and 6.2 a, and what the check says to each."""

FIT = "def fit(page, question, room, context):\n    left = context - room - len(question)\n"
STOP = "    if left < 0:\n        raise ValueError('too long')\n"
DECIDE = """def decide(truth, a, b):
    only_a = sum(x == t != y for t, x, y in zip(truth, a, b))
    only_b = sum(y == t != x for t, x, y in zip(truth, a, b))
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
"""
LIMIT = """def threshold(confidence, correct, most):
    def wrong(c):
        return sum(not ok for x, ok in zip(confidence, correct) if x >= c)

    def kept(c):
        return sum(x >= c for x in confidence)

"""
SHIP = """def may_ship(source, translation):
    def names(text):
        return re.findall(r"\\{(\\w+)\\}", text.replace("{{", "").replace("}}", ""))

"""
PLAIN = """def may_ship(source, translation):
    def names(text):
        return re.findall(r"\\{(\\w+)\\}", text)

"""

WRONG = {
    "ex06-fit": [
        (FIT + "    return (page + question)[:context - room]\n", "there stands the question"),
        ("def fit(page, question, room, context):\n    left = context - len(question)\n" + STOP
         + "    return page[:left] + question\n", "no room for the answer"),
        (FIT + "    return page[:left] + question\n", "a negative number counts from its end"),
        (FIT + STOP + "    return page[max(0, len(page) - left):] + question\n", "not yet"),
        (FIT + "    return page[max(0, len(page) - left):] + question\n", "page's end, not its beginning"),
        (FIT + STOP + "    return question + page[:left]\n", "not yet"),
        (FIT + "    return page[:max(0, left)] + question\n", "not yet"),
        (FIT + STOP + "    return page[:left - 1] + question\n", "not yet"),
        (FIT + STOP + "    page += question\n    return page[:left] + question\n", "not yet"),
    ],
    "ex06-mcnemar": [
        (DECIDE + "    return 'A' if only_a > only_b else 'B' if only_b > only_a else 'cannot tell'\n",
         "within the luck of a coin"),
        (DECIDE + "    return 'cannot tell' if tail >= 0.05 else 'A' if only_a > only_b else 'B'\n", "one-sided"),
        (DECIDE + "    return 'cannot tell' if 2 * tail >= 0.05 else 'A' if only_a < only_b else 'B'\n", "exchanged"),
        (DECIDE + "    return 'cannot tell' if 2 * tail < 0.05 else 'A' if only_a > only_b else 'B'\n", "not yet"),
        (DECIDE + "    return 'cannot tell' if 2 * tail >= 0.01 else 'A' if only_a > only_b else 'B'\n", "not yet"),
        (DECIDE + "    return 'cannot tell' if abs(only_a - only_b) < 10 else 'A' if only_a > only_b else 'B'\n",
         "not yet"),
        (DECIDE + "    both = (len(truth) - n) // 2\n    m = n + 2 * both\n    low = min(only_a, only_b) + both\n"
         "    p = min(1, 2 * sum(math.comb(m, k) for k in range(low + 1)) / 2**m)\n"
         "    return 'cannot tell' if p >= 0.05 else 'A' if only_a > only_b else 'B'\n", "on which both are right"),
        (DECIDE + "    return 'A' if 2 * tail < 0.05 else 'B'\n", "not yet"),
    ],
    "ex06-abstain": [
        ("""
def threshold(confidence, correct, most):
    best, wrong = math.inf, 0
    for kept, (c, ok) in enumerate(sorted(zip(confidence, correct), reverse=True), 1):
        wrong += not ok
        if wrong > most * kept:
            break
        best = c
    return best
""", "stop at the first confidence that fails"),
        (LIMIT + "    return max((c for c in confidence if wrong(c) <= most * kept(c)), default=math.inf)\n",
         "the largest confidence that fits"),
        (LIMIT + "    return min((c for c in confidence if wrong(c) <= most * len(confidence)), default=math.inf)\n",
         "not among those that are kept"),
        (LIMIT + "    return min((c for c in confidence if wrong(c) <= most * kept(c)), default=1.0)\n", "not yet"),
        (LIMIT + "    return min(c for c in confidence if wrong(c) <= most * kept(c))\n", "not yet"),
        (LIMIT + "    return min((c for c in confidence if wrong(c) < most * kept(c)), default=math.inf)\n", "not yet"),
        (LIMIT + "    return min((c for c in confidence if kept(c) - wrong(c) <= most * kept(c)), default=math.inf)\n",
         "not yet"),
        (LIMIT + "    return min(confidence, default=math.inf)\n", "not yet"),
    ],
    "ex06-placeholders": [
        (SHIP + "    return set(names(source)) == set(names(translation))\n", "a set does not"),
        (SHIP + "    return names(source) == names(translation)\n", "compare without it"),
        (SHIP + "    return len(names(source)) == len(names(translation))\n", "not yet"),
        (PLAIN + "    return Counter(names(source)) == Counter(names(translation))\n", "doubled brace"),
        (SHIP + "    return not Counter(names(source)) - Counter(names(translation))\n", "compare both ways"),
        ("def may_ship(source, translation):\n    return source.count('{') == translation.count('{')\n", "not yet"),
        (SHIP + "    return all(name in translation for name in names(source))\n", "not yet"),
        (SHIP + "    return Counter(map(str.lower, names(source))) == Counter(map(str.lower, names(translation)))\n",
         "not yet"),
    ],
}
RIGHT = {
    "ex06-fit": [
        FIT + STOP + "    return [*page[:left], *question]\n",
        FIT + "    if len(question) + room > context:\n        raise ValueError\n    return page[:left] + question\n",
        FIT + STOP + "    kept = list(page)\n    while len(kept) > left:\n        kept.pop()\n    return kept + question\n",
    ],
    "ex06-mcnemar": [
        DECIDE + "    return 'cannot tell' if 2 * tail >= 0.05 else 'A' if only_a > only_b else 'B'\n",
        "from scipy import stats\n\n" + DECIDE
        + "    p = stats.binomtest(only_a, n).pvalue if n else 1.0\n"
        "    return ('A' if only_a > only_b else 'B') if p < 0.05 else 'cannot tell'\n",
        DECIDE + "    if n == 0 or 2 * tail >= 0.05:\n        return 'cannot tell'\n"
        "    return 'AB'[only_b > only_a]\n",
    ],
    "ex06-abstain": [
        LIMIT + "    return min((c for c in confidence if wrong(c) <= most * kept(c)), default=math.inf)\n",
        """
def threshold(confidence, correct, most):
    pairs, best, kept, wrong = sorted(zip(confidence, correct), reverse=True), math.inf, 0, 0
    for i, (c, ok) in enumerate(pairs):
        kept, wrong = kept + 1, wrong + (not ok)
        last = i + 1 == len(pairs) or pairs[i + 1][0] != c
        if last and wrong <= most * kept:
            best = c
    return best
""",
        """
import numpy as np

def threshold(confidence, correct, most):
    x, bad = np.array(confidence, float), ~np.array(correct, bool)
    fits = [c for c in x if bad[x >= c].sum() <= most * (x >= c).sum()]
    return float(min(fits, default=math.inf))
"""],
    "ex06-placeholders": [
        SHIP + "    return Counter(names(source)) == Counter(names(translation))\n",
        SHIP + "    return sorted(names(source)) == sorted(names(translation))\n",
        """
def may_ship(source, translation):
    def names(text):
        return sorted(re.findall(r"(?<!\\{)\\{([A-Za-z0-9_]+)\\}", text))

    return names(source) == names(translation)
"""],
}
