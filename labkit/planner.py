"""Plans a training run: model shape + cluster + layout → bytes, messages, seconds, fits or not.

No torch. A step is a sum of terms, each at one roof of the device: matrix products at its FLOP/s,
element-wise kernels at its memory's bandwidth, messages at latency + bytes/bandwidth. Nothing is
overlapped. One number, ``Cluster.efficiency``, says how much of every nameplate rate is reached.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from labkit import plan
from labkit.plan import GB, States

WIDTH = 2  # bytes of a bf16 element
LARGEST = 10**9
RECOMPUTE = ("none", "selective", "full")


def _whole(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or not 1 <= value <= LARGEST:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1 to {LARGEST:,}")


@dataclass(frozen=True)
class Shape:
    """A GPT: what `plan.gpt_params` counts."""

    layers: int
    hidden: int
    heads: int
    vocab: int
    context: int

    def __post_init__(self) -> None:
        _whole(**vars(self))
        if self.hidden % self.heads:
            raise ValueError(f"hidden size {self.hidden} cannot be divided among {self.heads} heads")

    @property
    def num_params(self) -> int:
        return plan.gpt_params(self.layers, self.hidden, self.vocab, self.context)


@dataclass(frozen=True)
class Cluster:
    """Devices and links. Rates are nameplate, links one way and per device, in bytes a second."""

    gpus: int
    memory: float
    peak: float  # bf16 FLOP/s
    bandwidth: float  # of the device's own memory
    intra: float  # link inside a node
    inter: float  # link between nodes
    per_node: int = 8
    latency: float = 5e-6  # seconds a message, the α of the α–β model
    efficiency: float = 0.69  # `calibrate` on the 175 B row of arXiv 2205.05198, Table 5

    def __post_init__(self) -> None:
        _whole(gpus=self.gpus, per_node=self.per_node)
        for name in ("memory", "peak", "bandwidth", "intra", "inter"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give a number above 0")
        if not self.latency >= 0:
            raise ValueError(f"latency is {self.latency!r}: give a number of seconds, at least 0")
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency is {self.efficiency!r}: give a share above 0, at most 1")


# Data sheets of NVIDIA: A100 80GB SXM (NVLink 600 GB/s both ways together, 8 × HDR InfiniBand of 200
# Gb/s a node, as in arXiv 2205.05198), H100 SXM and H200 SXM (900 GB/s, 8 × NDR of 400 Gb/s); dense bf16.
PRESETS = {
    "a100": Cluster(8, 80 * GB, 312e12, 2.039e12, 300 * GB, 25 * GB),
    "h100": Cluster(8, 80 * GB, 989e12, 3.35e12, 450 * GB, 50 * GB),
    "h200": Cluster(8, 141 * GB, 989e12, 4.8e12, 450 * GB, 50 * GB),
}


@dataclass(frozen=True)
class Layout:
    """How a step is divided: tensor × pipeline × data ranks, and what each rank keeps."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    stage: int = 0
    micro: int = 1
    interleave: int = 1
    recompute: str = "none"
    sequence_parallel: bool = False

    @property
    def ranks(self) -> int:
        return self.tp * self.pp * self.dp


@dataclass(frozen=True)
class Estimate:
    """What `estimate` found for the rank that holds most and works longest."""

    layout: Layout
    states: States
    activations: float  # bytes, with a layer that stage 3 has gathered
    memory: float  # bytes there are
    sent: dict[str, float]  # bytes a rank sends per step: tensor, pipeline, data
    seconds: dict[str, float]  # by term; their sum is the step
    mfu: float  # of the GPUs at work

    @property
    def total(self) -> float:
        return self.states.total + self.activations

    @property
    def fits(self) -> bool:
        return self.total <= self.memory

    @property
    def step(self) -> float:
        return sum(self.seconds.values())


def refused(shape: Shape, layout: Layout, batch: int, gpus: int) -> str:
    """Why nobody runs this layout, in a clause; empty if it can be run."""
    chunks = layout.pp * layout.interleave
    if layout.ranks > gpus:
        return f"{layout.tp} × {layout.pp} × {layout.dp} ranks are more than {gpus:,} GPUs"
    if shape.heads % layout.tp:
        return f"{shape.heads} heads cannot be divided among {layout.tp} tensor-parallel ranks"
    if shape.layers % chunks:
        return f"{shape.layers} layers cannot be divided into {chunks} equal pieces"
    if layout.interleave > 1 and layout.pp == 1:
        return f"{layout.interleave} pieces on each rank need a pipeline of more than one stage"
    if layout.stage >= 2 and layout.pp > 1:
        return f"DeepSpeed refuses a pipeline with ZeRO stage {layout.stage}"
    if batch % (layout.micro * layout.dp):
        return (f"a batch of {batch} cannot be divided into micro-batches of {layout.micro} on "
                f"{layout.dp} data-parallel ranks")
    if layout.interleave > 1 and batch // (layout.micro * layout.dp) % layout.pp:
        return f"an interleaved pipeline needs a multiple of {layout.pp} micro-batches"
    return ""


def estimate(shape: Shape, cluster: Cluster, layout: Layout, batch: int) -> Estimate:
    """Bytes and seconds of one step of ``batch`` samples. Raises ValueError for a layout refused.

    Sources: states arXiv 1910.02054; activations and tensor-parallel messages 2205.05198, sections 4
    and 4.2; pipeline 2104.04473, section 2.2. Element-wise traffic is derived in `elementwise_bytes`.
    """
    _check(layout, batch)
    if reason := refused(shape, layout, batch, cluster.gpus):
        raise ValueError(reason)
    micros = batch // (layout.micro * layout.dp)
    states, activations = _memory(shape, layout, micros)
    sent, seconds = _time(shape, cluster, layout, micros)
    flops = plan.iteration_flops(batch, shape.context, shape.layers, shape.hidden, shape.vocab)
    mfu = plan.model_flops_utilization(flops, sum(seconds.values()), layout.ranks, cluster.peak)
    return Estimate(layout, states, activations, cluster.memory, sent, seconds, mfu)


def _check(layout: Layout, batch: int) -> None:
    _whole(tp=layout.tp, pp=layout.pp, dp=layout.dp, micro=layout.micro, interleave=layout.interleave,
           batch=batch)
    plan._check_stage(layout.stage)
    plan._check_recompute(layout.recompute)


def calibrate(shape: Shape, cluster: Cluster, layout: Layout, batch: int,
              seconds: float) -> Cluster:
    """The cluster with the efficiency at which this step takes so many seconds: A/η + B solved for η.

    Raises ValueError when not even nameplate rates are that quick.
    """
    whole, half = (estimate(shape, replace(cluster, efficiency=eta), layout, batch).step
                   for eta in (1.0, 0.5))
    scaled = half - whole  # A, the rest is latency
    if not seconds >= whole:
        raise ValueError(f"{seconds!r} s is less than the {whole:.3g} s at nameplate rates")
    return replace(cluster, efficiency=scaled / (seconds - whole + scaled))


def rank_params(shape: Shape, layout: Layout) -> float:
    """Parameters of the first stage's ranks: their layers and the embedding, divided by t."""
    layer = plan.gpt_params(1, shape.hidden, 1, 0) - 3 * shape.hidden
    embeddings = (shape.vocab + shape.context) * shape.hidden
    return (shape.layers / layout.pp * layer + embeddings) / layout.tp


def _memory(shape: Shape, layout: Layout, micros: int) -> tuple[States, float]:
    """(states, bytes of activations) on the first stage, which holds most micro-batches."""
    states = plan.zero_states(rank_params(shape, layout), layout.dp, layout.stage)
    split = {"tensor": layout.tp, "sequence_parallel": layout.sequence_parallel}
    layer = plan.layer_activations(layout.micro, shape.context, shape.hidden, shape.heads,
                                   recompute=layout.recompute, **split)
    first, last = plan.end_activations(layout.micro, shape.context, shape.hidden, shape.vocab,
                                       **split)
    held = plan.in_flight(layout.pp, micros, layout.interleave)
    kept = held * (shape.layers / layout.pp * layer + first) + (last if layout.pp == 1 else 0)
    if layout.recompute == "full":  # one layer is whole again while its backward runs
        kept += plan.layer_activations(layout.micro, shape.context, shape.hidden, shape.heads,
                                       **split) - layer
    if layout.stage == 3:  # a gathered layer
        kept += WIDTH * 12 * shape.hidden**2 / layout.tp
    return states, kept


def elementwise_bytes(shape: Shape, layout: Layout) -> tuple[float, float]:
    """(forward, backward) bytes that kernels other than matrix products move, per layer and micro-batch.

    Counted in passes over a 16-bit tensor; a dropout's mask is half a pass. Scores, as²b/t: softmax
    reads and writes, dropout reads, writes, keeps a mask: 4.5; backward, dropout 2.5 and softmax 3.
    GELU, 4sbh/t: 2, then 3. LayerNorms, dropouts and residual sums, sbh: 2·(2 + 3.5), then 2·(3 + 2.5).
    """
    tokens = layout.micro * shape.context
    scores = WIDTH * shape.heads * shape.context * tokens / layout.tp
    gelu = WIDTH * 4 * tokens * shape.hidden / layout.tp
    whole = WIDTH * tokens * shape.hidden / (layout.tp if layout.sequence_parallel else 1)
    again = scores * 4.5 if layout.recompute == "selective" else 0
    forward = 4.5 * scores + 2 * gelu + 11 * whole
    backward = 5.5 * scores + 3 * gelu + 11 * whole + again
    return forward, backward + (forward if layout.recompute == "full" else 0)


def _time(shape: Shape, cluster: Cluster, layout: Layout, micros: int) -> tuple[dict, dict]:
    """(bytes sent, seconds) by term for a step of a rank in the last stage, the slowest."""
    h, t, width = shape.hidden, layout.tp, WIDTH
    tokens = layout.micro * shape.context
    layers = shape.layers / layout.pp
    eta = cluster.efficiency

    def link(span: int) -> float:  # ranks are numbered tensor first, then data, then pipeline
        return eta * (cluster.intra if span <= cluster.per_node else cluster.inter)

    # One micro-batch through the layers of one stage, forward and backward.
    linear, scores = 24 * tokens * h**2, 4 * tokens * shape.context * h
    extra = {"none": 0, "selective": scores, "full": linear + scores}[layout.recompute]
    compute = layers * (3 * (linear + scores) + extra) / t / (cluster.peak * eta)
    memory = layers * sum(elementwise_bytes(shape, layout)) / (cluster.bandwidth * eta)
    reductions = layers * (6 if layout.recompute == "full" else 4)  # all-reduces of sbh elements
    ring = 2 * plan.ring_share(t)
    tensor_bytes = reductions * ring * width * tokens * h
    tensor = tensor_bytes / link(t) + reductions * ring * t * cluster.latency
    hops = 0 if layout.pp == 1 else 2 * layout.interleave  # to the next stage and back
    hop_bytes = width * tokens * h / t  # each sends its part (2104.04473, section 4.1)
    hop = hops * (cluster.latency + hop_bytes / link(layout.ranks))
    logits = 6 * tokens * h * shape.vocab / t / (cluster.peak * eta)

    # The step: all micro-batches, the bubble, and once a step gradients, parameters, optimizer.
    bubble = plan.bubble_overhead(layout.pp, 1, layout.interleave) * (compute + memory + tensor + hop)
    params = rank_params(shape, layout)
    # Reduce and gather, in Ψ, as the paper counts them; stages 2 and 3 reduce every micro-batch, stage 3
    # gathers it twice.
    volume = {0: 2, 1: 2, 2: micros + 1, 3: 3 * micros}[layout.stage]
    share = plan.ring_share(layout.dp)
    data_bytes = volume * share * width * params
    data = data_bytes / link(t * layout.dp) + volume * share * layout.dp * cluster.latency
    owned = params / (layout.dp if layout.stage else 1)
    optimizer = 28 * owned / (cluster.bandwidth * eta)  # reads 2 + 12 bytes, writes 12 + 2
    seconds = {"matrix products": micros * (compute + logits), "element-wise": micros * memory,
               "tensor parallel": micros * tensor, "stage to stage": micros * hop,
               "bubble": bubble, "data parallel": data, "optimizer": optimizer}
    sent = {"tensor": micros * tensor_bytes, "pipeline": micros * hops * hop_bytes,
            "data": data_bytes}
    return sent, seconds


def _divisors(n: int) -> list[int]:
    small = [i for i in range(1, math.isqrt(n) + 1) if n % i == 0]
    return sorted({*small, *(n // i for i in small)})


def layouts(shape: Shape, cluster: Cluster, batch: int, **fixed: int | str) -> Iterator[Layout]:
    """Every layout worth a look: tensor parallel inside a node, as data-parallel as there is room for."""

    def choose(name: str, values: list) -> list:
        return [fixed[name]] if name in fixed else values

    powers = [2**i for i in range(11)]
    tensors = [n for n in powers if n <= min(cluster.per_node, cluster.gpus)]
    pieces, splits = _divisors(shape.layers), _divisors(batch)
    for tp in choose("tp", tensors):
        for pp in choose("pp", pieces):
            cuts = [n for n in pieces if shape.layers % (pp * n) == 0] if pp > 1 else [1]
            room = cluster.gpus // (tp * pp)
            most = max((n for n in splits if n <= room), default=1)
            for dp in choose("dp", [most]):
                options = [(stage, micro, interleave, recompute)
                           for stage in choose("stage", [0, 1, 2, 3] if dp > 1 else [0])
                           for micro in choose("micro", powers)
                           for interleave in choose("interleave", cuts)
                           for recompute in choose("recompute", list(RECOMPUTE))]
                for option in options:
                    layout = Layout(tp, pp, dp, *option, fixed.get("sequence_parallel", tp > 1))
                    if not refused(shape, layout, batch, cluster.gpus):
                        yield layout


def search(shape: Shape, cluster: Cluster, batch: int, *, best: int = 5,
           **fixed: int | str) -> list[Estimate]:
    """The quickest layouts that fit, best first; if none fits, the one that lacks least.

    ``fixed`` holds fields of `Layout` that are given. Raises ValueError when every layout is refused.
    """
    _check(replace(Layout(), **fixed), batch)
    found = [estimate(shape, cluster, layout, batch)
             for layout in layouts(shape, cluster, batch, **fixed)]
    if not found:
        given = replace(Layout(), **fixed)
        reason = refused(shape, given, batch, cluster.gpus)
        raise ValueError(reason or "no layout divides this model and this batch among these GPUs")
    fitting = sorted((e for e in found if e.fits), key=lambda e: (e.step, e.total))
    return fitting[:best] or [min(found, key=lambda e: e.total)]


def table(found: list[Estimate]) -> str:
    """Layouts side by side, one a line."""
    lines = [" tp  pp    dp  ZeRO  micro  pieces  recompute    states  activations   step      MFU"]
    for e in found:
        at = e.layout
        lines.append(f"{at.tp:3}{at.pp:4}{at.dp:6}{at.stage:6}{at.micro:7}{at.interleave:8}  "
                     f"{at.recompute:10}{e.states.total / GB:6.1f} GB{e.activations / GB:10.1f} GB"
                     f"{e.step:9.3g} s{e.mfu:7.1%}")
    return "\n".join(lines)


def verdict(e: Estimate) -> str:
    """The terms of a layout that fits; of one that does not, what is too much and what may help."""
    if e.fits:
        terms = ", ".join(f"{name} {seconds / e.step:.1%}" for name, seconds in e.seconds.items())
        return f"{e.layout.ranks:,} GPUs busy; the best step is {terms}"
    most = "states" if e.states.total > e.activations else "activations"
    total, memory = (plan._short(size / GB) for size in (e.total, e.memory))
    return (f"nothing fits: the least is {total} of {memory} GB, most of it {most}. What helps: more "
            "GPUs or memory, a smaller model or context, or to leave open what was fixed")
