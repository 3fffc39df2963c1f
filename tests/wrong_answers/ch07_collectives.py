"""Plausible wrong answers to Chapter 7's exercises (collectives), and what the check should say to each."""

_RING = """
def ring_reduce_scatter(tensor):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    parts = [part.clone() for part in tensor.tensor_split(world_size)]
    for step in range({steps}):
        give, take = (rank - step {give}) % world_size, (rank - step {take}) % world_size
        sending = dist.isend(parts[give], (rank + 1) % world_size)
        arrived = torch.empty_like(parts[take])
        dist.recv(arrived, (rank - 1) % world_size)
        sending.wait()
        parts[take] {put} arrived
    return {result}
"""


def _ring(steps="world_size - 1", give="- 1", take="- 2", put="+=", result="parts[rank]"):
    return _RING.format(steps=steps, give=give, take=take, put=put, result=result)


_PASS = """
def left_and_total(mine):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    left, total = torch.empty_like(mine), mine.clone()
    {pass_on}
    {total}
    return torch.stack([left, total])
"""
_GOOD_PASS = """sending = dist.isend(mine, (rank + 1) % world_size)
    dist.recv(left, (rank - 1) % world_size)
    sending.wait()"""
_GOOD_TOTAL = "dist.all_reduce(total)"

WRONG = {
    "ex07-reduce-scatter": [
        (_ring(give="", take="- 1", result="parts[(rank + 1) % world_size]"),
         "start one part earlier"),
        (_ring(result="parts[rank] / world_size"), "That is the mean"),
        (_ring(steps="world_size - 2"), "is the last of N − 1 steps missing?"),
        (_ring(put="="), "takes the place of what the rank holds"),
    ],
    "ex07-ring-bytes": [
        ("""
def gradient_bytes(num_params, bytes_per_element, num_ranks):
    return num_params * bytes_per_element * (num_ranks - 1) / num_ranks
""", "the all-gather sends as much again"),
        ("""
def gradient_bytes(num_params, bytes_per_element, num_ranks):
    return 2 * num_params * (num_ranks - 1) / num_ranks
""", "multiply by their bytes"),
        ("""
def gradient_bytes(num_params, bytes_per_element, num_ranks):
    return 2 * num_params * bytes_per_element
""", "the limit for many ranks"),
        ("""
def gradient_bytes(num_params, bytes_per_element, num_ranks):
    return num_params * bytes_per_element * (num_ranks - 1)
""", "a ring sends parts"),
    ],
    "ex07-deadlock": [
        (_PASS.format(pass_on="dist.recv(left, (rank - 1) % world_size)\n"
                              "    dist.send(mine, (rank + 1) % world_size)", total=_GOOD_TOTAL),
         "makes your ranks wait for each other: rank 0 in recv, line 5"),
        (_PASS.format(pass_on=_GOOD_PASS, total="if rank == 0:\n        dist.all_reduce(total)\n"
                      "    dist.barrier()\n    if rank != 0:\n        dist.all_reduce(total)"),
         "rank 0 in all_reduce, line 9 of the cell; rank 1 in barrier, line 10 of the cell"),
        (_PASS.format(pass_on=_GOOD_PASS.replace("+ 1", "? 1").replace("- 1", "+ 1")
                      .replace("? 1", "- 1"), total=_GOOD_TOTAL), "messages run the wrong way"),
        (_PASS.format(pass_on=_GOOD_PASS, total=""), "nothing was summed"),
        (_PASS.format(pass_on="left = mine", total=_GOOD_TOTAL), "nothing was received"),
    ],
}
