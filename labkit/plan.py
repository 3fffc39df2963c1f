"""Closed formulas for a training run: parameters, FLOPs, memory, traffic, time.

No torch, no measurement: what stands here is compared with measurements elsewhere. Bytes are
bytes, GB is 1e9 bytes, an element is one number of a tensor, a FLOP is one multiplication or one
addition. Every function names the equation it comes from.
"""

import math
from dataclasses import dataclass

GB = 1e9


def _at_least(low: float, **values: float) -> None:
    for name, value in values.items():
        if not low <= value < math.inf:
            raise ValueError(f"{name} is {value!r}: give a number of at least {low:g}")


def _check_stage(stage: int) -> None:
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"ZeRO stage is {stage!r}: give 0, 1, 2 or 3")


# --- Parameters and FLOPs -----------------------------------------------------------------------


def gpt_params(num_layers: int, hidden_size: int, vocab_size: int, context: int, *,
               tied: bool = True, bias: bool = True) -> int:
    """Parameters of a GPT-2-shaped decoder, exactly.

    12LH² + 13LH + (V + s)H + 2H: per layer 4H² for attention and 8H² for the MLP, their 9H biases
    and two LayerNorms of 2H; then embeddings, positions and the last LayerNorm. Narayanan et al.
    2021 (arXiv 2104.04473), Eq. 2, writes the same without the last 2H.

    Args:
        tied: the output layer reuses the token embedding; otherwise it adds another V·H.
        bias: False leaves out every bias, those of the LayerNorms included.
    """
    _at_least(0, num_layers=num_layers, context=context)
    _at_least(1, hidden_size=hidden_size, vocab_size=vocab_size)
    weights = 12 * hidden_size**2
    vectors = 13 * hidden_size if bias else 2 * hidden_size
    last_norm = 2 * hidden_size if bias else hidden_size
    embeddings = (vocab_size + context) * hidden_size
    head = 0 if tied else vocab_size * hidden_size
    return num_layers * (weights + vectors) + embeddings + last_norm + head


def training_flops(num_params: float, tokens: float) -> float:
    """FLOPs to train on ``tokens``: C ≈ 6ND (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).

    2ND forward and 4ND backward; what attention adds with the context length is left out.
    """
    _at_least(0, num_params=num_params, tokens=tokens)
    return 6 * num_params * tokens


def flops_per_token(num_params: float, num_layers: int, hidden_size: int, context: int) -> float:
    """Training FLOPs per token with attention: 6N + 12LHs (PaLM, arXiv 2204.02311, Appendix B)."""
    _at_least(0, num_params=num_params, num_layers=num_layers, context=context)
    return 6 * num_params + 12 * num_layers * hidden_size * context


def iteration_flops(batch_size: int, context: int, num_layers: int, hidden_size: int,
                    vocab_size: int, *, recompute: bool = False) -> float:
    """Matrix-multiplication FLOPs of one training step of a GPT.

    72BsLH²(1 + s/6H + V/12LH) (Korthikanti et al. 2022, arXiv 2205.05198, Eq. 7). With full
    activation recomputation each layer runs forward twice: 96BsLH²(1 + s/6H + V/16LH)
    (Narayanan et al. 2021, arXiv 2104.04473, Eq. 3).
    """
    _at_least(1, batch_size=batch_size, context=context, num_layers=num_layers,
              hidden_size=hidden_size, vocab_size=vocab_size)
    factor = 96 if recompute else 72
    attention = context / (6 * hidden_size)
    logits = vocab_size / (factor / 6 * num_layers * hidden_size)
    per_token = factor * num_layers * hidden_size**2 * (1 + attention + logits)
    return batch_size * context * per_token


# --- Batches, steps, time -----------------------------------------------------------------------


def train_batch_size(micro_batch_size: int, gradient_accumulation_steps: int, ranks: int) -> int:
    """Samples per optimizer step: micro × accumulation × ranks (DeepSpeed's batch arithmetic)."""
    _at_least(1, micro_batch_size=micro_batch_size, ranks=ranks,
              gradient_accumulation_steps=gradient_accumulation_steps)
    return micro_batch_size * gradient_accumulation_steps * ranks


def accumulation_steps(batch_size: int, micro_batch_size: int, ranks: int) -> int:
    """Micro-batches a rank adds up per step. Raises ValueError if the batch cannot be split."""
    at_once = train_batch_size(micro_batch_size, 1, ranks)
    if batch_size < at_once or batch_size % at_once:
        raise ValueError(f"a batch of {batch_size} cannot be split into micro-batches of "
                         f"{micro_batch_size} on {ranks} ranks: use a multiple of {at_once}")
    return batch_size // at_once


def training_steps(tokens: float, batch_size: int, context: int) -> int:
    """Optimizer steps that see at least ``tokens`` tokens: ⌈D / (B·s)⌉."""
    _at_least(0, tokens=tokens)
    _at_least(1, batch_size=batch_size, context=context)
    return math.ceil(tokens / (batch_size * context))


def training_seconds(flops: float, devices: int, peak_flops: float, mfu: float) -> float:
    """Seconds for ``flops`` on devices of ``peak_flops`` FLOP/s each, at utilization ``mfu``.

    Narayanan et al. 2021, Eq. 4, with achieved FLOP/s written as peak × utilization.
    """
    _at_least(0, flops=flops)
    _at_least(1, devices=devices, peak_flops=peak_flops)
    if not 0 < mfu <= 1:
        raise ValueError(f"utilization is {mfu!r}: give a fraction above 0 and at most 1")
    return flops / (devices * peak_flops * mfu)


def model_flops_utilization(flops: float, seconds: float, devices: int, peak_flops: float) -> float:
    """Share of the peak that a step reaches: FLOPs / (seconds · devices · peak).

    PaLM (arXiv 2204.02311), Appendix B: count what the model needs, not what is recomputed.
    """
    return training_seconds(flops, devices, peak_flops, 1.0) / seconds


def bubble_overhead(num_stages: int, micro_batches: int, interleave: int = 1) -> float:
    """Pipeline bubble as a share of the ideal time: (p − 1)/(v·m) (2104.04473, section 2.2)."""
    _at_least(1, num_stages=num_stages, micro_batches=micro_batches, interleave=interleave)
    return (num_stages - 1) / (interleave * micro_batches)


def bubble_fraction(num_stages: int, micro_batches: int, interleave: int = 1) -> float:
    """Pipeline bubble as a share of the time the step takes: (p − 1)/(v·m + p − 1)."""
    overhead = bubble_overhead(num_stages, micro_batches, interleave)
    return overhead / (1 + overhead)


# --- Quality ------------------------------------------------------------------------------------


def perplexity(loss: float) -> float:
    """e^loss for a mean cross-entropy in nats per token (Jelinek et al. 1977)."""
    return math.exp(loss)


def bits_per_byte(loss: float, tokens: int, num_bytes: int) -> float:
    """Mean cross-entropy in bits per byte of text: loss/ln 2 · tokens/bytes.

    ``loss`` in nats per token. Unlike perplexity it does not depend on the tokenizer.
    """
    _at_least(1, num_bytes=num_bytes)
    return loss / math.log(2) * tokens / num_bytes


# --- ZeRO: states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class States:
    """Bytes of model states on one rank."""

    parameters: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.optimizer


def zero_states(num_params: float, ranks: int, stage: int, *, parameter_bytes: float = 2,
                gradient_bytes: float = 2, optimizer_bytes: float = 12) -> States:
    """Bytes per rank as the ZeRO paper counts them (arXiv 1910.02054, section 5 and Figure 1).

    2Ψ + 2Ψ + KΨ with K = 12 for mixed-precision Adam (fp32 master weights, momentum, variance).
    Stage 1 divides the optimizer's share by the number of ranks, stage 2 also the gradients',
    stage 3 also the parameters'.
    """
    _check_stage(stage)
    _at_least(0, num_params=num_params)
    _at_least(1, ranks=ranks)
    return States(
        parameters=parameter_bytes * num_params / (ranks if stage >= 3 else 1),
        gradients=gradient_bytes * num_params / (ranks if stage >= 2 else 1),
        optimizer=optimizer_bytes * num_params / (ranks if stage >= 1 else 1),
    )


def deepspeed_states(num_params: float, ranks: int, stage: int, dtype: str = "bf16") -> States:
    """Bytes per rank as DeepSpeed 0.19 holds them with Adam, after a step's last backward.

    Two differences from the paper: stage 1 has let go of the gradients of other ranks by then, and
    fp32 training in stages 1 to 3 keeps a second fp32 copy of the weights (20 bytes a parameter).
    Padding and stage 3's communication buffers come on top.
    """
    if dtype not in ("bf16", "fp32"):
        raise ValueError(f"dtype is {dtype!r}: give 'bf16' or 'fp32'")
    width = 2 if dtype == "bf16" else 4
    adam = 8 if dtype == "fp32" and stage == 0 else 12
    return zero_states(num_params, ranks, 2 if stage == 1 else stage, parameter_bytes=width,
                       gradient_bytes=width, optimizer_bytes=adam)


# --- ZeRO: traffic ------------------------------------------------------------------------------


def ring_share(ranks: int) -> float:
    """(N − 1)/N: elements a rank sends per element in a ring reduce-scatter or all-gather.

    An all-reduce is one after the other and sends twice that (Patarasuk and Yuan 2009, J. Parallel
    Distrib. Comput. 69(2), section 3).
    """
    _at_least(1, ranks=ranks)
    return (ranks - 1) / ranks


def zero_traffic(num_params: float, stage: int) -> float:
    """Elements a rank sends per step, for many ranks: 2Ψ, 2Ψ, 2Ψ, 3Ψ (1910.02054, section 7)."""
    _check_stage(stage)
    return (3 if stage == 3 else 2) * num_params


def ring_traffic(num_params: float, ranks: int, stage: int) -> float:
    """The same on N ranks: the paper's volume times (N − 1)/N. One rank sends nothing."""
    return zero_traffic(num_params, stage) * ring_share(ranks)


def deepspeed_messages(num_params: float, stage: int, *, gradient_accumulation_steps: int = 1,
                       keep_live: bool = True) -> dict[str, float]:
    """Elements that go through each kind of collective per step in DeepSpeed 0.19, on each rank.

    An all-reduce or reduce-scatter counts what is reduced, an all-gather what is gathered: whole
    tensors, whatever the number of ranks (two or more). By default stages 1 and 2 all-reduce
    gradients where the paper reduce-scatters them, and stages 2 and 3 reduce at every accumulation
    step. From its second step on stage 3 gathers the parameters once per micro-batch; without
    ``keep_live`` (``stage3_max_live_parameters`` and ``stage3_max_reuse_distance`` 0), twice.
    """
    _check_stage(stage)
    _at_least(1, gradient_accumulation_steps=gradient_accumulation_steps)
    times = gradient_accumulation_steps if stage >= 2 else 1
    if stage == 3:
        gathers = times if keep_live else 2 * times
        return {"all_gather": gathers * num_params, "reduce_scatter": times * num_params}
    reduced = {"all_reduce": times * num_params}
    return reduced if stage == 0 else {**reduced, "all_gather": num_params}


def message_traffic(messages: dict[str, float], ranks: int) -> float:
    """Elements a rank sends for collectives of these sizes, each done as a ring."""
    sent = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}
    return sum(sent[op] * elements for op, elements in messages.items()) * ring_share(ranks)


# --- A plan -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What ZeRO needs on each of ``ranks`` devices, by the paper's formulas. Made by `plan`."""

    num_params: float
    ranks: int
    stage: int
    states: States
    traffic_bytes: float
    memory_bytes: float | None
    enough_ranks: int | None

    @property
    def fits(self) -> bool | None:
        """Whether the model states alone fit; None without a memory size to compare with."""
        return None if self.memory_bytes is None else self.states.total <= self.memory_bytes

    def rows(self) -> list[tuple[str, str]]:
        """(what, value) in words and GB, for printing."""
        s = self.states
        rows = [
            ("model", f"{_short(self.num_params / 1e9)} B parameters, bf16 with fp32 Adam"),
            ("devices", f"{self.ranks:,}, ZeRO stage {self.stage}"),
            ("parameters", f"{_short(s.parameters / GB)} GB each"),
            ("gradients", f"{_short(s.gradients / GB)} GB each"),
            ("optimizer", f"{_short(s.optimizer / GB)} GB each"),
            ("states in all", f"{_short(s.total / GB)} GB each"),
            ("sent per step", f"{_short(self.traffic_bytes / GB)} GB each, as a ring"),
        ]
        if self.memory_bytes is None:
            return rows
        memory, left = self.memory_bytes / GB, (self.memory_bytes - s.total) / GB
        if self.fits:
            verdict = f"fits, and leaves {_short(left)} of {_short(memory)} GB for activations"
        elif self.enough_ranks:
            verdict = f"{_short(-left)} GB too much: stage {self.stage} fits from "
            verdict += f"{self.enough_ranks:,} devices on"
        else:
            verdict = f"{_short(-left)} GB too much on any number of devices: take a higher stage"
        return [*rows, ("verdict", verdict)]


def _short(number: float) -> str:
    return f"{float(f'{number:.3g}'):,g}"


def plan(num_params: float, ranks: int, stage: int, *, gpu_memory_gb: float | None = None) -> Plan:
    """States, traffic and verdict for mixed-precision Adam under ZeRO (arXiv 1910.02054).

    ``enough_ranks`` is the least number of devices on which this stage's states fit, or None.
    """
    _at_least(1, num_params=num_params)
    memory, enough = None, None
    states = zero_states(num_params, ranks, stage)
    if gpu_memory_gb is not None:
        _at_least(0, gpu_memory_gb=gpu_memory_gb)
        memory = gpu_memory_gb * GB
        whole = zero_states(num_params, 1, stage).total
        kept = zero_states(num_params, 2, stage).total * 2 - whole  # what no rank can share
        if memory >= whole:
            enough = 1
        elif memory > kept:
            enough = math.ceil((whole - kept) / (memory - kept))
    traffic = 2 * ring_traffic(num_params, ranks, stage)  # bf16: 2 bytes an element
    return Plan(num_params, ranks, stage, states, traffic, memory, enough)
