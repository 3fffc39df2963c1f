"""Plausible wrong answers to Chapter 3's exercises (sequence), and what the check should say to each."""

WRONG = {
    "ex03-forget-bias": [
        ("""
def forget_bias(steps):
    return 0.5 ** (1 / steps)
""", "That is the gate itself"),
        ("""
def forget_bias(steps):
    gate = 0.5 ** (1 / steps)
    return math.log((1 - gate) / gate)
""", "The sign is turned"),
        ("""
def forget_bias(steps):
    gate = 1 - 0.5 / steps
    return math.log(gate / (1 - gate))
""", "Factors multiply"),
        ("""
def forget_bias(steps):
    gate = math.exp(-1 / steps)
    return math.log(gate / (1 - gate))
""", "not a half"),
    ],
    "ex03-causal-mask": [
        ("""
def window_mask(time, window, length):
    t, s = torch.arange(time)[:, None], torch.arange(time)
    return (s <= t) & (s >= t - window) & (s < length)
""", "one too wide"),
        ("""
def window_mask(time, window, length):
    t, s = torch.arange(time)[:, None], torch.arange(time)
    return (s > t) | (s <= t - window) | (s >= length)
""", "Turned round"),
        ("""
def window_mask(time, window, length):
    s, t = torch.arange(time)[:, None], torch.arange(time)
    return (s <= t) & (s > t - window) & (s < length)
""", "yours is transposed"),
        ("""
def window_mask(time, window, length):
    t, s = torch.arange(time)[:, None], torch.arange(time)
    return (s <= t) & (s > t - window)
""", "Padding is still visible"),
        ("""
def window_mask(time, window, length):
    return torch.ones(time, time).tril().bool() & (torch.arange(time) < length)
""", "The window is missing"),
        ("""
def window_mask(time, window, length):
    t, s = torch.arange(time)[:, None], torch.arange(time)
    return ((t - s).abs() < window) & (s < length)
""", "reaches into the future"),
        ("""
def window_mask(time, window, length):
    t, s = torch.arange(time)[:, None], torch.arange(time)
    return (s < t) & (s > t - window) & (s < length)
""", "may look at itself"),
    ],
    "ex03-attention": [
        ("""
def masked_attention(q, k, v, allowed):
    weights = (q @ k.T).masked_fill(~allowed, -torch.inf).softmax(-1)
    return weights.nan_to_num() @ v
""", "square root of the keys' width"),
        ("""
def masked_attention(q, k, v, allowed):
    scores = q @ k.T / q.shape[-1]
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num() @ v
""", "not by d_k"),
        ("""
def masked_attention(q, k, v, allowed):
    weights = (q @ k.T / q.shape[-1] ** 0.5).softmax(-1)
    return (weights * allowed) @ v
""", "no longer add up to 1"),
        ("""
def masked_attention(q, k, v, allowed):
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(0).nan_to_num() @ v
""", "softmax runs over keys"),
        ("""
def masked_attention(q, k, v, allowed):
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(allowed, -torch.inf)
    return scores.softmax(-1).nan_to_num() @ v
""", "The mask is turned round"),
        ("""
def masked_attention(q, k, v, allowed):
    return F.scaled_dot_product_attention(q, k, v)
""", "The mask is not used"),
        ("""
def masked_attention(q, k, v, allowed):
    scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v
""", "make it zero"),
    ],
}
