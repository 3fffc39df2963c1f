"""Bugs planted in what Chapter 7 writes by hand (layers), and the claim that notices each."""

_BEGIN = ["imports", "the-run", "the-plain-run", "tp-pool", "tp-operators"]
_TP = [*_BEGIN, "tp-sum", "tp-cut", "tp-linear", "tp-attention", "tp-vocabulary", "tp-loss", "tp-split",
       "tp-train", "tp-join", "tp-rounding", "tp-losses"]
_SP = [*_BEGIN, "tp-attention", "tp-train", "tp-rounding", "sp-all-to-all", "sp-swap", "sp-ulysses",
       "sp-layer", "sp-train", "sp-run", "sp-losses"]
_EP = [*_BEGIN, "tp-train", "tp-rounding", "sp-all-to-all", "sp-layer", "moe-route", "moe-layer",
       "moe-experts", "moe-reference", "moe-train", "moe-sync", "moe-loss", "moe-run", "ep-losses"]
BUGS = [
    # backward of the column-parallel input: each rank keeps its own part of the gradient
    {"claim": "ch07-tp-losses", "in": "tp-operators", "old": "return all_reduced(grad)",
     "new": "return grad", "cells": _TP},
    # the bias is added on every rank before the sum
    {"claim": "ch07-tp-losses", "in": "tp-linear",
     "old": "Sum.apply(F.linear(x, self.weight)) + self.bias",
     "new": "Sum.apply(F.linear(x, self.weight) + self.bias)", "cells": _TP},
    # a fused qkv cut as one matrix: rank 0 gets the queries and half of the keys
    {"claim": "ch07-tp-losses", "in": "tp-split", "old": "ColumnLinear(attention.qkv, 3)",
     "new": "ColumnLinear(attention.qkv, 1)", "cells": _TP},
    # the softmax is taken over the rank's own part of the vocabulary
    {"claim": "ch07-tp-losses", "in": "tp-loss",
     "old": "total = Sum.apply(logits.exp().sum(-1, keepdim=True))",
     "new": "total = logits.exp().sum(-1, keepdim=True)", "cells": _TP},
    # every rank takes its tokens for the first of the text
    {"claim": "ch07-sp-losses", "in": "sp-train", "old": "start = dist.get_rank() * x.shape[1]",
     "new": "start = 0", "cells": _SP},
    # each rank keeps the gradients of its own tokens
    {"claim": "ch07-sp-losses", "in": "sp-train",
     "old": "all_reduced(p.grad) / dist.get_world_size()", "new": "p.grad / dist.get_world_size()",
     "cells": _SP},
    # experts' gradients averaged over ranks that hold different experts
    {"claim": "ch07-ep-losses", "in": "moe-sync",
     "old": 'p.grad if ".experts." in name else all_reduced(p.grad)',
     "new": "all_reduced(p.grad)", "cells": _EP},
    # answers not weighted by the gate: the router learns nothing
    {"claim": "ch07-ep-losses", "in": "moe-layer",
     "old": "gates[token, expert].unsqueeze(1) * boxes[expert, place]",
     "new": "boxes[expert, place]", "cells": _EP},
]
