"""Bugs planted in what Chapter 7 writes by hand (strategies), and the claim that notices each."""

BUGS = [
    # Each rank clips by the norm of its own shard.
    {"claim": "ch07-clip-by-hand", "in": "strategy-clip-by-hand",
     "old": "    dist.all_reduce(squares)\n", "new": "",
     "cells": ["imports", "the-run", "strategy-pool", "strategy-clip-by-hand",
               "strategy-clip-training", "strategy-clip-reference", "strategy-clip"]},
    # The sum over ranks is taken for the mean.
    {"claim": "ch07-clip-by-hand", "in": "strategy-clip-by-hand",
     "old": "(gradient / world_size)", "new": "gradient",
     "cells": ["imports", "the-run", "strategy-pool", "strategy-clip-by-hand",
               "strategy-clip-training", "strategy-clip-reference", "strategy-clip"]},
    # The shards are put together in the wrong order.
    {"claim": "ch07-clip-by-hand", "in": "strategy-clip-training",
     "old": "torch.cat(shards)", "new": "torch.cat(shards[::-1])",
     "cells": ["imports", "the-run", "strategy-pool", "strategy-clip-by-hand",
               "strategy-clip-training", "strategy-clip-reference", "strategy-clip"]},
]
