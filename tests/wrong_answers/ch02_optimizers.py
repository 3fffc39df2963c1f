"""Plausible wrong answers to Chapter 2's exercises (optimizers), and what the check should say to each."""

WRONG = {
    "ex02-largest-step": [
        ("""
def largest_step(hessian, mu):
    return 2 / torch.linalg.eigvalsh(hessian)[-1].item()
""", "with momentum the limit moves"),
        ("""
def largest_step(hessian, mu):
    return 2 * (1 - mu) / torch.linalg.eigvalsh(hessian)[-1].item()
""", "Momentum raises the limit"),
        ("""
def largest_step(hessian, mu):
    return 2 * (1 + mu) / torch.linalg.eigvalsh(hessian)[0].item()
""", "the largest eigenvalue, not the smallest"),
        ("""
def largest_step(hessian, mu):
    return 2 * (1 + mu) / hessian.diagonal().max().item()
""", "The diagonal is not enough"),
        ("""
def largest_step(hessian, mu):
    return (1 + mu) / torch.linalg.eigvalsh(hessian)[-1].item()
""", "reaches the bottom at once"),
        ("""
def largest_step(hessian, mu):
    return 2 * (1 + mu) / hessian.trace().item()
""", "expected"),
    ],
    "ex02-adam-step": [
        ("""
def adam_step(w, g, m, s, t, lr):
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    return w - lr * m / (math.sqrt(s) + 1e-8), m, s
""", "correction for the start at zero is missing"),
        ("""
def adam_step(w, g, m, s, t, lr):
    m = (0.9 * m + 0.1 * g) / (1 - 0.9**t)
    s = (0.999 * s + 0.001 * g**2) / (1 - 0.999**t)
    return w - lr * m / (math.sqrt(s) + 1e-8), m, s
""", "You stored the corrected means"),
        ("""
def adam_step(w, g, m, s, t, lr):
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * abs(g)
    step = m / (1 - 0.9**t) / (math.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return w - lr * step, m, s
""", "running mean of the squares"),
        ("""
def adam_step(w, g, m, s, t, lr):
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    step = m / (1 - 0.9**t) / math.sqrt(s / (1 - 0.999**t) + 1e-8)
    return w - lr * step, m, s
""", "stands outside the root"),
        ("""
def adam_step(w, g, m, s, t, lr):
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    step = m / (1 - 0.9**t) / (math.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return w + lr * step, m, s
""", "You climb"),
    ],
    "ex02-optimizer-bytes": [
        ("""
def state_bytes(shapes):
    return 16 * sum(math.prod(shape) for shape in shapes.values())
""", "All parameters got AdamW's 16 bytes"),
        ("""
def state_bytes(shapes):
    return sum(math.prod(s) * (12 if len(s) == 2 else 16) for s in shapes.values())
""", "The embeddings are matrices too"),
        ("""
def state_bytes(shapes):
    return sum(math.prod(s) * (8 if len(s) == 2 and "embed" not in name else 12)
               for name, s in shapes.items())
""", "add 2 bytes for the weight"),
        ("""
def state_bytes(shapes):
    return 12 * sum(math.prod(shape) for shape in shapes.values())
""", "AdamW keeps one tensor more"),
        ("""
def state_bytes(shapes):
    return sum(math.prod(s) * (10 if len(s) == 2 and "embed" not in name else 14)
               for name, s in shapes.items())
""", "The gradients are missing"),
    ],
}
