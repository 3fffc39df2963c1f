"""Plausible wrong answers to Chapter 1's exercises, and what the check says to each; right ones, too."""

WRONG = {
    "ex01-temperature": [
        ("""
def sharpen(probabilities, temperature):
    powers = [p ** temperature for p in probabilities]
    return [power / sum(powers) for power in powers]
""", "a small T must make the likely tokens likelier"),
        ("""
def sharpen(probabilities, temperature):
    return [p ** (1 / temperature) for p in probabilities]
""", "divide them by their sum"),
        ("""
def sharpen(probabilities, temperature):
    powers = [p ** (1 / temperature) for p in probabilities]
    return [power / sum(powers) for power in powers]
""", "you divide 0 by 0"),
        ("""
import torch

def sharpen(probabilities, temperature):
    logits = torch.tensor(probabilities, dtype=torch.float64).log() / temperature
    return (logits.exp() / logits.exp().sum()).tolist()
""", "0/0 is nan"),
        ("""
def sharpen(probabilities, temperature):
    logs = [math.log(p) / temperature for p in probabilities]
    powers = [math.exp(x - max(logs)) for x in logs]
    return [power / sum(powers) for power in powers]
""", "a token with probability 0 keeps the probability 0"),
        ("""
def sharpen(probabilities, temperature):
    logs = [math.log(p + 1e-9) / temperature for p in probabilities]
    powers = [math.exp(x - max(logs)) for x in logs]
    return [power / sum(powers) for power in powers]
""", "must not get a share"),
        ("""
import torch

def sharpen(probabilities, temperature):
    return torch.softmax(torch.tensor(probabilities) / temperature, dim=0)
""", "it wants logarithms"),
        ("""
import torch

def sharpen(probabilities, temperature):
    return torch.softmax((torch.tensor(probabilities) / temperature).log(), dim=0)
""", "the softmax does not see it"),
        ("""
def sharpen(probabilities, temperature):
    largest = max(probabilities)
    for i, p in enumerate(probabilities):
        probabilities[i] = (p / largest) ** (1 / temperature)
    total = sum(probabilities)
    return [p / total for p in probabilities]
""", "changes its argument"),
        ("""
def sharpen(probabilities, temperature):
    best = probabilities.index(max(probabilities))
    return [float(i == best) for i in range(len(probabilities))]
""", "at [0] gives 1, expected 0.5"),
    ],
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
        ("""
def perplexity(probabilities):
    return math.prod(probabilities) ** (-1 / len(probabilities))
""", "becomes 0: add logarithms"),
        ("""
import torch

def perplexity(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).prod() ** (-1 / len(probabilities))
""", "makes this infinite"),
        ("""
def perplexity(probabilities):
    clipped = [max(p, 1e-3) for p in probabilities]
    return math.exp(-sum(map(math.log, clipped)) / len(clipped))
""", "`perplexity([1e-06, 1.0])` gives 31.6228, expected 1000"),
        ("""
def perplexity(probabilities):
    return math.exp(sum(math.log(p) for p in probabilities) / len(probabilities))
""", "The sign is lost"),
        ("""
def perplexity(probabilities):
    return sum(1 / p for p in probabilities) / len(probabilities)
""", "the mean of 1/p"),
        ("""
def perplexity(probabilities):
    total = -sum(math.log(p) for p in probabilities)
    return math.exp(total / (len(probabilities) - 1)) if len(probabilities) > 1 else 1 / probabilities[0]
""", "gives 8"),
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
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token / math.log(2) / (num_bytes // num_tokens)
""", "7 tokens in 10 bytes"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token / math.log(2) * (num_tokens // num_bytes)
""", "fewer tokens than bytes become 0"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token / math.log(2)
""", "spread them over the bytes"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token * num_tokens / math.log(2)
""", "divide by its bytes"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return math.log2(nats_per_token) * num_tokens / num_bytes
""", "raises ValueError"),
        ("""
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token / math.log(2) * min(1, num_tokens / num_bytes)
""", "`bits_per_byte(1, 12, 10)` gives 1.4427, expected 1.73123"),
    ],
    "ex01-choose": [
        ("""
def choose_rate(runs):
    chosen = {}
    for run in runs:
        old = chosen.get(run["model"])
        if old is None or run["validation"] < old["validation"]:
            chosen[run["model"]] = run
    return {model: (run["rate"], run["test"]) for model, run in chosen.items()}
""", "The luckiest single run decides"),
        ("""
def means(runs, part):
    sums = {}
    for run in runs:
        sums.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run[part])
    return {m: {r: sum(x) / len(x) for r, x in rates.items()} for m, rates in sums.items()}

def choose_rate(runs):
    test = means(runs, "test")
    return {m: min((bits, rate) for rate, bits in rates.items())[::-1] for m, rates in test.items()}
""", "You chose on the test text"),
        ("""
def choose_rate(runs):
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run["validation"])
    return {m: min(((sum(v) / len(v), r) for r, v in rates.items()))[::-1] for m, rates in found.items()}
""", "mean validation result"),
        ("""
def choose_rate(runs):
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run)
    answer = {}
    for model, rates in found.items():
        rate = min(rates, key=lambda r: (sum(x["validation"] for x in rates[r]), r))
        answer[model] = rate, sum(x["test"] for x in rates[rate]) / len(rates[rate])
    return answer
""", "a rate with fewer seeds then looks better"),
        ("""
def choose_rate(runs):
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run)
    answer = {}
    for model, rates in found.items():
        rate = min(rates, key=lambda r: sum(x["validation"] for x in rates[r]) / len(rates[r]))
        answer[model] = rate, sum(x["test"] for x in rates[rate]) / len(rates[rate])
    return answer
""", "the smallest is asked for"),
        ("""
def choose_rate(runs):
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run)
    answer = {}
    for model, rates in found.items():
        rate = min(sorted(rates), key=lambda r: sum(x["validation"] for x in rates[r]) / len(rates[r]))
        answer[model] = rate, min(x["test"] for x in rates[rate])
    return answer
""", "report the mean over its seeds"),
        ("""
def choose_rate(runs):
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run)
    answer = {}
    for model, rates in found.items():
        rate = max(sorted(rates), key=lambda r: sum(x["validation"] for x in rates[r]) / len(rates[r]))
        answer[model] = rate, sum(x["test"] for x in rates[rate]) / len(rates[rate])
    return answer
""", "Fewer bits are better"),
        ("""
def choose_rate(runs):
    rates = {}
    for run in runs:
        rates.setdefault(run["rate"], []).append(run["validation"])
    rate = min(sorted(rates), key=lambda r: sum(rates[r]) / len(rates[r]), default=None)
    tests = {}
    for run in runs:
        if run["rate"] == rate:
            tests.setdefault(run["model"], []).append(run["test"])
    return {m: (rate, sum(t) / len(t)) for m, t in tests.items()}
""", "each has its own"),
        ("""
def choose_rate(runs):
    from itertools import groupby
    answer = {}
    for (model, rate), group in groupby(runs, key=lambda run: (run["model"], run["rate"])):
        group = list(group)
        bits = sum(run["validation"] for run in group) / len(group)
        if model not in answer or (bits, rate) < answer[model][:2]:
            answer[model] = bits, rate, sum(run["test"] for run in group) / len(group)
    return {model: found[1:] for model, found in answer.items()}
""", "at ['A'][1] gives 2.875, expected 2.8125"),
        ("""
def choose_rate(runs):
    runs.sort(key=lambda run: run["rate"])
    found = {}
    for run in runs:
        found.setdefault(run["model"], {}).setdefault(run["rate"], []).append(run)
    answer = {}
    for model, rates in found.items():
        rate = min(rates, key=lambda r: sum(x["validation"] for x in rates[r]) / len(rates[r]))
        answer[model] = rate, sum(x["test"] for x in rates[rate]) / len(rates[rate])
    return answer
""", "changes its argument"),
        ("""
def choose_rate(runs):
    best = min(runs, key=lambda run: run["validation"])
    return {best["model"]: (best["rate"], best["test"])}
""", "`choose_rate([])` raises ValueError"),
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
        ("""
def continuation(text):
    pairs = {text[i : i + 2] for i in range(0, len(text) - 1, 2)}
    return {c: n / len(pairs) for c, n in Counter(pair[1] for pair in pairs).items()}
""", "Pairs overlap"),
        ("""
def continuation(text):
    pairs = {a + b for a, b in zip(text, text[1:]) if a != b}
    return {c: n / len(pairs) for c, n in Counter(pair[1] for pair in pairs).items()}
""", "may follow itself"),
        ("""
def continuation(text):
    votes = Counter(b for a, b in set(zip(text, text[1:])))
    return {c: n / (len(text) - 1) for c, n in votes.items()}
""", "not by all pairs"),
        ("""
def continuation(text):
    votes = Counter(b for a, b in set(zip(text, text[1:])))
    return {c: votes[c] / votes.total() for c in set(text)}
""", "raises ZeroDivisionError"),
        ("""
def continuation(text):
    votes = Counter(b for a, b in set(zip(text, text[1:])))
    return {c: votes[c] / max(1, votes.total()) for c in text}
""", "The first character follows nothing"),
        ("""
def continuation(text):
    pairs = {text[i : i + 2] for i in range(len(text))}
    votes = Counter(pair[-1] for pair in pairs)
    return {c: n / len(pairs) for c, n in votes.items()}
""", "expected"),
        ("""
def continuation(text):
    votes = Counter(b for a, b in set(zip(text, text[1:])))
    if not votes:
        return None
    return {c: n / votes.total() for c, n in votes.items()}
""", "`continuation('a')` returns nothing"),
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
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 3 * h * mlp_size + 2 * h) + 2 * vocab_size * h
""", "norm after the last layer"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 3 * h * mlp_size + 4 * h) + 2 * vocab_size * h + 2 * h
""", "norms have no bias"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (3 * h * h + 3 * h * mlp_size + 2 * h) + 2 * vocab_size * h + h
""", "query, key, value and output"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (4 * h * h + 3 * h * mlp_size + 2 * h + 2 * vocab_size * h) + h
""", "stand once"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    return num_layers * (12 * h * h + 2 * h) + 2 * vocab_size * h + h
""", "GPT-2's MLP"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h, f = hidden_size, mlp_size
    total = 2 * vocab_size * h + h
    for layer in range(1, num_layers):
        total += 4 * h * h + 3 * h * f + 2 * h
    return total
""", "gives 6536032256, expected 6738415616"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    layers = max(1, num_layers) * (4 * h * h + 3 * h * mlp_size + 2 * h)
    return layers + 2 * vocab_size * h + h
""", "`llama_parameters(0, 2, 3, 5)` gives 60, expected 22"),
        ("""
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = hidden_size
    count = num_layers * (4 * h * h + 3 * h * mlp_size + 2 * h) + 2 * vocab_size * h + h
    return f"{count:,}"
""", "returns text"),
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
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens / (peak_flops * utilization) / 86400
""", "divide by their number"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens * utilization / (devices * peak_flops) / 86400
""", "A low utilization makes it slower"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 8 * num_params * num_tokens / (devices * peak_flops * utilization) / 86400
""", "activations are computed again"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens // (devices * peak_flops * utilization * 86400)
""", "use `/`, not `//`"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return math.ceil(6 * num_params * num_tokens / (devices * peak_flops * utilization) / 86400)
""", "You rounded up"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens / (devices * peak_flops * utilization)
""", "These are seconds"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return 6 * num_params * num_tokens / (devices * peak_flops * utilization / 100) / 86400
""", "Every result is 100 times what it should be"),
        ("""
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    return max(1, 6 * num_params * num_tokens / (devices * peak_flops * utilization) / 86400)
""", "gives 1, expected 0.000173611"),
    ],
    "ex01-answer-labels": [
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = (prompt_tokens + answer_tokens)[:context]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[:context]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "the target of a place is the next token"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    inputs, targets = tokens[:-1][:context], tokens[1:][:context]
    targets = [-100 if i < len(prompt_tokens) else t for i, t in enumerate(targets)]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "The answer's first token is hidden"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    inputs, targets = tokens[:-1][:context], tokens[1:][:context]
    targets = [-100 if i < len(prompt_tokens) - 2 else t for i, t in enumerate(targets)]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "The prompt's last token is still a target"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    return (tokens[:-1][:context], tokens[1:][:context]) if len(tokens) > 1 else None
""", "The prompt is not hidden"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = (prompt_tokens + answer_tokens)[:-1][:context]
    targets = ([0] * len(prompt_tokens) + answer_tokens)[1:][:context]
    return (inputs, targets) if len(targets) >= max(1, len(prompt_tokens)) and answer_tokens else None
""", "0 is a token"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    inputs, targets = tokens[:-1][:context], tokens[1:][:context]
    targets = [-100 if t in prompt_tokens else t for t in targets]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "the answer may use them, too"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = (prompt_tokens + answer_tokens)[:context]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:context]
    return None if all(t == -100 for t in targets) else (tokens[:-1], targets)
""", "one place too few"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = (prompt_tokens + answer_tokens)[:-1][-context:]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:][-context:]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "cut at its end"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = (prompt_tokens + answer_tokens)[:-1]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "longer than the model can read"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = (prompt_tokens + answer_tokens)[:-1]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:]
    return inputs[:context], targets[:context]
""", "return None"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    inputs, targets = tokens[:-1], tokens[1:]
    targets[: len(prompt_tokens) - 1] = [-100] * (len(prompt_tokens) - 1)
    inputs, targets = inputs[:context], targets[:context]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "With an empty prompt"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = prompt_tokens + answer_tokens
    targets = [-100] * (len(prompt_tokens) - 1) + answer_tokens
    inputs, targets = tokens[:-1][:context], targets[:context]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "one target for each input"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:]
    prompt_tokens += answer_tokens
    targets = targets[:context]
    return None if all(t == -100 for t in targets) else (prompt_tokens[:-1][:context], targets)
""", "changes its argument"),
        ("""
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs = ([-100] * len(prompt_tokens) + answer_tokens)[:-1][:context]
    targets = ([-100] * len(prompt_tokens) + answer_tokens)[1:][:context]
    return None if all(t == -100 for t in targets) else (inputs, targets)
""", "the model must read the prompt"),
    ],
    "ex01-choices": [
        ("""
def pick(choices, per_byte):
    scores = [sum(logs) / (1 if per_byte else size) for logs, size in choices]
    return scores.index(max(scores))
""", "The two ways are exchanged"),
        ("""
def pick(choices, per_byte):
    scores = [sum(logs) for logs, size in choices]
    return scores.index(max(scores))
""", "even if `per_byte` is true"),
        ("""
def pick(choices, per_byte):
    scores = [sum(logs) / size for logs, size in choices]
    return scores.index(max(scores))
""", "even if `per_byte` is false"),
        ("""
def pick(choices, per_byte):
    scores = [sum(logs) / (len(logs) if per_byte else 1) for logs, size in choices]
    return scores.index(max(scores))
""", "depends on the tokenizer"),
        ("""
def pick(choices, per_byte):
    scores = [sum(logs) / (size if per_byte else 1) for logs, size in choices]
    return scores.index(min(scores))
""", "take the highest"),
        ("""
def pick(choices, per_byte):
    return max((sum(logs) / (size if per_byte else 1), i) for i, (logs, size) in enumerate(choices))[1]
""", "the first is asked for"),
        ("""
def pick(choices, per_byte):
    return max(sum(logs) / (size if per_byte else 1) for logs, size in choices)
""", "return the place"),
        ("""
def pick(choices, per_byte):
    scores = [math.prod(math.exp(x) for x in logs) ** (1 / size if per_byte else 1)
              for logs, size in choices]
    return scores.index(max(scores))
""", "compare logarithms"),
        ("""
def pick(choices, per_byte):
    best, place = -math.inf, None
    for i, (logs, size) in enumerate(choices):
        score = sum(logs) / (size if per_byte else 1)
        if score > best:
            best, place = score, i
    return place
""", "start from the first choice"),
        ("""
def pick(choices, per_byte):
    best, place = -1000, 0
    for i, (logs, size) in enumerate(choices):
        score = sum(logs) / (size if per_byte else 1)
        if score >= best:
            best, place = score, i
    return place
""", "gives 2, expected 1"),
        ("""
def pick(choices, per_byte):
    best, place = -100.0, 0
    for i, (logs, size) in enumerate(choices):
        score = sum(logs) / (size if per_byte else 1)
        if score > best:
            best, place = score, i
    return place
""", "gives 0, expected 1"),
        ("""
def pick(choices, per_byte):
    choices.sort(key=lambda c: -sum(c[0]) / (c[1] if per_byte else 1))
    return 0
""", "expected 1"),
        ("""
def pick(choices, per_byte):
    for i, (logs, size) in enumerate(choices):
        choices[i] = sum(logs) / (size if per_byte else 1)
    return choices.index(max(choices))
""", "changes its argument"),
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
    mean = [0.0] * len(gradients[0])
    for r, n in enumerate(samples):
        if n:
            gradients[r] = [n * g for g in gradients[r]]
            mean = [m + g / sum(samples) for m, g in zip(mean, gradients[r])]
    return mean
""", "changes its argument"),
        ("""
def average_gradients(gradients, samples):
    return [sum(n * g for n, g in zip(samples, column)) / sum(samples) for column in zip(*gradients)]
""", "0 · nan is nan"),
        ("""
def average_gradients(gradients, samples):
    import numpy as np
    return np.average(np.array(gradients), axis=0, weights=samples)
""", "0 · nan is nan"),
        ("""
def average_gradients(gradients, samples):
    return [sum(n * g for n, g in zip(samples, column)) for column in zip(*gradients)]
""", "the sum over samples"),
        ("""
def average_gradients(gradients, samples):
    return [sum(n * g for n, g in zip(samples, column)) / len(samples) for column in zip(*gradients)]
""", "divided by the number of ranks"),
        ("""
def average_gradients(gradients, samples):
    kept = [g for g, n in zip(gradients, samples) if n]
    return [sum(column) / len(kept) for column in zip(*kept)]
""", "of ranks with samples"),
        ("""
def average_gradients(gradients, samples):
    mean = [0.0] * len(gradients)
    for gradient, n in zip(gradients, samples):
        if n:
            mean = [m + n / sum(samples) * g for m, g in zip(mean, gradient)]
    return mean
""", "returns 1 items, expected 3"),
        ("""
import torch

def average_gradients(gradients, samples):
    g = torch.tensor(gradients).nan_to_num()
    return (g * torch.tensor(samples)[:, None]).sum(0, keepdim=True) / sum(samples)
""", "returns 1 items, expected 2"),
    ],
    "ex01-config": [
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "zero_optimization": {"stage": 0}}
""", "DeepSpeed's default is 1.0"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimisation": {"stage": 0}}
""", "misspelt"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps,
            "optimizer": {"type": "SGD", "params": {"learning_rate": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "`learning_rate` in `params` ends in a TypeError"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps,
            "optimizer": {"type": "SGD", "lr": learning_rate},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "Beside `type` it is passed over"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    if global_batch_size % micro_batch_size:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": global_batch_size // micro_batch_size,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "micro-batch × accumulation steps × ranks"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": global_batch_size // (ranks * micro_batch_size),
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "`engine_config(2, 4, 20, 0.1)` returns {"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    if global_batch_size % (ranks * micro_batch_size):
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": global_batch_size // (ranks * micro_batch_size),
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "`engine_config(2, 4, 0, 0.1)` returns {"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    assert global_batch_size % (ranks * micro_batch_size) == 0
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": global_batch_size // (ranks * micro_batch_size),
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "raises AssertionError"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    if global_batch_size % ranks or global_batch_size % micro_batch_size:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": global_batch_size // (ranks * micro_batch_size),
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "it should raise ValueError"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "State all three sizes"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size // ranks,
            "train_micro_batch_size_per_gpu": micro_batch_size, "gradient_accumulation_steps": steps,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "the samples of all ranks in one step"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps,
            "optimizer": {"type": "sgd", "params": {"lr": learning_rate}},
            "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "DeepSpeed refuses `sgd`"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return json.dumps({"train_batch_size": global_batch_size})
""", "Return a dictionary"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps, "gradient_clipping": 0.0,
            "optimizer": {"type": "SGD", "params": {"lr": learning_rate}}, "zero_optimization": 0}
""", "must be the section"),
        ("""
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps, left = divmod(global_batch_size, ranks * micro_batch_size)
    if steps == 0 or left:
        raise ValueError
    return {"train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps, "gradient_clipping": 0.0, "zero_optimization": {"stage": 0}}
""", "Without an optimizer the engine refuses"),
    ],
}

# Right answers as other people write them: with a library, another container, a loop, whole numbers.
RIGHT = {
    "ex01-temperature": [
        """
import torch

def sharpen(probabilities, temperature):
    return torch.softmax(torch.tensor(probabilities).log() / temperature, dim=0)
""",
        """
def sharpen(probabilities, temperature):
    import numpy as np
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(probabilities)) / temperature
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
""",
        """
def sharpen(probabilities, temperature):
    logs = [math.log(p) / temperature if p else -math.inf for p in probabilities]
    powers = []
    for x in logs:
        powers.append(math.exp(x - max(logs)))
    return tuple(power / sum(powers) for power in powers)
""",
        """
import torch

def sharpen(probabilities, temperature):
    return torch.distributions.Categorical(
        logits=torch.tensor(probabilities, dtype=torch.float64).log() / temperature).probs
""",
    ],
    "ex01-perplexity": [
        """
def perplexity(probabilities):
    import numpy as np
    return np.exp(-np.log(probabilities).mean())
""",
        """
import torch

def perplexity(probabilities):
    return torch.tensor(probabilities).log().mean().neg().exp()
""",
        """
def perplexity(probabilities):
    bits = 0
    for p in probabilities:
        bits -= math.log2(p) / len(probabilities)
    return 2**bits
""",
        """
def perplexity(probabilities):
    return math.prod(p ** (-1 / len(probabilities)) for p in probabilities)
""",
        """
def perplexity(probabilities):
    import statistics
    return 1 / statistics.geometric_mean(probabilities)
""",
    ],
    "ex01-bits-per-byte": [
        """
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    return nats_per_token * math.log2(math.e) * num_tokens / num_bytes
""",
        """
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    import numpy as np
    return np.float64(nats_per_token) * num_tokens / np.log(2) / num_bytes
""",
        """
import torch

def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    total_bits = torch.tensor(nats_per_token * num_tokens) / torch.tensor(2.0).log()
    return total_bits / num_bytes
""",
        """
def bits_per_byte(nats_per_token, num_tokens, num_bytes):
    from fractions import Fraction
    return float(Fraction(num_tokens, num_bytes)) * nats_per_token / math.log(2)
""",
    ],
    "ex01-choose": [
        """
def choose_rate(runs):
    from collections import defaultdict
    table = defaultdict(lambda: defaultdict(list))
    for run in runs:
        table[run["model"]][run["rate"]].append((run["validation"], run["test"]))
    answer = {}
    for model, rates in table.items():
        means = [[sum(column) / len(pairs) for column in zip(*pairs)] + [rate]
                 for rate, pairs in rates.items()]
        validation, test, rate = min(means, key=lambda m: (m[0], m[2]))
        answer[model] = [rate, test]
    return answer
""",
        """
import torch

def choose_rate(runs):
    def best(mine):
        means = []
        for rate in {run["rate"] for run in mine}:
            rows = torch.tensor([[run["validation"], run["test"]] for run in mine if run["rate"] == rate])
            means.append((rows[:, 0].mean(), rate, rows[:, 1].mean()))
        return min(means)[1:]
    models = {run["model"] for run in runs}
    return {model: best([run for run in runs if run["model"] == model]) for model in models}
""",
        """
def choose_rate(runs):
    import numpy as np
    answer = {}
    for model in sorted({run["model"] for run in runs}):
        rows = np.array([[r["rate"], r["validation"], r["test"]] for r in runs if r["model"] == model])
        rates = np.unique(rows[:, 0])
        means = np.array([rows[rows[:, 0] == rate].mean(axis=0) for rate in rates])
        answer[model] = means[means[:, 1].argmin()][[0, 2]]
    return answer
""",
        """
def choose_rate(runs):
    import statistics
    from itertools import groupby
    key = lambda run: (run["model"], run["rate"])
    best = {}
    for (model, rate), group in groupby(sorted(runs, key=key), key=key):
        group = list(group)
        bits = statistics.mean(run["validation"] for run in group)
        if model not in best or bits < best[model][0]:
            best[model] = bits, (rate, statistics.mean(run["test"] for run in group))
    return {model: pair for model, (_, pair) in best.items()}
""",
    ],
    "ex01-continuation": [
        """
def continuation(text):
    before = {}
    for a, b in zip(text, text[1:]):
        before.setdefault(b, set()).add(a)
    total = sum(len(kinds) for kinds in before.values())
    return {b: len(kinds) / total for b, kinds in before.items()}
""",
        """
def continuation(text):
    from fractions import Fraction
    votes = Counter(b for _, b in set(zip(text, text[1:])))
    return {c: Fraction(n, votes.total()) for c, n in votes.items()}
""",
        """
def continuation(text):
    from collections import defaultdict
    shares, pairs = defaultdict(float), {text[i - 1 : i + 1] for i in range(1, len(text))}
    for pair in pairs:
        shares[pair[1]] += 1 / len(pairs)
    return shares
""",
        """
def continuation(text):
    import itertools
    import numpy as np
    pairs = sorted(set(itertools.pairwise(text)))
    kinds, counts = np.unique([b for _, b in pairs], return_counts=True)
    return dict(zip(kinds, counts / max(1, len(pairs))))
""",
    ],
    "ex01-llama-params": [
        """
import math

def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h, f = hidden_size, mlp_size
    layer = [(h, h)] * 4 + [(h, f), (h, f), (f, h), (h,), (h,)]
    shapes = layer * num_layers + [(vocab_size, h), (h,), (h, vocab_size)]
    return sum(math.prod(shape) for shape in shapes)
""",
        """
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    h = float(hidden_size)
    return num_layers * h * (4 * h + 3.0 * mlp_size + 2) + h * (2.0 * vocab_size + 1)
""",
        """
def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    import numpy as np
    h = np.int64(hidden_size)
    return num_layers * (4 * h**2 + 3 * h * mlp_size + 2 * h) + 2 * vocab_size * h + h
""",
        """
import torch

def llama_parameters(num_layers, hidden_size, mlp_size, vocab_size):
    total = hidden_size + 2 * torch.Size([vocab_size, hidden_size]).numel()
    for _ in range(num_layers):
        total += 4 * hidden_size**2
        total += 3 * hidden_size * mlp_size
        total += 2 * hidden_size
    return torch.tensor(total)
""",
    ],
    "ex01-training-days": [
        """
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    per_day = devices * peak_flops * utilization * 24 * 60 * 60
    return 6 * num_params * num_tokens / per_day
""",
        """
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    from datetime import timedelta
    seconds = 6 * num_params * num_tokens / (devices * peak_flops * utilization)
    return timedelta(seconds=seconds) / timedelta(days=1)
""",
        """
def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    import numpy as np
    return np.float32(6) * num_params * num_tokens / np.prod([devices, peak_flops, utilization, 86400.0])
""",
        """
import torch

def training_days(num_params, num_tokens, devices, peak_flops, utilization):
    forward = 2 * num_params * num_tokens
    backward = 2 * forward
    return torch.tensor((forward + backward) / 86400 / devices / peak_flops / utilization)
""",
    ],
    "ex01-answer-labels": [
        """
def answer_labels(prompt_tokens, answer_tokens, context):
    inputs, targets = [], []
    tokens = [*prompt_tokens, *answer_tokens]
    for i in range(min(context, len(tokens) - 1)):
        inputs.append(tokens[i])
        targets.append(tokens[i + 1] if i + 1 >= len(prompt_tokens) else -100)
    return [inputs, targets] if set(targets) - {-100} else None
""",
        """
import torch

def answer_labels(prompt_tokens, answer_tokens, context):
    tokens = torch.tensor(prompt_tokens + answer_tokens, dtype=torch.long)
    labels = tokens.clone()
    labels[: len(prompt_tokens)] = -100
    inputs, targets = tokens[:-1][:context], labels[1:][:context]
    return (inputs, targets) if (targets != -100).any() else None
""",
        """
def answer_labels(prompt_tokens, answer_tokens, context):
    import numpy as np
    tokens = np.array(prompt_tokens + answer_tokens, dtype=np.int32)
    places = np.arange(1, len(tokens))[:context]
    if not (places >= len(prompt_tokens)).any():
        return None
    return tokens[places - 1], np.where(places < len(prompt_tokens), -100, tokens[places])
""",
        """
def answer_labels(prompt_tokens, answer_tokens, context):
    kept = (prompt_tokens + answer_tokens)[: context + 1]
    learnt = len(kept) - max(1, len(prompt_tokens))
    if learnt < 1:
        return None
    hidden = len(kept) - 1 - learnt
    return tuple(kept[:-1]), tuple([-100] * hidden + kept[hidden + 1 :])
""",
    ],
    "ex01-choices": [
        """
def pick(choices, per_byte):
    import numpy as np
    sums = np.array([np.sum(logs) for logs, _ in choices])
    return np.argmax(sums / np.array([size for _, size in choices]) if per_byte else sums)
""",
        """
import torch

def pick(choices, per_byte):
    scores = [torch.tensor(logs).sum() / (size if per_byte else 1) for logs, size in choices]
    return torch.stack(scores).argmax()
""",
        """
def pick(choices, per_byte):
    def score(i):
        logs, size = choices[i]
        return sum(logs) / size if per_byte else sum(logs)
    return max(range(len(choices)), key=score)
""",
        """
def pick(choices, per_byte):
    best = 0
    scores = [math.fsum(logs) / size ** int(per_byte) for logs, size in choices]
    for i in range(1, len(choices)):
        if scores[i] > scores[best]:
            best = i
    return best
""",
    ],
    "ex01-average-gradients": [
        """
def average_gradients(gradients, samples):
    import numpy as np
    kept = np.array(samples) > 0
    return np.average(np.array(gradients)[kept], axis=0, weights=np.array(samples)[kept])
""",
        """
import torch

def average_gradients(gradients, samples):
    g, n = torch.tensor(gradients), torch.tensor(samples)
    return torch.where(n[:, None] > 0, g * n[:, None], 0).sum(0) / n.sum()
""",
        """
def average_gradients(gradients, samples):
    kept = [(g, n) for g, n in zip(gradients, samples) if n > 0]
    return tuple(sum(n * g[i] for g, n in kept) / sum(samples) for i in range(len(gradients[0])))
""",
        """
import torch

def average_gradients(gradients, samples):
    total = torch.zeros(len(gradients[0]), dtype=torch.bfloat16)
    for gradient, n in zip(gradients, samples):
        if n:
            total += n * torch.tensor(gradient)
    return total / sum(samples)
""",
    ],
    "ex01-config": [
        """
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    per_round = ranks * micro_batch_size
    if global_batch_size % per_round or global_batch_size < per_round:
        raise ValueError("does not divide")
    config = dict(train_batch_size=global_batch_size, train_micro_batch_size_per_gpu=micro_batch_size,
                  gradient_clipping=0)
    config["gradient_accumulation_steps"] = global_batch_size // per_round
    config["optimizer"] = dict(type="SGD", params=dict(lr=learning_rate, momentum=0.0))
    config["zero_optimization"] = dict(stage=0)
    return config
""",
        """
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    steps = global_batch_size / ranks / micro_batch_size
    if steps < 1 or steps != round(steps):
        raise ValueError(f"{steps} steps")
    return json.loads(f'''{{"train_batch_size": {global_batch_size},
        "train_micro_batch_size_per_gpu": {micro_batch_size}, "gradient_accumulation_steps": {round(steps)},
        "optimizer": {{"type": "SGD", "params": {{"lr": {learning_rate}}}}}, "gradient_clipping": 0.0,
        "zero_optimization": {{"stage": 0}}}}''')
""",
        """
def engine_config(ranks, micro_batch_size, global_batch_size, learning_rate):
    class DoesNotFit(ValueError):
        pass

    steps = next((n for n in range(1, global_batch_size + 1)
                  if n * ranks * micro_batch_size == global_batch_size), None)
    if steps is None:
        raise DoesNotFit
    return {"zero_optimization": {"stage": 0}, "gradient_clipping": False,
            "optimizer": {"params": {"lr": float(learning_rate)}, "type": "SGD"},
            "train_batch_size": global_batch_size, "train_micro_batch_size_per_gpu": micro_batch_size,
            "gradient_accumulation_steps": steps, "steps_per_print": 100}
""",
    ],
}
