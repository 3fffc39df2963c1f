"""Plausible wrong answers to the exercises of Section 5.1's first half."""

WRONG = {
    "ex05-bands": [
        ("""
def choose_bands(size, similarity, at_least):
    for rows in range(1, size + 1):
        bands = size // rows
        if 1 - (1 - similarity**rows) ** bands >= at_least:
            return bands, rows
""", "take the most rows"),
        ("""
def choose_bands(size, similarity, at_least):
    for rows in range(size, 0, -1):
        bands = size // rows
        if 1 - (1 - similarity**rows) ** bands >= at_least:
            return rows, bands
""", "(bands, rows), in this order"),
        ("""
def choose_bands(size, similarity, at_least):
    for rows in range(size, 0, -1):
        bands = size // rows
        if size % rows == 0 and 1 - (1 - similarity**rows) ** bands >= at_least:
            return bands, rows
""", "some entries can stay unused"),
        ("""
def choose_bands(size, similarity, at_least):
    for rows in range(size, 0, -1):
        bands = size // rows
        if (1 / bands) ** (1 / rows) <= similarity:
            return bands, rows
""", "compare P(s) with at_least"),
    ],
    "ex05-keep-count": [
        ("""
def silent_losses(total, log):
    missing, before = {}, total
    for stage, kept, reasons in log:
        if before - kept - len(reasons):
            missing[stage] = before - kept - len(reasons)
        before = kept
    return missing
""", "add the counts, not the reasons"),
        ("""
def silent_losses(total, log):
    missing, before = {}, total
    for stage, kept, reasons in log:
        if before != kept:
            missing[stage] = before - kept
        before = kept
    return missing
""", "no silent loss"),
        ("""
def silent_losses(total, log):
    missing, before = {}, total
    for stage, kept, reasons in log:
        missing[stage] = before - kept - sum(reasons.values())
        before = kept
    return missing
""", "Leave out the stages"),
        ("""
def silent_losses(total, log):
    missing = {}
    for stage, kept, reasons in log:
        if total - kept - sum(reasons.values()):
            missing[stage] = total - kept - sum(reasons.values())
    return missing
""", "not for the total"),
    ],
}
