"""Plausible wrong answers to Chapter 7's exercises (planner), and what the check should say to each."""

WRONG = {
    "ex07-recompute": [
        ("""
def freed_share(context, hidden_size, num_heads):
    return 5 * num_heads * context / hidden_size / 34
""", "divide by the whole"),
        ("""
def freed_share(context, hidden_size, num_heads):
    return 34 / (34 + 5 * num_heads * context / hidden_size)
""", "the share that stays"),
        ("""
def freed_share(context, hidden_size, num_heads):
    scores = 2 * num_heads * context / hidden_size
    return scores / (34 + scores)
""", "5 bytes, not 2"),
        ("""
def freed_share(context, hidden_size, num_heads):
    scores = 5 * context / hidden_size
    return scores / (34 + scores)
""", "grow with the heads"),
    ],
    "ex07-trillion": [
        ("""
def least_gpus(num_params, memory, kept_free):
    return math.ceil(16 * num_params / memory)
""", "left nothing free"),
        ("""
def least_gpus(num_params, memory, kept_free):
    return int(16 * num_params / (memory * (1 - kept_free)))
""", "round up"),
        ("""
def least_gpus(num_params, memory, kept_free):
    return math.ceil(2 * num_params / (memory * (1 - kept_free)))
""", "the weights alone"),
        ("""
def least_gpus(num_params, memory, kept_free):
    return math.ceil(4 * num_params / (memory * (1 - kept_free)))
""", "weights and gradients"),
        ("""
def least_gpus(num_params, memory, kept_free):
    return math.ceil(16 * num_params / (memory * kept_free)) if kept_free else 0
""", "multiply the memory by 1"),
    ],
}
