"""Plausible wrong answers to the exercise of Part 6.1 d, and what the check says to each; right ones, too."""

WRONG = {
    "ex06-entities": [
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate(tags):
        goes_on = start is not None and tag == "I-" + tags[start][2:]
        if start is not None and not goes_on:
            found.append((start, i, tags[start][2:]))
            start = None
        if start is None and tag != "O":
            start = i
    return found
""", "A name that reaches to the end of the sentence is lost"),
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag != "I-" + tags[start][2:]:
            found.append((start, i, tags[start][2:]))
            start = None
        if tag[0] == "B":
            start = i
    return found
""", "you pass over it"),
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag[0] != "I":
            found.append((start, i, tags[start][2:]))
            start = None
        if start is None and tag != "O":
            start = i
    return found
""", "cannot continue a name"),
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag[1:] != tags[start][1:]:
            found.append((start, i, tags[start][2:]))
            start = None
        if start is None and tag != "O":
            start = i
    return found
""", "Each B begins a name of its own"),
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag != "I-" + tags[start][2:]:
            found.append((start, i - 1, tags[start][2:]))
            start = None
        if start is None and tag != "O":
            start = i
    return found
""", "The end is exclusive"),
        ("""
def entities(tags):
    found, before = [], "O"
    for i, tag in enumerate(tags):
        if tag[0] == "I" and before[1:] == tag[1:]:
            found[-1] = (found[-1][0], i + 1, found[-1][2])
        elif tag != "O":
            found.append((i, i + 1, tag))
        before = tag
    return found
""", "without them"),
        ("""
def entities(tags):
    found, start = [], None
    for i, tag in enumerate(tags):
        if start is not None and tag != "I-" + tags[start][2:]:
            found.append((start, i, tags[start][2:]))
            start = None
        if tag[0] == "B":
            start = i
    return found
""", "both the last name of a sentence and"),
        ("""
import itertools

def entities(tags):
    found, place = [], 0
    for inside, run in itertools.groupby(tags, lambda tag: tag != "O"):
        run = list(run)
        if inside:
            found.append((place, place + len(run), run[0][2:]))
        place += len(run)
    return found
""", "take all tags other than O together"),
        ("""
def entities(tags):
    found, before = [], "O"
    for i, tag in enumerate(tags):
        if tag[0] == "I" and before[1:] == tag[1:]:
            found[-1] = (found[-1][0], i + 1)
        elif tag != "O":
            found.append((i, i + 1))
        before = tag
    return found
""", "without their kind"),
        ("""
def entities(tags):
    for i, tag in enumerate(tags):
        if tag[0] == "I" and tags[i - 1] == "O":
            tags[i] = "B" + tag[1:]
    found, before = [], "O"
    for i, tag in enumerate(tags):
        if tag[0] == "I" and before[1:] == tag[1:]:
            found[-1] = (found[-1][0], i + 1, found[-1][2])
        elif tag != "O":
            found.append((i, i + 1, tag[2:]))
        before = tag
    return found
""", "changes its argument"),
        ("""
def entities(tags):
    found = []
    while tags and tags[0] != "O":
        found.append((0, 1, tags[0][2:]))
    return found
""", "did not finish"),
    ],
}

RIGHT = {
    "ex06-entities": [
        """
def entities(tags):
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag != "I-" + tags[start][2:]:
            found.append((start, i, tags[start][2:]))
            start = None
        if start is None and tag != "O":
            start = i
    return found
""",
        """
def entities(tags):
    begins = [i for i, tag in enumerate(tags)
              if tag != "O" and (tag[0] == "B" or i == 0 or tags[i - 1][1:] != tag[1:])]
    found = []
    for begin in begins:
        end = begin + 1
        while end < len(tags) and tags[end] == "I" + tags[begin][1:]:
            end += 1
        found.append([begin, end, tags[begin].split("-", 1)[1]])
    return found
""",
        """
import re

def entities(tags):
    import numpy as np
    kinds = sorted({tag[2:] for tag in tags if tag != "O"})
    found = []
    for number, kind in enumerate(kinds):
        line = "".join(tag[0] if tag[2:] == kind else "O" for tag in tags)
        found += [(np.int64(m.start()), m.end(), kind) for m in re.finditer("[BI]I*", line)]
    return tuple(sorted(found))
""",
    ],
}
