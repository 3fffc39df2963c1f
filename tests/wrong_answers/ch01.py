"""Plausible wrong answers to Chapter 1's exercises, and what the check should say to each."""

WRONG = {
    "ex01-perplexity": [
        ("""
def perplexity(probabilities):
    return math.exp(-sum(math.log(p) for p in probabilities))
""", "divide the sum of logarithms by the tokens"),
        ("""
def perplexity(probabilities):
    return len(probabilities) / sum(probabilities)
""", "average their logarithms"),
        ("""
def perplexity(probabilities):
    return -sum(math.log(p) for p in probabilities) / len(probabilities)
""", "cross-entropy in nats"),
        ("""
def perplexity(probabilities):
    return 2 ** (-sum(math.log(p) for p in probabilities) / len(probabilities))
""", "Base and logarithm must fit"),
        ("""
def perplexity(probabilities):
    math.exp(-sum(math.log(p) for p in probabilities) / len(probabilities))
""", "did you forget `return`"),
    ],
    "ex01-bits-per-byte": [
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token * num_tokens / num_bytes
""", "nats per byte: divide by ln 2"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token * math.log(2) * num_tokens / num_bytes
""", "a nat is more than a bit"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token / math.log(2) * num_bytes / num_tokens
""", "Tokens and bytes are exchanged"),
    ],
    "ex01-continuation": [
        ("""
def continuation(text):
    return {c: n / len(text) for c, n in Counter(text).items()}
""", "count its different predecessors"),
        ("""
def continuation(text):
    followed = Counter(text[1:])
    return {c: n / followed.total() for c, n in followed.items()}
""", "make the pairs a set first"),
        ("""
def continuation(text):
    return Counter(pair[1] for pair in {text[i : i + 2] for i in range(len(text) - 1)})
""", "must add up to 1"),
        ("""
def continuation(text):
    pairs = {text[i : i + 2] for i in range(len(text) - 1)}
    return {c: n / len(pairs) for c, n in Counter(pair[0] for pair in pairs).items()}
""", "count different predecessors"),
    ],
    "ex01-llama-params": [
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 3 * h * mlp_size + 2 * h) + vocab_size * h + h
""", "V·h counts twice"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 2 * h * mlp_size + 2 * h) + 2 * vocab_size * h + h
""", "three matrices"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 3 * h * mlp_size) + 2 * vocab_size * h
""", "The norms are missing"),
    ],
    "ex01-training-days": [
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens / (devices * peak_flops) / 86400
""", "the utilization is missing"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 2 * num_params * num_tokens / (devices * peak_flops * utilization) / 86400
""", "forward pass only"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens / (devices * peak_flops * utilization) / 3600
""", "These are hours"),
    ],
    "ex01-average-gradients": [
        ("""
def average_gradients(gradients, samples):
    return [sum(column) / len(samples) for column in zip(*gradients)]
""", "the mean of the means"),
        ("""
def average_gradients(gradients, samples):
    return [sum(column) for column in zip(*gradients)]
""", "the sum over ranks"),
        ("""
def average_gradients(gradients, samples):
    for r, n in enumerate(samples):
        gradients[r] = [n * g for g in gradients[r]]
    return [sum(column) / sum(samples) for column in zip(*gradients)]
""", "changes its argument"),
    ],
}
