"""Plausible wrong answers to Chapter 2's exercises (architecture), and what the check should say to each."""

WRONG = {
    "ex02-init-std": [
        ("""
def init_std(fan_in, slope):
    return 2 / ((1 + slope**2) * fan_in)
""", "the question is about the standard deviation"),
        ("""
def init_std(fan_in, slope):
    return math.sqrt(2 / ((1 + slope) * fan_in))
""", "its factor is a²"),
        ("""
def init_std(fan_in, slope):
    return math.sqrt(2 / fan_in)
""", "the negative half still passes a part on"),
        ("""
def init_std(fan_in, slope):
    return (fan_in * (1 + slope**2)) ** -0.5
""", "Only half of y is negative"),
        ("""
def init_std(fan_in, slope):
    return math.sqrt((1 + slope**2) / 2 / fan_in)
""", "divide by the factor"),
    ],
    "ex02-residual-variance": [
        ("""
def residual_variance(num_blocks, scale, norm_first):
    if norm_first:
        return 1 + num_blocks * scale**2
    return (1 + scale**2) ** num_blocks
""", "A block adds twice"),
        ("""
def residual_variance(num_blocks, scale, norm_first):
    v = 1
    for _ in range(2 * num_blocks):
        v += scale if norm_first else scale * v
    return v
""", "its variance scaled by s²"),
        ("""
def residual_variance(num_blocks, scale, norm_first):
    if norm_first:
        return 2 * num_blocks * scale**2
    return (1 + scale**2) ** (2 * num_blocks) - 1
""", "The input's own variance is missing"),
        ("""
def residual_variance(num_blocks, scale, norm_first):
    return 1 + 2 * num_blocks * scale**2
""", "each addition multiplies by 1 + s²"),
        ("""
def residual_variance(num_blocks, scale, norm_first):
    return (1 + scale**2) ** (2 * num_blocks)
""", "the terms add up"),
    ],
    "ex02-rms-norm-backward": [
        ("""
def rms_norm_backward(grad_y, x, eps):
    rms = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    y = x / rms
    g = grad_y
    return (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)) / rms
""", "a shift of x matters"),
        ("""
def rms_norm_backward(grad_y, x, eps):
    return grad_y / (x.square().mean(-1, keepdim=True) + eps).sqrt()
""", "a correction is missing"),
        ("""
def rms_norm_backward(grad_y, x, eps):
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return grad_y - y * (grad_y * y).mean(-1, keepdim=True)
""", "Divide by the root mean square"),
        ("""
def rms_norm_backward(grad_y, x, eps):
    rms = (x.square().mean(-1, keepdim=True) + eps).sqrt()
    y = x / rms
    return (grad_y - y * (grad_y * y).sum(-1, keepdim=True)) / rms
""", "take the mean of g·y, not its sum"),
    ],
}
