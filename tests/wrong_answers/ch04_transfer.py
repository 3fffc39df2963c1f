"""Plausible wrong answers to section 4.3's exercises, and what the check should say to each."""

WRONG = {
    "ex04-lora-merge": [
        ("""
def swap_adapter(W, old, new):
    A, B, alpha = new
    return W + alpha / len(A) * B @ A
""", "old change is still in"),
        ("""
def swap_adapter(W, old, new):
    (A, B, alpha), (A2, B2, alpha2) = old, new
    return W + alpha / len(A) * B @ A - alpha2 / len(A2) * B2 @ A2
""", "signs are exchanged"),
        ("""
def swap_adapter(W, old, new):
    (A, B, alpha), (A2, B2, alpha2) = old, new
    return W - B @ A + B2 @ A2
""", "factor alpha / rank is missing"),
        ("""
def swap_adapter(W, old, new):
    (A, B, alpha), (A2, B2, alpha2) = old, new
    return W - alpha * B @ A + alpha2 * B2 @ A2
""", "not alpha: each adapter"),
        ("""
def swap_adapter(W, old, new):
    (A, B, alpha), (A2, B2, alpha2) = old, new
    W -= alpha / len(A) * B @ A
    W += alpha2 / len(A2) * B2 @ A2
    return W
""", "changes its argument"),
    ],
    "ex04-trainable-bytes": [
        ("""
def lora_bytes(num_params, num_layers, shapes, rank, frozen_width, states):
    return 4 * (2 + states) * num_layers * sum(rank * (o + i) for o, i in shapes)
""", "frozen weights are missing"),
        ("""
def lora_bytes(num_params, num_layers, shapes, rank, frozen_width, states):
    adapters = num_layers * sum(rank * (o + i) for o, i in shapes)
    return frozen_width * num_params + 4 * (1 + states) * adapters
""", "gradients are missing"),
        ("""
def lora_bytes(num_params, num_layers, shapes, rank, frozen_width, states):
    adapters = num_layers * sum(rank * (o + i) for o, i in shapes)
    return frozen_width * num_params + 16 * adapters
""", "use `states`"),
        ("""
def lora_bytes(num_params, num_layers, shapes, rank, frozen_width, states):
    adapters = num_layers * sum(o * i for o, i in shapes)
    return frozen_width * num_params + 4 * (2 + states) * adapters
""", "not out·in"),
        ("""
def lora_bytes(num_params, num_layers, shapes, rank, frozen_width, states):
    adapters = num_layers * sum(rank * i for o, i in shapes)
    return frozen_width * num_params + 4 * (2 + states) * adapters
""", "one is missing"),
    ],
}
