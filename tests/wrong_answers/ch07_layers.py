"""Plausible wrong answers to Chapter 7's exercises (layers), and what the check should say to each."""

WRONG = {
    "ex07-row-parallel": [
        ("""
def row_parallel(inputs, weights, bias):
    return sum(F.linear(x, w, bias) for x, w in zip(inputs, weights))
""", "the all-reduce sums N of them"),
        ("""
def row_parallel(inputs, weights, bias):
    return sum(x @ w.T for x, w in zip(inputs, weights))
""", "The bias is missing"),
        ("""
def row_parallel(inputs, weights, bias):
    return sum(x @ w.T for x, w in zip(inputs, weights)) / len(inputs) + bias
""", "You averaged"),
        ("""
def row_parallel(inputs, weights, bias):
    parts = [F.linear(x, w, bias) for x, w in zip(inputs, weights)]
    return torch.cat(parts, dim=1)
""", "don't line them up"),
        ("""
def row_parallel(inputs, weights, bias):
    return F.linear(inputs[0], weights[0], bias)
""", "expected"),
    ],
    "ex07-moe-capacity": [
        ("""
def dropped_tokens(experts, num_experts, capacity_factor):
    capacity = int(capacity_factor * len(experts) / num_experts)
    return [t for t, e in enumerate(experts) if experts[:t].count(e) >= capacity]
""", "Capacity is rounded up"),
        ("""
def dropped_tokens(experts, num_experts, capacity_factor):
    capacity = math.ceil(len(experts) / num_experts)
    return [t for t, e in enumerate(experts) if experts[:t].count(e) >= capacity]
""", "You forgot the capacity factor"),
        ("""
def dropped_tokens(experts, num_experts, capacity_factor):
    capacity = math.ceil(capacity_factor * len(experts) / num_experts)
    return [t for t, e in enumerate(experts) if experts[:t].count(e) > capacity]
""", "an expert with C tokens is full"),
        ("""
def dropped_tokens(experts, num_experts, capacity_factor):
    capacity = math.ceil(capacity_factor * len(experts) / num_experts)
    return sum(max(0, experts.count(e) - capacity) for e in range(num_experts))
""", "not how many"),
        ("""
def dropped_tokens(experts, num_experts, capacity_factor):
    capacity = math.ceil(capacity_factor * len(experts) / num_experts)
    return [t for t, e in enumerate(experts) if experts[t + 1 :].count(e) >= capacity]
""", "they keep their places"),
    ],
}
