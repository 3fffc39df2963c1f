"""Plausible wrong answers to Lab 4's exercises, and what the check should say to each."""

WRONG = {
    "ex04-weighted-mean": [
        ("""
def batch_loss(means, counts):
    kept = [m for m, n in zip(means, counts) if n]
    return sum(kept) / len(kept)
""", "mean of the means"),
        ("""
def batch_loss(means, counts):
    return sum(m * n for m, n in zip(means, counts)) / sum(counts)
""", "leave it out"),
        ("""
def batch_loss(means, counts):
    kept = [(m, n) for m, n in zip(means, counts) if n]
    return sum(m * n for m, n in kept) / len(kept)
""", "not by the number of ranks"),
        ("""
def batch_loss(means, counts):
    return sum(m * n for m, n in zip(means, counts) if n)
""", "sum over tokens"),
    ],
    "ex04-safetensors": [
        ("""
def read_bf16(blob, name):
    length = int.from_bytes(blob[:8], "little")
    entry = json.loads(blob[8:8 + length])[name]
    low, high = entry["data_offsets"]
    raw = np.frombuffer(blob[low:high], "<u2").astype(np.uint32)
    return (raw << 16).view(np.float32).reshape(entry["shape"])
""", "not from the start of the file"),
        ("""
def read_bf16(blob, name):
    length = int.from_bytes(blob[:8], "little")
    entry = json.loads(blob[8:8 + length])[name]
    low, high = entry["data_offsets"]
    raw = np.frombuffer(blob[length + low:length + high], "<u2").astype(np.uint32)
    return (raw << 16).view(np.float32).reshape(entry["shape"])
""", "8 bytes before the header"),
        ("""
def read_bf16(blob, name):
    start = 8 + int.from_bytes(blob[:8], "little")
    entry = json.loads(blob[8:start])[name]
    low, high = entry["data_offsets"]
    return np.frombuffer(blob[start + low:start + high], "<f2").astype(np.float32).reshape(entry["shape"])
""", "That is fp16"),
        ("""
def read_bf16(blob, name):
    start = 8 + int.from_bytes(blob[:8], "little")
    entry = json.loads(blob[8:start])[name]
    low, high = entry["data_offsets"]
    raw = np.frombuffer(blob[start + low:start + high], "<u2").astype(np.uint32)
    return (raw << 16).view(np.float32)
""", "shape that the header states"),
        ("""
def read_bf16(blob, name):
    start = 8 + int.from_bytes(blob[:8], "little")
    entry = json.loads(blob[8:start])[name]
    low, high = entry["data_offsets"]
    raw = np.frombuffer(blob[start + low:start + high], "<u2").astype(np.uint32)
    return raw.astype(np.float32).reshape(entry["shape"])
""", "view them as float32"),
    ],
}
