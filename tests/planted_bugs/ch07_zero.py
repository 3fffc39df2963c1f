"""Bugs planted in what Chapter 7 writes by hand (zero), and the claim that notices each."""

_BEGIN = ["imports", "the-run", "the-plain-run", "zero-views", "zero-data-parallel", "zero-train",
          "zero-loop", "zero-reference", "zero-dp-claim"]
_ZERO1 = [*_BEGIN, "zero-flatten", "zero-1", "zero-1-claim"]
_ZERO2 = [*_BEGIN, "zero-flatten", "zero-2", "zero-2-claim"]
_ZERO3 = [*_BEGIN, "zero-flatten", "zero-2", "zero-3", "zero-3-claim"]

BUGS = [
    {"claim": "ch07-dp", "in": "zero-data-parallel",  # the averaging is forgotten
     "old": "flat /= dist.get_world_size()", "new": "flat /= 1", "cells": _BEGIN},
    {"claim": "ch07-dp", "in": "zero-data-parallel",  # the last bucket is never sent
     "old": "when_complete(bucket, partial(self.send, flat))",
     "new": "len(self.buckets) < 5 and when_complete(bucket, partial(self.send, flat))",
     "cells": _BEGIN},
    {"claim": "ch07-dp-overlap", "in": "zero-data-parallel",  # all is one bucket: no overlap
     "old": "for bucket in buckets(model.parameters(), bucket_size):",
     "new": "for bucket in buckets(model.parameters(), 10**9):",
     "cells": [*_BEGIN, "zero-overlap"]},
    {"claim": "ch07-zero1", "in": "zero-1",  # the all-gather is skipped
     "old": "dist.all_gather_into_tensor(self.flat, self.shard)", "new": "pass", "cells": _ZERO1},
    {"claim": "ch07-zero1", "in": "zero-1",  # the averaging is forgotten
     "old": "self.shard.grad /= dist.get_world_size()", "new": "pass", "cells": _ZERO1},
    {"claim": "ch07-zero2", "in": "zero-2",  # the averaging is forgotten
     "old": "shard.grad += mine / dist.get_world_size()", "new": "shard.grad += mine",
     "cells": _ZERO2},
    {"claim": "ch07-zero2", "in": "zero-2",  # gradients of the last step stay in the shard
     "old": "self.optimizer.zero_grad(set_to_none=False)", "new": "pass", "cells": _ZERO2},
    {"claim": "ch07-zero3", "in": "zero-3",  # the weights are never gathered
     "old": "dist.all_gather_into_tensor(flat, shard)", "new": "pass", "cells": _ZERO3},
    {"claim": "ch07-zero3", "in": "zero-flatten",  # every rank takes the same slice
     "old": "return flat.chunk(dist.get_world_size())[dist.get_rank()]",
     "new": "return flat.chunk(dist.get_world_size())[0]", "cells": _ZERO3},
]
