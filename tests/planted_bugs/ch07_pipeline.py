"""Bugs planted in what Chapter 7 writes by hand (pipeline), and the claim that notices each."""

HAND = ["imports", "the-run", "the-plain-run", "pp-stage", "pp-passes", "pp-step", "pp-train",
        "pp-by-hand", "pp-by-hand-run"]
BUGS = [
    # The mean over micro-batches is forgotten: every gradient is m times too large.
    {"claim": "ch07-pipeline-gradient-gpipe", "in": "pp-passes",
     "old": "torch.full_like(out, 1 / micro_batches)", "new": "torch.full_like(out, 1.0)",
     "cells": HAND},
    # The tied embedding's two gradients are not added up.
    {"claim": "ch07-pipeline-gradient-gpipe", "in": "pp-step",
     "old": "        dist.all_reduce(stage.tokens.weight.grad, group=ends)", "new": "        pass",
     "cells": HAND},
    # A gradient meets the activations of another micro-batch: the latest, not its own.
    {"claim": "ch07-pipeline-gradient-1f1b", "in": "pp-step",
     "old": "alive.pop(m)", "new": "alive.pop(max(alive))", "cells": HAND},
    # The stages hold their blocks in the wrong order.
    {"claim": "ch07-pipeline-gradient-gpipe", "in": "pp-stage",
     "old": "gpt.blocks[stage * size : (stage + 1) * size]",
     "new": "gpt.blocks[(num_stages - 1 - stage) * size : (num_stages - stage) * size]",
     "cells": HAND},
]
