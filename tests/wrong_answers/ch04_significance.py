"""Plausible wrong answers to Chapter 4's exercises (significance), and what the check should say to each."""

HEAD = "\ndef tokens_needed(loss, N, E, A, B, alpha, beta):\n"
AFFORD = "\ndef affordable(gpus, days, peak_flops, mfu):\n"

WRONG = {
    "ex04-tokens-needed": [
        (HEAD + """    rest = loss - E
    return (B / rest) ** (1 / beta) if rest > 0 else math.inf
""", "no size would ever be too small"),
        (HEAD + """    rest = loss - A / N**alpha
    return (B / rest) ** (1 / beta) if rest > 0 else math.inf
""", "it remains however much text"),
        (HEAD + """    rest = loss - E - A / N**alpha
    return B / rest if rest > 0 else math.inf
""", "you have not taken the root"),
        (HEAD + """    rest = loss - E - A / N**alpha
    return (B / rest) ** (1 / alpha) if rest > 0 else math.inf
""", "which belongs to the size"),
        (HEAD + """    return (B / (loss - E - A / N**alpha)) ** (1 / beta)
""", "raises ZeroDivisionError"),
    ],
    "ex04-affordable": [
        (AFFORD + """    size = (gpus * days * peak_flops * mfu / 120) ** 0.5
    return [size, 20 * size]
""", "A day has 86,400 seconds"),
        (AFFORD + """    size = (gpus * days * 86400 * peak_flops / 120) ** 0.5
    return [size, 20 * size]
""", "only the share mfu"),
        (AFFORD + """    size = (gpus * days * 86400 * peak_flops * mfu / 40) ** 0.5
    return [size, 20 * size]
""", "training costs 6ND"),
        (AFFORD + """    size = gpus * days * 86400 * peak_flops * mfu / 120
    return [size, 20 * size]
""", "forgot the root"),
        (AFFORD + """    size = (gpus * days * 86400 * peak_flops * mfu / 120) ** 0.5
    return [20 * size, size]
""", "gives 20, expected 1"),
    ],
}
