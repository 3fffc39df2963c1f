"""Plausible wrong answers to Chapter 2's exercises (principles), and what the check should say to each."""

WRONG = {
    "ex02-jacobian-cost": [
        ("""
def jacobian_cost(widths):
    n, k = widths, len(widths) - 1
    forward = sum(n[k] * n[i] * n[i - 1] for i in range(1, k))
    reverse = sum(n[i] * n[i - 1] * n[0] for i in range(2, k + 1))
    return forward, reverse
""", "Forward and reverse are exchanged"),
        ("""
def jacobian_cost(widths):
    n, k = widths, len(widths) - 1
    return (sum(n[i] * n[i - 1] for i in range(2, k + 1)),
            sum(n[i] * n[i - 1] for i in range(1, k)))
""", "You count one vector"),
        ("""
def jacobian_cost(widths):
    n, k = widths, len(widths) - 1
    return (sum(n[i] * n[i - 1] * n[0] for i in range(1, k + 1)),
            sum(n[k] * n[i] * n[i - 1] for i in range(1, k + 1)))
""", "k matrices take k − 1 products"),
        ("""
def jacobian_cost(widths):
    total = sum(a * b for a, b in zip(widths, widths[1:]))
    return total, total
""", "the number of entries of the Jacobians"),
    ],
    "ex02-embedding-backward": [
        ("""
def embedding_backward(grad, ids, vocab_size):
    table = np.zeros((vocab_size, grad.shape[1]))
    table[ids] += grad
    return table
""", "keeps only its last gradient"),
        ("""
def embedding_backward(grad, ids, vocab_size):
    table = np.zeros((vocab_size, grad.shape[1]))
    for i in set(ids.tolist()):
        table[i] = grad[ids == i].mean(0)
    return table
""", "contributions add up"),
        ("""
def embedding_backward(grad, ids, vocab_size):
    counts = np.bincount(ids, minlength=vocab_size).astype(float)
    return np.repeat(counts[:, None], grad.shape[1], axis=1)
""", "counts how often each token occurs"),
        ("""
def embedding_backward(grad, ids, vocab_size):
    table = np.zeros((ids.max() + 1, grad.shape[1]))
    np.add.at(table, ids, grad)
    return table
""", "returns shape (3, 2), expected (4, 2)"),
    ],
    "ex02-softmax-backward": [
        ("""
def softmax_backward(logits, labels):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p
""", "the mean divides it by the number of samples"),
        ("""
def softmax_backward(logits, labels):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / p.size
""", "averages over samples only"),
        ("""
def softmax_backward(logits, labels):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return (np.eye(logits.shape[1])[labels] - p) / len(labels)
""", "raising the right logit must lower the loss"),
        ("""
def softmax_backward(logits, labels):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) / len(labels)
""", "the right class loses 1"),
        ("""
def softmax_backward(logits, labels):
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p / len(labels)
""", "Large logits overflow"),
    ],
}
