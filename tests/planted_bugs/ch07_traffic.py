"""Bugs planted in what Chapter 7 writes by hand (traffic), and the claim that notices each."""

CELLS = ["imports", "the-run", "the-plain-run", "offload-by-hand", "offload-by-hand-claim"]
BUGS = [
    {"claim": "ch07-offload-by-hand", "in": "offload-by-hand",  # updated weights never come up
     "old": "p.data.copy_(master.data)  # up", "new": "pass", "cells": CELLS},
    {"claim": "ch07-offload-by-hand", "in": "offload-by-hand",  # old gradients are never cleared
     "old": "            p.grad = None\n", "new": "", "cells": CELLS},
    {"claim": "ch07-offload-by-hand", "in": "offload-by-hand",  # gradients go down in 16 bits
     "old": 'p.grad.to("cpu", torch.float32, copy=True)', "new": 'p.grad.half().float().to("cpu")',
     "cells": CELLS},
]
