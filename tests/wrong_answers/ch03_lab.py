"""Plausible wrong answers to Chapter 3's exercises (lab), and what the check should say to each."""

WRONG = {
    "ex03-activation-bytes": [
        ("""
def swiglu_bytes(tokens, hidden, inner, width):
    return width * tokens * (2 * hidden + 4 * inner)
""", "it is kept once"),
        ("""
def swiglu_bytes(tokens, hidden, inner, width):
    return width * tokens * (hidden + 3 * inner)
""", "The last matrix needs its input"),
        ("""
def swiglu_bytes(tokens, hidden, inner, width):
    return width * tokens * 4 * inner
""", "need the MLP's input"),
        ("""
def swiglu_bytes(tokens, hidden, inner, width):
    return width * tokens * (hidden + 2 * inner)
""", "keeps both factors"),
        ("""
def swiglu_bytes(tokens, hidden, inner, width):
    return tokens * (hidden + 4 * inner)
""", "how many bytes has each"),
    ],
    "ex03-checkpoint-flops": [
        ("""
def checkpoint_factor(layers, hidden, context, vocab):
    return 4 / 3
""", "lie outside the blocks"),
        ("""
def checkpoint_factor(layers, hidden, context, vocab):
    blocks, logits = layers * (24 * hidden + 4 * context), 2 * vocab
    return (5 * blocks + 3 * logits) / (3 * blocks + 3 * logits)
""", "one part more, not two"),
        ("""
def checkpoint_factor(layers, hidden, context, vocab):
    blocks, logits = layers * (24 * hidden + 4 * context), 2 * vocab
    return blocks / (3 * blocks + 3 * logits)
""", "the factor is 1 more"),
        ("""
def checkpoint_factor(layers, hidden, context, vocab):
    blocks, logits = layers * 24 * hidden, 2 * vocab
    return (4 * blocks + 3 * logits) / (3 * blocks + 3 * logits)
""", "left attention's scores out"),
    ],
    "ex03-mfu": [
        ("""
def utilization(tokens_per_second, num_params, layers, hidden, context, devices, peak):
    return tokens_per_second * (6 * num_params + 12 * layers * hidden * context) / peak
""", "divide by the peak of all"),
        ("""
def utilization(tokens_per_second, num_params, layers, hidden, context, devices, peak):
    return tokens_per_second * 6 * num_params / (devices * peak)
""", "Attention is missing"),
        ("""
def utilization(tokens_per_second, num_params, layers, hidden, context, devices, peak):
    needed = 2 * num_params + 12 * layers * hidden * context
    return tokens_per_second * needed / (devices * peak)
""", "training takes 6N"),
        ("""
def utilization(tokens_per_second, num_params, layers, hidden, context, devices, peak):
    needed = 8 * num_params + 16 * layers * hidden * context
    return tokens_per_second * needed / (devices * peak)
""", "6N, not 8N"),
    ],
}
