"""Bugs planted in what Chapter 7 writes by hand (collectives), and the claim that notices each."""

_CELLS = ["imports", "four-ranks", "exchange", "broadcast", "all-to-all", "all-gather",
          "reduce-scatter", "both-ways", "by-library", "collectives-claim"]
_BYTES = [*_CELLS[:7], "sent-by-hand", "ring-bytes-claim"]

BUGS = [
    {"claim": "ch07-collectives", "in": "reduce-scatter",  # what arrives replaces, is not added
     "old": "parts[take].add_(arrived)", "new": "parts[take].copy_(arrived)", "cells": _CELLS},
    {"claim": "ch07-collectives", "in": "reduce-scatter",  # one step too few
     "old": "range(world_size - 1)", "new": "range(world_size - 2)", "cells": _CELLS},
    {"claim": "ch07-collectives", "in": "reduce-scatter",  # the all-gather is forgotten
     "old": "return all_gather(reduce_scatter(tensor), len(tensor))",
     "new": "return reduce_scatter(tensor)", "cells": _CELLS},
    {"claim": "ch07-collectives", "in": "all-to-all",  # wrong order
     "old": "torch.cat(arrived)", "new": "torch.cat(arrived[::-1])", "cells": _CELLS},
    {"claim": "ch07-ring-bytes", "in": "all-gather",  # the whole tensor in each message
     "old": "exchange(parts[give], (rank + 1) % world_size,\n                 parts[take],",
     "new": "exchange(whole, (rank + 1) % world_size,\n                 torch.empty_like(whole),",
     "cells": _BYTES},
]
