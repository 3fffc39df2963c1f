"""Plausible wrong answers to the exercises of Lab 6, and what the check says to each; right ones, too."""

FACTOR = "def loss_factor(targets, rank, micro):\n"
ALL = FACTOR + "    total = sum(map(sum, targets))\n"
SPLIT = "def repaired_split(pairs, test_groups):\n"
BARE = SPLIT + "    bare = lambda t: ''.join(c for c in t.lower() if c.isalnum())\n"
TEST = "    test = [p for p in pairs if p[2] in test_groups]\n"
REST = "    rest = [p for p in pairs if p[2] not in test_groups]\n"
KNOWN = "    known = [{bare(p[i]) for p in test} for i in (0, 1)]\n"

WRONG = {
    "ex06-loss-scale": [
        (FACTOR + "    return 1 / targets[rank][micro]", "mean of each micro-batch by itself"),
        (FACTOR + "    return len(targets[rank]) / sum(targets[rank])", "each rank's own mean"),
        (ALL + "    return 1 / total if total else 0.0", "multiply by both"),
        (ALL + "    return len(targets) / total if total else 0.0",
         "also divides by the number of micro-batches"),
        (ALL + "    return len(targets[0]) / total if total else 0.0", "also takes the mean over the ranks"),
        (ALL + "    return len(targets) * len(targets[0]) / total", "its factor is 0"),
        (FACTOR + "    return 1.0", "leaves the sum a sum"),
        (ALL + "    return total / (len(targets) * len(targets[0]))", "upside down"),
        (ALL + "    return targets[rank][micro] / total if total else 0.0", "gives 0.75, expected 0.25"),
        (ALL + "    total / (len(targets) * len(targets[0]))", "did you forget `return`"),
    ],
    "ex06-repair-leak": [
        (SPLIT + TEST + REST + "    return rest, test", "phrase still stands on both sides"),
        (SPLIT + TEST + "    s = {p[0] for p in test}\n    t = {p[1] for p in test}\n"
         "    return [p for p in pairs if p[2] not in test_groups and p[0] not in s and p[1] not in t], test",
         "are one phrase"),
        (SPLIT + TEST + "    s = {p[0].lower() for p in test}\n    t = {p[1].lower() for p in test}\n"
         "    return [p for p in pairs if p[2] not in test_groups and p[0].lower() not in s\n"
         "            and p[1].lower() not in t], test", "keep letters and digits only"),
        (SPLIT + "    bare = lambda t: ''.join(c for c in t if c.isalnum())\n" + TEST + REST + KNOWN
         + "    return [p for p in rest if bare(p[0]) not in known[0] and bare(p[1]) not in known[1]], test",
         "Upper and lower case"),
        *((SPLIT + f"    bare = lambda t: {key}\n" + TEST + REST + KNOWN
           + "    return [p for p in rest\n"
           "            if bare(p[0]) not in known[0] and bare(p[1]) not in known[1]], test", said)
          for key, said in [
              ("''.join(c for c in t.lower() if c.isalpha())", "Digits count"),
              ("t.lower().strip(' .!。！')", "repaired_split("),
              ("''.join(sorted(c for c in t.lower() if c.isalnum()))", "repaired_split("),
              ("''.join(c for c in t.lower() if c.isalnum())[:6]", "repaired_split("),
              ("''.join(c for c in t.lower() if c.isalnum() or c == '_')", "repaired_split(")]),
        (BARE + TEST + REST + KNOWN + "    return [p for p in rest if bare(p[0]) not in known[0]], test",
         "A known target leaks as well"),
        (BARE + TEST + REST + KNOWN + "    return [p for p in rest if bare(p[1]) not in known[1]], test",
         "A known source leaks as well"),
        (BARE + TEST + REST + "    s = {bare(p[0]) for p in rest}\n    t = {bare(p[1]) for p in rest}\n"
         "    return rest, [p for p in test if bare(p[0]) not in s and bare(p[1]) not in t]",
         "drop from train"),
        (BARE + TEST + REST + KNOWN + "    known = known[0] | known[1]\n"
         "    return [p for p in rest if bare(p[0]) not in known and bare(p[1]) not in known], test",
         "compare sources with sources"),
        (BARE + TEST + REST + KNOWN
         + "    return test, [p for p in rest if bare(p[0]) not in known[0] and bare(p[1]) not in known[1]]",
         "The two parts are exchanged"),
        (BARE + TEST + REST + KNOWN
         + "    good = {p for p in rest if bare(p[0]) not in known[0] and bare(p[1]) not in known[1]}\n"
         "    return sorted(good), sorted(test)", "repaired_split("),
    ],
}

RIGHT = {
    "ex06-loss-scale": [
        ALL + "    return len(targets) * len(targets[0]) / total if total else 0.0",
        FACTOR + "    import numpy as np\n    a = np.array(targets)\n"
        "    return a.size / a.sum() if a.any() else 0.0",
        FACTOR + "    flat = [t for row in targets for t in row]\n"
        "    try:\n        return len(flat) / sum(flat)\n    except ZeroDivisionError:\n        return 0.0",
    ],
    "ex06-repair-leak": [
        BARE + TEST + REST + KNOWN
        + "    return [p for p in rest if bare(p[0]) not in known[0] and bare(p[1]) not in known[1]], test",
        "import re\n\n" + SPLIT + "    def key(t):\n        return re.sub(r'[\\W_]+', '', t.lower())\n"
        "    train, test = [], []\n"
        "    for p in pairs:\n        (test if p[2] in test_groups else train).append(p)\n"
        "    sources, targets = {key(p[0]) for p in test}, {key(p[1]) for p in test}\n"
        "    train = [p for p in train if not (key(p[0]) in sources or key(p[1]) in targets)]\n"
        "    return train, test",
        BARE + TEST + "    known = {(i, bare(p[i])) for p in test for i in (0, 1)}\n"
        "    train = list(filter(lambda p: p[2] not in test_groups and\n"
        "                        not {(0, bare(p[0])), (1, bare(p[1]))} & known, pairs))\n"
        "    return train, test",
    ],
}
