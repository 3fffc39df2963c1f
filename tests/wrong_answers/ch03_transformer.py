"""Plausible wrong answers to Chapter 3's exercises (transformer), and what the check should say to each."""

WRONG = {
    "ex03-prefix-mask": [
        ("""
def prefix_mask(prefix, time):
    return torch.ones(time, time, dtype=torch.bool).tril()
""", "the prefix must see all of itself"),
        ("""
def prefix_mask(prefix, time):
    mask = torch.ones(time, time, dtype=torch.bool).tril()
    mask[:prefix] = True
    return mask
""", "the condition is on the key, not the query"),
        ("""
def prefix_mask(prefix, time):
    mask = torch.ones(time, time, dtype=torch.bool).triu()
    mask[:prefix] = True
    return mask
""", "rows are queries"),
        ("""
def prefix_mask(prefix, time):
    mask = torch.ones(time, time, dtype=torch.bool).triu(1)
    mask[:, :prefix] = False
    return mask
""", "True means that the query may look"),
        ("""
def prefix_mask(prefix, time):
    mask = torch.zeros(time, time, dtype=torch.bool)
    mask[:, :prefix] = True
    return mask
""", "what was written before it"),
        ("""
def prefix_mask(prefix, time):
    t = torch.arange(time)
    return (t <= t[:, None]) | (t <= prefix)
""", "Off by one"),
        ("""
def prefix_mask(prefix, time):
    mask = torch.ones(time, time).tril()
    mask[:, :prefix] = 1
    return mask
""", "dtype torch.float32, expected torch.bool"),
    ],
    "ex03-rotary": [
        ("""
def rotate_pairs(x, positions):
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(),
                      a * angles.sin() + b * angles.cos()], -1)
""", "Llama's pairs"),
        ("""
def rotate_pairs(x, positions):
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * angles.cos() + b * angles.sin(),
                        -a * angles.sin() + b * angles.cos()], -1).flatten(-2)
""", "turns clockwise"),
        ("""
def rotate_pairs(x, positions):
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(d // 2) / d)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * angles.cos() - b * angles.sin(),
                        a * angles.sin() + b * angles.cos()], -1).flatten(-2)
""", "2i/d for pair i"),
        ("""
def rotate_pairs(x, positions):
    angles = positions[:, None].float()
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * angles.cos() - b * angles.sin(),
                        a * angles.sin() + b * angles.cos()], -1).flatten(-2)
""", "at different speeds"),
        ("""
def rotate_pairs(x, positions):
    d = x.shape[-1]
    angles = torch.arange(x.shape[-2])[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * angles.cos() - b * angles.sin(),
                        a * angles.sin() + b * angles.cos()], -1).flatten(-2)
""", "Use the positions given"),
        ("""
def rotate_pairs(x, positions):
    d = x.shape[-1]
    angles = positions[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.cat([a * angles.cos() - b * angles.sin(),
                      a * angles.sin() + b * angles.cos()], -1)
""", "not interleaved again"),
    ],
    "ex03-swiglu-width": [
        ("""
def swiglu_width(hidden_size, multiple=256):
    return 8 * hidden_size // 3
""", "round it up to a multiple"),
        ("""
def swiglu_width(hidden_size, multiple=256):
    return int(8 * hidden_size / 3 / multiple) * multiple
""", "You rounded down"),
        ("""
def swiglu_width(hidden_size, multiple=256):
    return (8 * hidden_size // 3 // multiple + 1) * multiple
""", "always add one multiple"),
        ("""
def swiglu_width(hidden_size, multiple=256):
    return round(8 * hidden_size / 3 / multiple) * multiple
""", "nearest multiple"),
        ("""
def swiglu_width(hidden_size, multiple=256):
    return -(-4 * hidden_size // multiple) * multiple
""", "starts from 4h"),
    ],
    "ex03-gqa-bytes": [
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    return free_bytes // (num_layers * context * num_kv_heads * head_size * width)
""", "Keys and values both"),
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    return free_bytes // (2 * num_layers * context * num_kv_heads * head_size)
""", "each takes `width` bytes"),
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    return free_bytes // (2 * context * num_kv_heads * head_size * width)
""", "Every layer has a cache"),
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    return free_bytes // (2 * num_layers * context * head_size * width)
""", "keeps its own keys"),
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    return free_bytes / (2 * num_layers * context * num_kv_heads * head_size * width)
""", "whole conversations only"),
        ("""
def conversations(free_bytes, context, num_layers, num_kv_heads, head_size, width=2):
    one = 2 * num_layers * context * num_kv_heads * head_size * width
    return math.ceil(free_bytes / one)
""", "Round down, not up"),
    ],
}
