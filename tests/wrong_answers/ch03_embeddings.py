"""Plausible wrong answers to Chapter 3's exercises (embeddings), and what the check should say to each."""

WRONG = {
    "ex03-first-merge": [
        ("""
def first_merge(words):
    counts = Counter(pair for word in words for pair in zip(word, word[1:]))
    return min(counts, key=lambda pair: (-counts[pair], pair))
""", "weigh its pairs by its count"),
        ("""
def first_merge(words):
    counts = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:]):
            counts[pair] += count
    return max(counts, key=lambda pair: (counts[pair], pair))
""", "take the smallest, not the largest"),
        ("""
def first_merge(words):
    counts = Counter()
    for word, count in words.items():
        for pair in set(zip(word, word[1:])):
            counts[pair] += count * word.count(pair[0] + pair[1])
    return min(counts, key=lambda pair: (-counts[pair], pair))
""", "Pairs overlap"),
        ("""
def first_merge(words):
    text = "".join(words)
    counts = Counter(zip(text, text[1:]))
    return min(counts, key=lambda pair: (-counts[pair], pair))
""", "do not reach from one word into the next"),
        ("""
def first_merge(words):
    counts = Counter()
    for word, count in words.items():
        for pair in zip(word, word[1:]):
            counts[pair] += count
    return "".join(min(counts, key=lambda pair: (-counts[pair], pair)))
""", "expected a list"),
    ],
    "ex03-bpe-encode": [
        ("""
def bpe_tokens(word, ranks):
    known, tokens = {a + b for a, b in ranks}, []
    while word:
        end = next(n for n in range(len(word), 0, -1) if n == 1 or word[:n] in known)
        tokens.append(word[:end])
        word = word[end:]
    return tokens
""", "longest token first"),
        ("""
def bpe_tokens(word, ranks):
    tokens = list(word)
    while True:
        known = [pair for pair in zip(tokens, tokens[1:]) if pair in ranks]
        if not known:
            return tokens
        best, i, out = max(known, key=ranks.get), 0, []
        while i < len(tokens):
            hit = tuple(tokens[i : i + 2]) == best
            out.append("".join(best) if hit else tokens[i])
            i += 2 if hit else 1
        tokens = out
""", "the lowest rank comes first"),
        ("""
def bpe_tokens(word, ranks):
    tokens = list(word)
    while True:
        for i, pair in enumerate(zip(tokens, tokens[1:])):
            if pair in ranks:
                tokens[i : i + 2] = ["".join(pair)]
                break
        else:
            return tokens
""", "joined the leftmost known pair"),
        ("""
def bpe_tokens(word, ranks):
    tokens = list(word)
    known = [pair for pair in zip(tokens, tokens[1:]) if pair in ranks]
    if not known:
        return tokens
    best, i, out = min(known, key=ranks.get), 0, []
    while i < len(tokens):
        hit = tuple(tokens[i : i + 2]) == best
        out.append("".join(best) if hit else tokens[i])
        i += 2 if hit else 1
    return out
""", "One pass is not enough"),
    ],
    "ex03-cosine-neighbours": [
        ("""
def cosine_neighbours(E, i, k):
    scores = E @ E[i]
    scores[i] = -math.inf
    return scores.topk(k).indices.tolist()
""", "Long vectors win"),
        ("""
def cosine_neighbours(E, i, k):
    rows = F.normalize(E, dim=1)
    order = (rows @ rows[i]).argsort(descending=True, stable=True).tolist()
    return order[:k]
""", "its own nearest neighbour"),
        ("""
def cosine_neighbours(E, i, k):
    rows = F.normalize(E, dim=1)
    order = (rows @ rows[i]).argsort(stable=True).tolist()
    return [j for j in order if j != i][:k]
""", "These are the farthest"),
        ("""
def cosine_neighbours(E, i, k):
    order = (E - E[i]).norm(dim=1).argsort(stable=True).tolist()
    return [j for j in order if j != i][:k]
""", "That is the distance"),
    ],
}
