"""Plausible wrong answers to the exercises of 6.2 b, and what the check says to each; right ones, too."""

_FLAGS = """
def flags(job):
    chosen = {
        "translation": {"do_sample": False, "num_beams": 4, "max_new_tokens": 200},
        "number": {"do_sample": False, "max_new_tokens": 40},
        "label": {"do_sample": False, "max_new_tokens": 8},
        "names": {"do_sample": True, "top_k": 0, "top_p": 0.9, "num_return_sequences": 10,
                  "max_new_tokens": 12},
    }
    CHANGE
    return chosen[job]
"""


def _flags(change: str) -> str:
    return _FLAGS.replace("CHANGE", change)


WRONG = {
    "ex06-decoding": [
        ("def flags(job):\n    return ['do_sample', False]\n", "Return a dictionary of flags"),
        (_flags('chosen["number"]["max_tokens"] = 40'), "does not know one of these flags"),
        (_flags('del chosen["label"]["do_sample"]'), "Say do_sample for each job"),
        (_flags('del chosen["translation"]["max_new_tokens"]'), "stops after 20 new tokens"),
        (_flags('chosen["number"] = {"do_sample": True, "temperature": 0.1, "max_new_tokens": 40}'),
         "drawing only adds errors"),
        (_flags('chosen["names"]["do_sample"] = False'), "always the same ones"),
        (_flags('chosen["label"]["temperature"] = 0.0'), "do nothing when do_sample is False"),
        (_flags('chosen["translation"]["max_new_tokens"] = 30'), "A paragraph does not fit"),
        (_flags('del chosen["translation"]["num_beams"]'), "let a beam of 2 to 16 look"),
        (_flags('chosen["translation"]["length_penalty"] = -1.0'), "favours short translations"),
        (_flags('chosen["number"]["no_repeat_ngram_size"] = 3'), "a ban on repetition"),
        (_flags('chosen["number"]["repetition_penalty"] = 1.2'), "a ban on repetition"),
        (_flags('chosen["number"]["max_new_tokens"] = 8'), "needs two or three dozen tokens"),
        (_flags('chosen["label"]["max_new_tokens"] = 200'), "Eight tokens are enough"),
        (_flags('chosen["label"]["num_beams"] = 4'), "do not need it"),
        (_flags('chosen["label"]["max_new_tokens"] = 1'), "it would be cut off"),
        (_flags('chosen["translation"]["length_penalty"] = 50.0'), "makes the longest hypothesis win"),
        (_flags('chosen["number"]["encoder_repetition_penalty"] = 2.0'), "a ban on repetition"),
        (_flags('chosen["names"]["max_new_tokens"] = 1'), "A name needs some tokens"),
        (_flags('chosen["names"] |= {"top_k": 0, "top_p": 0.9999999}'), "lets nonsense through"),
        (_flags('chosen["names"] |= {"top_k": 2, "top_p": 1.0}'), "hardly varies"),
        (_flags('del chosen["names"]["num_return_sequences"]'), "asks for them in one call"),
        (_flags('chosen["names"]["num_beams"] = 10'), "Beams find variants of one name"),
        (_flags('del chosen["names"]["top_p"]'), "lets nonsense through"),
        (_flags('chosen["names"]["temperature"] = 2.0'), "lets nonsense through"),
        (_flags('chosen["names"]["temperature"] = 0.05'), "hardly varies"),
        (_flags('chosen["names"]["top_k"] = 1'), "hardly varies"),
    ],
    "ex06-ready-batch": [
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    seen = [[1] * len(p) + [0] * (longest - len(p)) for p in prompts]
    return ([p + [pad] * (longest - len(p)) for p in prompts], seen,
            [list(range(len(p))) + [0] * (longest - len(p)) for p in prompts])
""", "stands on the right"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    return ([[pad] * (longest - len(p)) + p for p in prompts], [[1] * longest for p in prompts],
            [[0] * (longest - len(p)) + list(range(len(p))) for p in prompts])
""", "attention would see the padding"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    seen = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return ([[pad] * (longest - len(p)) + p for p in prompts], seen,
            [list(range(longest)) for p in prompts])
""", "a prompt must begin at position 0"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    seen = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return ([[pad] * (longest - len(p)) + p for p in prompts], seen,
            [[0] * (longest - len(p)) + list(range(1, len(p) + 1)) for p in prompts])
""", "Positions begin at 1 here"),
        ("""
import itertools

def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return ([[pad] * (longest - len(p)) + p for p in prompts], mask,
            [[seen - 1 for seen in itertools.accumulate(row)] for row in mask])
""", "no row of the table of positions"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    ids = [[pad] * (longest - len(p)) + p for p in prompts]
    return (ids, [[int(token != pad) for token in row] for row in ids],
            [[0] * (longest - len(p)) + list(range(len(p))) for p in prompts])
""", "make the mask from lengths"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    return ([[pad] * (longest - len(p)) + p for p in prompts], [[1] * longest for p in prompts],
            [list(range(longest)) for p in prompts])
""", "Padding on the left alone"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    return ([p + [pad] * (longest - len(p)) for p in prompts], [[1] * longest for p in prompts],
            [list(range(longest)) for p in prompts])
""", "That is the service's batch"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts))
    seen = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return ([[pad] * (longest - len(p)) + p for p in prompts], seen,
            [[0] * (longest - len(p)) + list(range(len(p))) for p in prompts])
""", "The batch may be empty"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    seen = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return [[pad] * (longest - len(p)) + p for p in prompts], seen
""", "Return three lists"),
        ("""
def ready_batch(prompts, pad):
    longest = min(map(len, prompts), default=0)
    seen = [[1] * longest for p in prompts]
    return [p[-longest:] for p in prompts], seen, [list(range(longest)) for p in prompts]
""", "stay whole"),
        ("""
def ready_batch(prompts, pad):
    seen = [[0] * (16 - len(p)) + [1] * len(p) for p in prompts]
    return ([[pad] * (16 - len(p)) + p for p in prompts], seen,
            [[0] * (16 - len(p)) + list(range(len(p))) for p in prompts])
""", "as long as the longest prompt"),
        ("""
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    seen = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    positions = [[0] * (longest - len(p)) + list(range(len(p))) for p in prompts]
    for p in prompts:
        while len(p) < longest:
            p.insert(0, pad)
    return prompts, seen, positions
""", "changes its argument"),
    ],
}

RIGHT = {
    "ex06-decoding": [
        _flags(""),
        _flags('chosen["names"] = dict(do_sample=True, min_p=0.1, top_k=0, temperature=1.2, '
               'num_return_sequences=10, max_new_tokens=16)'),
        _flags('chosen["names"] = dict(do_sample=True, temperature=0.9, num_return_sequences=12, '
               'max_new_tokens=20)'),
        """
def flags(job):
    if job == "names":
        return {"do_sample": True, "top_k": 40, "num_return_sequences": 10, "max_new_tokens": 10}
    room = {"translation": 400, "number": 64, "label": 10}[job]
    return {"do_sample": False, "num_beams": 8 if job == "translation" else 1, "max_new_tokens": room}
""",
        _flags('chosen["number"]["num_beams"] = 4'),
        _flags('chosen["names"] = dict(do_sample=True, top_k=0, typical_p=0.9, num_return_sequences=10, '
               'max_new_tokens=12)'),
    ],
    "ex06-ready-batch": [
        """
def ready_batch(prompts, pad):
    tokens, seen, positions = [], [], []
    for prompt in prompts:
        gap = max(len(other) for other in prompts) - len(prompt)
        tokens.append([pad] * gap + prompt)
        seen.append([0] * gap + [1] * len(prompt))
        positions.append([0] * gap + list(range(len(prompt))))
    return tokens, seen, positions
""",
        """
def ready_batch(prompts, pad):
    if not prompts:
        return [], [], []
    longest = max(map(len, prompts))
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    ids = torch.full_like(mask, pad)
    ids[mask.bool()] = torch.tensor(sum(prompts, []))
    return ids.tolist(), mask.tolist(), (mask.cumsum(1) - 1).clamp(min=0).tolist()
""",
        """
def ready_batch(prompts, pad):
    longest = max(map(len, prompts), default=0)
    def row(prompt, filler):
        return [filler] * (longest - len(prompt)) + list(prompt)
    seen, positions = [row([1] * len(p), 0) for p in prompts], [row(range(len(p)), 0) for p in prompts]
    return [[row(p, pad) for p in prompts], seen, positions]
""",
    ],
}
