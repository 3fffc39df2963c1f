"""Plausible wrong answers to Chapter 4's exercises on objectives."""

LOOP = """
def masked_example(tokens, draws, dice, other, special, mask):
    inputs, targets = [], []
    for token, draw, die, instead in zip(tokens, draws, dice, other):
        chosen = draw < 0.15 and token not in special
        shown = mask if die < 0.8 else instead if die < 0.9 else token
        inputs.append(shown if chosen else token)
        targets.append(token if chosen else -100)
    return inputs, targets
"""
SPANS = """
def span_targets(words, cut):
    target, gaps = [], 0
    for i, word in enumerate(words):
        if i in cut:
            if i - 1 not in cut:
                target.append(f"<{gaps}>")
                gaps += 1
            target.append(word)
    return [*target, f"<{gaps}>"]
"""

WRONG = {
    "ex04-mask-tokens": [
        (LOOP.replace(" and token not in special", ""), "Special tokens were hidden"),
        (LOOP.replace("mask if die < 0.8 else instead if die < 0.9 else token", "mask"),
         "All chosen places became the mark"),
        (LOOP.replace("instead if die < 0.9 else token", "instead"), "it is not replaced"),
        (LOOP.replace("append(token if chosen else", "append(inputs[-1] if chosen else"),
         "not what the input shows now"),
        (LOOP.replace("token if chosen else -100", "token if inputs[-1] != token else -100"),
         "stays has a target too"),
        (LOOP.replace("else -100", "else 0"), "which the loss leaves out"),
    ],
    "ex04-span-targets": [
        (SPANS.replace("if i - 1 not in cut:", "if True:"), "one gap with one sentinel"),
        (SPANS.replace('[*target, f"<{gaps}>"]', "target"), "The last sentinel is missing"),
        (SPANS.replace("[], 0", "[], 1"), "The first sentinel is <0>"),
        (SPANS.replace("    return", "        else:\n            target.append(word)\n    return"),
         "only what was cut"),
    ],
}
