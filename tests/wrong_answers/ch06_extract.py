"""Plausible wrong answers to the exercises of Part 6.2 d, and what is said to each; right ones, too."""

WRONG = {
    "ex06-token-span": [
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    return (inside[0], inside[-1]) if inside else None
""", "A part of the answer is not the answer"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    if not inside or places[inside[0]][0] > begin or places[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]
""", "Return None"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a <= end and b >= begin]
    if not inside or places[inside[0]][0] > begin or places[inside[-1]][1] < end:
        return None
    return inside[0], inside[-1]
""", "Tokens that only touch the answer"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if begin <= a < b <= end]
    return (inside[0], inside[-1]) if inside else None
""", "you take only tokens that lie inside"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    if not inside or places[inside[0]][0] > begin or places[inside[-1]][1] < end:
        return None
    return inside[0], inside[-1] + 1
""", "not the one after it"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    if not inside or places[inside[0]][0] > begin or places[inside[-1]][1] < end:
        return None
    return begin, end
""", "You return characters"),
        ("""
def token_span(places, begin, end):
    starts = [i for i, (a, b) in enumerate(places) if a == begin and b > a]
    ends = [i for i, (a, b) in enumerate(places) if b == end and b > a]
    return (starts[0], ends[-1]) if starts and ends else None
""", "You look for a token that begins where the answer begins"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    if end > places[-1][1]:
        return None
    return inside[0], inside[-1]
""", "raises IndexError"),
        ("""
def token_span(places, begin, end):
    inside = [i for i, (a, b) in enumerate(places) if a < end and b > begin]
    if not inside or end > places[-1][1]:
        return None
    return inside[0], inside[-1]
""", "expected"),
    ],
    "ex06-references": [
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    def f1(one):
        if not given or not one:
            return float(given == one)
        shared = min(sum(word in one for word in given), len(one))
        return 2 * shared / (len(given) + len(one))
    return max(map(f1, references))
""", "A word that the answer repeats"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    def f1(one):
        if not given or not one:
            return float(given == one)
        return 2 * len(set(given) & set(one)) / (len(given) + len(one))
    return max(map(f1, references))
""", "You count different words once"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    def f1(one):
        if not given or not one:
            return float(given == one)
        shared = sum((Counter(given) & Counter(one)).values())
        return 2 * shared / (len(given) + len(one))
    return sum(map(f1, references)) / len(references)
""", "not the mean of all"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    one = references[0]
    if not given or not one:
        return float(given == one)
    shared = sum((Counter(given) & Counter(one)).values())
    return 2 * shared / (len(given) + len(one))
""", "not the first"),
        ("""
def answer_score(given, references):
    if not references:
        return 0.0
    def f1(one):
        if not given or not one:
            return float(given == one)
        shared = sum((Counter(given) & Counter(one)).values())
        return 2 * shared / (len(given) + len(one))
    return max(map(f1, references))
""", "answered rightly by saying nothing"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    def f1(one):
        if not given or not one:
            return float(given == one)
        return sum((Counter(given) & Counter(one)).values()) / len(given)
    return max(map(f1, references))
""", "That is precision"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    def f1(one):
        if not given or not one:
            return float(given == one)
        return sum((Counter(given) & Counter(one)).values()) / len(one)
    return max(map(f1, references))
""", "That is recall"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    best = 0.0
    for one in references:
        shared = sum((Counter(given) & Counter(one)).values())
        precision, recall = shared / len(given), shared / len(one)
        best = max(best, 2 * precision * recall / (precision + recall))
    return best
""", "raises ZeroDivisionError"),
        ("""
def answer_score(given, references):
    if not references:
        return float(not given)
    return float(given in references)
""", "expected 0.666667"),
    ],
}

RIGHT = {
    "ex06-token-span": [
        """
def token_span(places, begin, end):
    first = last = None
    for number, (a, b) in enumerate(places):
        if a < b and a <= begin < b:
            first = number
        if a < b and a < end <= b:
            last = number
    return None if first is None or last is None else (first, last)
""",
        """
def token_span(places, begin, end):
    owner = {c: i for i, (a, b) in enumerate(places) for c in range(a, b)}
    if any(c not in owner for c in range(begin, end)):
        return None
    return owner[begin], owner[end - 1]
""",
        """
def token_span(places, begin, end):
    real = [(i, a, b) for i, (a, b) in enumerate(places) if a != b]
    if not real or begin < real[0][1] or end > real[-1][2]:
        return None
    first = max(i for i, a, b in real if a <= begin)
    last = min(i for i, a, b in real if b >= end)
    return first, last
""",
    ],
    "ex06-references": [
        """
def answer_score(given, references):
    if not references:
        return 1.0 if given == [] else 0.0
    best = 0.0
    for one in references:
        left, shared = list(one), 0
        for word in given:
            if word in left:
                left.remove(word)
                shared += 1
        both = len(given) + len(one)
        best = max(best, 2 * shared / both if both else 1.0)
    return best
""",
        """
def answer_score(given, references):
    scores = [float(not given)] if not references else []
    for one in references:
        shared = sum(min(given.count(w), one.count(w)) for w in set(given))
        if given == one:
            scores.append(1.0)
        elif shared == 0:
            scores.append(0.0)
        else:
            p, r = shared / len(given), shared / len(one)
            scores.append(2 * p * r / (p + r))
    return max(scores)
""",
        """
def answer_score(given, references):
    total = lambda one: len(given) + len(one)
    shared = lambda one: (Counter(given) & Counter(one)).total()
    return max((2 * shared(one) / total(one) if total(one) else 1 for one in references or [[]]))
""",
    ],
}
