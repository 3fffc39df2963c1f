"""Plausible wrong answers to the exercises of Lab 5, and a part of the check's message for each."""

HEAD = "def steps_between(save_seconds, step_seconds, devices, device_days):\n"
M = "    between = device_days * 86_400 / devices\n"
NEWEST = "def newest_whole(listing):\n"
LOOP = NEWEST + "    for name in sorted(listing, key=lambda name: int(name[4:]), reverse=True):\n" \
    "        m, f = listing[name]['manifest'], listing[name]['files']\n"

WRONG = {
    "ex05-checkpoint-interval": [
        (HEAD + "    m = device_days * 86_400\n"
         "    return max(1, round((2 * save_seconds * m) ** 0.5 / step_seconds))", "divided by their number"),
        (HEAD + M + "    return max(1, round((save_seconds * between) ** 0.5 / step_seconds))",
         "there is a 2 under the root"),
        (HEAD + M + "    return max(1, round((2 * save_seconds * between) ** 0.5))", "how many steps"),
        (HEAD + "    between = device_days * 24 / devices\n"
         "    return max(1, round((2 * save_seconds * between) ** 0.5 / step_seconds))", "86 400 seconds"),
        (HEAD + M + "    return round((2 * save_seconds * between) ** 0.5 / step_seconds)", "One at least"),
        (HEAD + M + "    return max(1, round((2 * save_seconds * between) ** 0.5 * step_seconds))",
         "steps_between(50, 6, 1, 1)"),
    ],
    "ex05-newest-whole": [
        (NEWEST + "    good = [n for n, c in listing.items() if c['manifest'] is not None\n"
         "            and all(c['files'].get(k) == v for k, v in c['manifest'].items())]\n"
         "    return max(good, default=None)", "compare the numbers"),
        (LOOP + "        if m is not None:\n            return name", "A manifest alone is not enough"),
        (LOOP + "        if m is not None and set(m) <= set(f):\n            return name",
         "has each file the checksum"),
        (LOOP + "        if m is not None and all(m.get(k, v) == v for k, v in f.items()):\n"
         "            return name",
         "is missing in the one you chose"),
        (LOOP + "        if m == f:\n            return name", "does no harm"),
        (NEWEST + "    return max(listing, key=lambda name: int(name[4:]), default=None)", "newest_whole("),
    ],
}
