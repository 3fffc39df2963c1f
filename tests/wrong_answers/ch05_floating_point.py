"""Plausible wrong answers to Chapter 5's exercises (floating point), and what the check should say."""

SCALES = "def loss_scales(smallest, largest):\n    return [k for k in range(-60, 60) if "

WRONG = {
    "ex05-spacing": [
        ("def spacing(x, e, m):\n    return 2.0 ** -m", "doubles with every power of two"),
        ("def spacing(x, e, m):\n    return x * 2.0 ** -m",
         "between two powers of two the gap does not grow"),
        ("def spacing(x, e, m):\n    return 2.0 ** (math.floor(math.log2(x)) - m)",
         "subnormals are evenly spaced"),
        ("def spacing(x, e, m):\n    return 2.0 ** (max(math.frexp(x)[1], 2 - 2 ** (e - 1)) - m)",
         "frexp's exponent as it is"),
    ],
    "ex05-loss-scale": [
        (SCALES + "smallest * 2.0**k >= 2.0**-25 and largest * 2.0**k < 65520]", "is a tie and becomes 0"),
        (SCALES + "smallest * 2.0**k > 2.0**-14 and largest * 2.0**k < 65520]",
         "Subnormal numbers are not lost"),
        (SCALES + "smallest * 2.0**k > 2.0**-25 and largest * 2.0**k < 2.0**30]",
         "the largest gradient must stay finite"),
    ],
}
