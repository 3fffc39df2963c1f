"""Plausible wrong answers to Chapter 5's exercises (evaluation), and what the check should say to each."""

WRONG = {
    "ex05-f1": [
        ("def macro_f1(counts):\n    t = np.array(counts)\n    return float(t.diagonal().sum() / t.sum())",
         "That is accuracy"),
        ("def macro_f1(counts):\n    t = np.array(counts)\n"
         "    return float(np.mean(t.diagonal() / np.maximum(t.sum(1), 1)))", "That is recall"),
        ("def macro_f1(counts):\n    t = np.array(counts)\n    below = t.sum(0) + t.sum(1)\n"
         "    f1 = 2 * t.diagonal() / np.maximum(below, 1)\n"
         "    return float((f1 * t.sum(1)).sum() / t.sum())", "macro means that each counts once"),
    ],
    "ex05-quantized-bytes": [
        ("def quantized_bytes(rows, columns, bits, group):\n    return math.ceil(rows * columns * bits / 8)",
         "The scales are missing"),
        ("def quantized_bytes(rows, columns, bits, group):\n"
         "    return math.ceil(rows * columns * bits / 8) + rows * math.ceil(columns / group)",
         "A scale takes two bytes"),
        ("def quantized_bytes(rows, columns, bits, group):\n"
         "    return math.ceil(rows * columns * bits / 8) + 2 * math.ceil(rows * columns / group)",
         "Groups end with their row"),
    ],
}
