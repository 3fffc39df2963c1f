"""Closed formulas for a training run: parameters, FLOPs, memory, traffic, time.

No torch, no measurement: what stands here is compared with measurements elsewhere. Bytes are
bytes, GB is 1e9 bytes, an element is one number of a tensor, a FLOP is one multiplication or one
addition. Every function names the equation it comes from.
"""

import math
from collections.abc import Sequence
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


# --- Messages: the α–β model --------------------------------------------------------------------


def message_seconds(nbytes: float, alpha: float, beta: float) -> float:
    """Seconds for one message: α + n/β (Hockney 1994, Parallel Computing 20(3)).

    Args:
        nbytes: n, the message's bytes.
        alpha: seconds that any message takes, however short (latency).
        beta: bytes per second that a long message reaches (bandwidth).
    """
    _at_least(0, nbytes=nbytes, alpha=alpha)
    _at_least(1, beta=beta)
    return alpha + nbytes / beta


def ring_seconds(nbytes: float, ranks: int, alpha: float, beta: float, *, rounds: int = 2) -> float:
    """Seconds of a ring all-reduce of ``nbytes``: 2((N − 1)α + (N − 1)/N · n/β).

    N − 1 messages of n/N bytes reduce-scatter, N − 1 all-gather; give ``rounds=1`` for either alone.
    Adding takes no time here (Thakur, Rabenseifner and Gropp 2005, Int. J. High Perform. Comput.
    Appl. 19(1), whose β is seconds per byte).
    """
    _at_least(1, ranks=ranks, rounds=rounds)
    return rounds * (ranks - 1) * message_seconds(nbytes / ranks, alpha, beta)


# --- Pipeline parallelism -----------------------------------------------------------------------


def zero_bubble_fraction(num_stages: int, micro_batches: int, forward: float = 1,
                         backward: float = 1, weights: float = 1) -> float:
    """Idle share of a step under ZB-H1 (Qi et al. 2024, arXiv 2401.10241, Table 2).

    Each stage is idle for (p − 1)(F + B − W); the times of a forward pass, of the gradient of the
    input and of the gradient of the weights may have any unit.
    """
    _at_least(1, num_stages=num_stages, micro_batches=micro_batches)
    _at_least(0, forward=forward, backward=backward, weights=weights)
    idle = (num_stages - 1) * (forward + backward - weights)
    return idle / (micro_batches * (forward + backward + weights) + idle)


def pipeline_sent(num_stages: int, stage: int, micro_batches: int, elements: float,
                  chunks: int = 1) -> float:
    """Elements that a stage sends per step: activations down, gradients up.

    bsh for each micro-batch and pair of neighbours, in either direction (Narayanan et al. 2021,
    arXiv 2104.04473, section 3.2). The first slice of the model sends no gradient, the last one no
    activation.

    Args:
        stage: 0 is the first.
        elements: of the activation of one micro-batch between two stages, b·s·h.
        chunks: slices of the model a stage (interleaved schedule).
    """
    _at_least(1, num_stages=num_stages, micro_batches=micro_batches, chunks=chunks)
    _at_least(0, stage=stage, elements=elements)
    if stage >= num_stages:
        raise ValueError(f"stage is {stage}: the last of {num_stages} is {num_stages - 1}")
    messages = 2 * chunks - (stage == 0) - (stage == num_stages - 1)
    return micro_batches * messages * elements


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


# --- ZeRO: states to the byte -------------------------------------------------------------------


def deepspeed_held(sizes: Sequence[int], ranks: int, stage: int, dtype: str = "bf16", *,
                   rank: int = 0, persistence_threshold: int = 0) -> States:
    """The bytes of `deepspeed_states` exactly, for parameters of ``sizes`` elements in their order.

    On top come, in DeepSpeed 0.19 (read from its source, counted in Chapter 7):

    - a 4-byte step counter for each tensor that torch's Adam sees: each parameter in stage 0, else one;
    - stages 1 and 2 pad the flat buffer to a multiple of 2N, and keep the whole gradient of every
      parameter that the rank's slice touches;
    - stage 3 pads each parameter to a multiple of N, and keeps those of at most
      ``persistence_threshold`` elements whole as well. Its subgroups (``sub_group_size``) hold all.
    """
    _at_least(0, rank=rank, persistence_threshold=persistence_threshold)
    if rank >= ranks:
        raise ValueError(f"rank is {rank}: the last of {ranks} is {ranks - 1}")
    whole = deepspeed_states(sum(sizes), ranks, stage, dtype)  # checks its arguments
    if stage == 0:
        return States(whole.parameters, whole.gradients, whole.optimizer + 4 * len(sizes))
    width = 2 if dtype == "bf16" else 4
    if stage == 3:
        shard = sum(_padded(size, ranks) for size in sizes) // ranks
        kept = sum(_padded(size, ranks) for size in sizes if size <= persistence_threshold)
        return States(width * (shard + kept), width * shard, 12 * shard + 4)
    flat = _padded(sum(sizes), 2 * ranks)
    shard = flat // ranks
    first, end, touched = rank * shard, 0, 0
    for size in [*sizes, flat - sum(sizes)]:  # the padding is one more tensor
        begin, end = end, end + size
        touched += size if begin < first + shard and end > first else 0
    return States(width * flat, width * touched, 12 * shard + 4)


def deepspeed_bucket_bytes(stage: int, bucket_size: int, dtype: str = "bf16", *,
                           overlap_comm: bool = False) -> int:
    """Bytes of the buffers that gradients are gathered in before they are reduced.

    ``reduce_bucket_size`` elements, whatever the model's size: during a backward pass in stages 1
    and 2, twice that when ``overlap_comm`` fills one while the other is sent; all the time, and
    once, in stage 3.
    """
    _check_stage(stage)
    _at_least(0, bucket_size=bucket_size)
    if stage == 0:
        return 0
    return (2 if dtype == "bf16" else 4) * bucket_size * (2 if overlap_comm and stage < 3 else 1)


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
                       keep_live: bool = True, multi_rank_bucket: bool = True) -> dict[str, float]:
    """Elements that go through each kind of collective per step in DeepSpeed 0.19, on each rank.

    An all-reduce or reduce-scatter counts what is reduced, an all-gather what is gathered: whole
    tensors, whatever the number of ranks (two or more). By default stages 1 and 2 all-reduce
    gradients where the paper reduce-scatters them, and stages 2 and 3 reduce at every accumulation
    step. From its second step on stage 3 gathers the parameters once per micro-batch; without
    ``keep_live`` (``stage3_max_live_parameters`` and ``stage3_max_reuse_distance`` 0), twice.
    Without ``multi_rank_bucket`` (``use_multi_rank_bucket_allreduce`` false) stages 1 and 2 reduce
    each gradient to its owner only: the paper's reduce-scatter, one owner after another.
    """
    _check_stage(stage)
    _at_least(1, gradient_accumulation_steps=gradient_accumulation_steps)
    times = gradient_accumulation_steps if stage >= 2 else 1
    if stage == 3:
        gathers = times if keep_live else 2 * times
        return {"all_gather": gathers * num_params, "reduce_scatter": times * num_params}
    op = "all_reduce" if stage == 0 or multi_rank_bucket else "reduce"
    reduced = {op: times * num_params}
    return reduced if stage == 0 else {**reduced, "all_gather": num_params}


def message_traffic(messages: dict[str, float], ranks: int) -> float:
    """Elements a rank sends for collectives of these sizes, each done as a ring.

    A reduce to one rank is a chain in which all but one send; over owners that take turns, the mean
    is that of a reduce-scatter.
    """
    sent = {"all_reduce": 2, "reduce_scatter": 1, "reduce": 1, "all_gather": 1, "all_to_all": 1}
    return sum(sent[op] * elements for op, elements in messages.items()) * ring_share(ranks)


# --- Activations --------------------------------------------------------------------------------


def layer_activations(batch_size: int, context: int, hidden_size: int, num_heads: int, *,
                      tensor: int = 1, sequence_parallel: bool = False,
                      recompute: str = "none") -> float:
    """Bytes one layer keeps for its backward pass, in 16-bit training with dropout.

    Korthikanti et al. 2022 (arXiv 2205.05198), Table 2, on each of ``tensor`` ranks:
    sbh(10 + 24/t + 5as/(ht)); with sequence parallelism sbh(34 + 5as/h)/t; ``selective``
    recomputation drops the 5as²b of the attention scores; ``full`` keeps the layer's input, 2sbh.
    """
    _at_least(1, batch_size=batch_size, context=context, hidden_size=hidden_size,
              num_heads=num_heads, tensor=tensor)
    _check_recompute(recompute)
    tokens = batch_size * context
    if recompute == "full":
        return 2 * tokens * hidden_size
    outside = 10 * tokens * hidden_size / (tensor if sequence_parallel else 1)
    inside = 24 * tokens * hidden_size / tensor
    scores = 0 if recompute == "selective" else 5 * num_heads * context * tokens / tensor
    return outside + inside + scores


def _check_recompute(recompute: str) -> None:
    if recompute not in ("none", "selective", "full"):
        raise ValueError(f"recompute is {recompute!r}: give 'none', 'selective' or 'full'")


def end_activations(batch_size: int, context: int, hidden_size: int, vocab_size: int, *,
                    tensor: int = 1, sequence_parallel: bool = False) -> tuple[float, float]:
    """Bytes kept (by the embedding's dropout, by the output layer) for one micro-batch.

    sbh/t, and 4sbh(1 + V/h)/t for the last LayerNorm, the output layer's input and the fp32 logits
    (2205.05198, section 4.3); without sequence parallelism only the logits are divided by t.
    """
    _at_least(1, batch_size=batch_size, context=context, hidden_size=hidden_size,
              vocab_size=vocab_size, tensor=tensor)
    tokens = batch_size * context
    whole = tokens * hidden_size / (tensor if sequence_parallel else 1)
    return whole, 4 * whole + 4 * tokens * vocab_size / tensor


def in_flight(num_stages: int, micro_batches: int, interleave: int = 1) -> float:
    """Micro-batches whose activations the first stage holds at its peak under 1F1B.

    p, or p(1 + (p − 1)/(pv)) when each rank has v > 1 chunks (2205.05198, section 4.2.3); never more
    than there are.
    """
    _at_least(1, num_stages=num_stages, micro_batches=micro_batches, interleave=interleave)
    held = num_stages + (0 if interleave == 1 else (num_stages - 1) / interleave)
    return min(held, micro_batches)


def block_activations(batch_size: int, context: int, hidden_size: int, num_heads: int, *,
                      width: int = 4, attention: str = "fused", dropout: bool = False) -> int:
    """Bytes that ``labkit.models.Block`` keeps for its backward pass on a CPU, exactly.

    16sbh elements: input, both LayerNorms' outputs, QKV (3), attention's output, the sum after it,
    and 4 + 4 around the GELU. Four statistics a token for the LayerNorms. ``fused`` attention keeps
    one fp32 number a head and token; ``math`` keeps as²b probabilities and fp32 copies of QKV (with
    one sample or one head an fp32 value stays a view into QKV and keeps it all alive, 2sbh more).
    ``dropout`` keeps a mask of activations for each half of the block; on a CPU attention goes the
    ``math`` way then, and keeps a mask and the probabilities after it too, both in fp32.
    Derived in Lab 3 and in Chapter 7, counted there by ``labkit.measure.activations``.

    Args:
        width: bytes of an element: 4 in fp32, 2 in bf16.
    """
    _at_least(1, batch_size=batch_size, context=context, hidden_size=hidden_size,
              num_heads=num_heads, width=width)
    tokens = batch_size * context
    masks = 2 * tokens * hidden_size * width if dropout else 0
    kept = 16 * tokens * hidden_size * width + 4 * tokens * width + masks
    if attention not in ("fused", "math"):
        raise ValueError(f"attention is {attention!r}: give 'fused' or 'math'")
    if attention == "fused" and not dropout:
        return kept + 4 * num_heads * tokens
    a_view = width == 4 and 1 in (batch_size, num_heads)
    copies = 2 * width if a_view else 3 * (4 - width)
    scores = 4 * num_heads * context * tokens
    return kept + copies * tokens * hidden_size + (3 * scores if dropout else scores)


def gpt_activations(batch_size: int, context: int, num_layers: int, hidden_size: int,
                    num_heads: int, vocab_size: int, *, width: int = 4,
                    dropout: bool = False) -> int:
    """Bytes that ``labkit.models.GPT`` keeps when it computes a loss on a CPU, exactly.

    Its blocks, the last LayerNorm (input, output, two statistics a token), the log-probabilities,
    and the 8-byte numbers of tokens, targets and positions. Cross-entropy keeps a scalar, dropout
    one more mask, that of the embeddings.
    """
    _at_least(1, num_layers=num_layers, vocab_size=vocab_size)
    block = block_activations(batch_size, context, hidden_size, num_heads, width=width,
                              dropout=dropout)
    tokens = batch_size * context
    inner = 3 * hidden_size if dropout else 2 * hidden_size
    last = tokens * (inner + 2 + vocab_size) * width + width
    return num_layers * block + last + 8 * (2 * tokens + context)


# --- ZeRO: traffic to the byte, offload, secondary partitions ------------------------------------


def _padded(size: int, multiple: int) -> int:
    """The least multiple that holds ``size`` elements."""
    return -(-size // multiple) * multiple


def deepspeed_bytes(sizes: Sequence[int], ranks: int, stage: int, dtype: str = "fp32", *,
                    gradient_accumulation_steps: int = 1, keep_live: bool = True,
                    multi_rank_bucket: bool = True,
                    persistence_threshold: int = 0) -> dict[str, int]:
    """Bytes through each kind of collective per step in DeepSpeed 0.19, on each rank, exactly.

    The elements of `deepspeed_messages`, for parameters of ``sizes`` elements, with all that comes
    on top. Stages 1 and 2 gather one flat buffer, padded to a multiple of 2N; stage 3 pads each
    parameter to a multiple of N, and gathers those of at most ``persistence_threshold`` elements
    once, after the step. One number for the gradients' norm: fp32, in stage 3 fp64; in bf16 stages
    1 and 2 add a byte that says whether a gradient overflowed. Stage 3: from the third step on.
    """
    _check_stage(stage)
    _at_least(2, ranks=ranks)
    if dtype not in ("bf16", "fp32"):
        raise ValueError(f"dtype is {dtype!r}: give 'bf16' or 'fp32'")
    width = 2 if dtype == "bf16" else 4

    def messages(num_params: int) -> dict[str, float]:
        return deepspeed_messages(num_params, stage, keep_live=keep_live,
                                  gradient_accumulation_steps=gradient_accumulation_steps,
                                  multi_rank_bucket=multi_rank_bucket)

    if stage == 3:
        whole = [_padded(size, ranks) for size in sizes]
        kept = sum(padded for size, padded in zip(sizes, whole, strict=True)
                   if size <= persistence_threshold)
        elements = messages(sum(whole) - kept)
        elements["all_gather"] += kept
        elements["reduce_scatter"] += gradient_accumulation_steps * kept
        small = 8
    else:
        elements = messages(sum(sizes))
        if stage:
            elements["all_gather"] = _padded(sum(sizes), 2 * ranks)
        small = 0 if stage == 0 else 5 if dtype == "bf16" else 4
    sent = {op: int(width * number) for op, number in elements.items()}
    if small:
        sent["all_reduce"] = sent.get("all_reduce", 0) + small
    return sent


@dataclass(frozen=True)
class Moved:
    """Bytes between one device and its host in a step: gradients go down, parameters come up."""

    down: float
    up: float


def offload_traffic(num_params: float, ranks: int = 1, *, gradient_bytes: float = 2,
                    parameter_bytes: float = 2) -> Moved:
    """Bytes that ZeRO-Offload moves per step between each device and the host, with bf16 or fp16.

    2Ψ of gradients down and 2Ψ of parameters up (Ren et al. 2021, arXiv 2101.06840, section 3);
    N ranks share them. DeepSpeed 0.19 widens gradients to fp32 first: ``gradient_bytes`` 4.
    """
    _at_least(0, num_params=num_params)
    _at_least(1, ranks=ranks)
    return Moved(down=gradient_bytes * num_params / ranks, up=parameter_bytes * num_params / ranks)


def hpz_bytes(num_params: float, group: int, *, parameter_bytes: float = 2) -> float:
    """Bytes of the secondary copy that ZeRO++'s hpZ adds on each rank (arXiv 2306.10209).

    A ``group`` of ranks, those of one node, holds the whole model once more between forward and
    backward.
    """
    _at_least(0, num_params=num_params)
    _at_least(1, group=group)
    return parameter_bytes * num_params / group


def hpz_gathers(num_params: float, *, gradient_accumulation_steps: int = 1,
                keep_live: bool = True) -> tuple[float, float]:
    """Elements gathered per step (over all ranks, inside a group) in DeepSpeed 0.19 with hpZ.

    The first gather after a step crosses groups, every later one stays inside. The paper (arXiv
    2306.10209) counts one of each; with ``keep_live`` and no accumulation there is no later one.
    """
    gathers = deepspeed_messages(num_params, 3, keep_live=keep_live,
                                 gradient_accumulation_steps=gradient_accumulation_steps)
    return num_params, gathers["all_gather"] - num_params


# --- Tensor, sequence and expert parallelism ----------------------------------------------------


def tensor_parallel_params(num_layers: int, hidden_size: int, vocab_size: int, context: int,
                           ranks: int) -> int:
    """Parameters of a GPT (tied, with biases) on each of ``ranks`` tensor-parallel ranks.

    L((12H² + 7H)/t + 6H) + VH/t + (s + 2)H: what Megatron-LM divides (Shoeybi et al. 2019, arXiv
    1909.08053, section 3) and what every rank keeps whole: LayerNorms, positions, the biases added
    after a row-parallel product. One rank holds :func:`gpt_params`.
    """
    _at_least(1, ranks=ranks, hidden_size=hidden_size, vocab_size=vocab_size)
    _at_least(0, num_layers=num_layers, context=context)
    if hidden_size % ranks or vocab_size % ranks:
        raise ValueError(f"{ranks} ranks must divide hidden_size {hidden_size} and vocab_size {vocab_size}")
    divided = num_layers * (12 * hidden_size**2 + 7 * hidden_size) + vocab_size * hidden_size
    whole = num_layers * 6 * hidden_size + (context + 2) * hidden_size
    return divided // ranks + whole


def tensor_parallel_messages(num_layers: int, batch_size: int, context: int,
                             hidden_size: int) -> dict[str, int]:
    """Elements all-reduced per micro-batch by a tensor-parallel GPT: (4L + 2)bsH + 3bs.

    Four activations a layer, two forward and two backward; one forward after the embedding and one
    backward before the output layer; three numbers a token for the loss over a divided vocabulary:
    largest logit, sum of exponentials, the target's logit (arXiv 1909.08053, section 3).
    """
    _at_least(0, num_layers=num_layers)
    _at_least(1, batch_size=batch_size, context=context, hidden_size=hidden_size)
    tokens = batch_size * context
    return {"all_reduce": (4 * num_layers + 2) * tokens * hidden_size + 3 * tokens}


def ulysses_messages(num_layers: int, batch_size: int, context: int, hidden_size: int,
                     ranks: int) -> dict[str, int]:
    """Elements a rank puts into all-to-alls per micro-batch under DeepSpeed-Ulysses: 8LbsH/N.

    Queries, keys, values and outputs of each layer, 4bsH/N forward and as much backward (Jacobs et
    al. 2023, arXiv 2309.14509, section 3.2). ``context`` is that of the whole sequence.
    """
    _at_least(0, num_layers=num_layers)
    _at_least(1, batch_size=batch_size, context=context, hidden_size=hidden_size, ranks=ranks)
    if context % ranks:
        raise ValueError(f"{ranks} ranks must divide the context of {context} tokens")
    return {"all_to_all": 8 * num_layers * batch_size * context * hidden_size // ranks}


def moe_capacity(tokens: int, num_experts: int, capacity_factor: float = 1.0) -> int:
    """Tokens that an expert takes from one rank: ⌈tokens/E · factor⌉.

    Switch Transformers (Fedus et al. 2021, arXiv 2101.03961), Eq. 3; for two experts a token,
    double the factor. DeepSpeed's layer takes ``min_capacity`` where that is more.
    """
    _at_least(1, tokens=tokens, num_experts=num_experts)
    _at_least(0, capacity_factor=capacity_factor)
    return math.ceil(tokens / num_experts * capacity_factor)


def moe_dropped(assigned: list[int], capacity: int) -> int:
    """Tokens that find no place: Σ max(0, nₑ − capacity), ``assigned`` being the router's choices."""
    return sum(max(0, count - capacity) for count in assigned)


def moe_messages(num_layers: int, num_experts: int, capacity: int, hidden_size: int) -> dict[str, int]:
    """Elements a rank puts into all-to-alls per micro-batch: 4·L·E·capacity·H.

    To the experts and back, forward and backward; empty places travel too (GShard, Lepikhin et al.
    2020, arXiv 2006.16668, Algorithm 2). ``num_layers`` counts the layers that have experts.
    """
    _at_least(0, num_layers=num_layers, capacity=capacity)
    _at_least(1, num_experts=num_experts, hidden_size=hidden_size)
    return {"all_to_all": 4 * num_layers * num_experts * capacity * hidden_size}


def load_balance_loss(shares: list[float], gates: list[float]) -> float:
    """E·Σ fₑPₑ: share of tokens times mean gate of each expert; 1 when all are alike.

    Switch Transformers (arXiv 2101.03961), Eqs. 4 to 6, without their factor α.
    """
    return len(shares) * sum(share * gate for share, gate in zip(shares, gates, strict=True))


# --- Strategies ---------------------------------------------------------------------------------


def num_buckets(sizes: Sequence[int], bucket_size: int) -> int:
    """Messages in which gradients of ``sizes`` elements are reduced (DeepSpeed 0.19, stages 1 and 2).

    They are packed in the order given; one that no longer fits closes the bucket. So at least
    ⌈Ψ/bucket⌉, and a gradient larger than ``bucket_size`` travels alone.
    """
    _at_least(1, bucket_size=bucket_size)
    buckets: list[int] = []
    for size in sizes:
        if buckets and buckets[-1] + size <= bucket_size:
            buckets[-1] += size
        else:
            buckets.append(size)
    return len(buckets)


def checkpointed_activations(activations: float, num_blocks: int, block: float,
                             block_input: float) -> tuple[float, float]:
    """Bytes (kept after the forward pass, kept while one block is recomputed) with checkpointing.

    Of ``activations`` bytes, each of ``num_blocks`` blocks keeps its input only; the backward pass
    fills them again one at a time (Chen et al. 2016, arXiv 1604.06174, section 4.1).
    """
    _at_least(1, num_blocks=num_blocks)
    freed = block - block_input
    return activations - num_blocks * freed, activations - (num_blocks - 1) * freed


def clip_factor(norm: float, max_norm: float) -> float:
    """What gradient clipping multiplies the gradient by: min(1, max_norm/(norm + 1e-6)).

    Pascanu et al. 2013 (arXiv 1211.5063), Algorithm 1; the 1e-6 is torch's and DeepSpeed's.
    """
    _at_least(0, norm=norm, max_norm=max_norm)
    return min(1.0, max_norm / (norm + 1e-6))


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
