"""The formulas of labkit.plan against published figures, against torch, and against mutation."""

import ast
import inspect
import math
import subprocess
import sys
import types
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from labkit import plan
from labkit.models import GPT, GPTConfig, count_parameters

# Radford et al. 2019: (layers, hidden size) → parameters of the released GPT-2 checkpoints.
GPT2 = {(12, 768): 124_439_808, (24, 1024): 354_823_168,
        (36, 1280): 774_030_080, (48, 1600): 1_557_611_200}

# Brown et al. 2020 (2005.14165), Table D.1: millions of parameters → training FLOPs, 300 B tokens.
GPT3_FLOPS = {125: "2.25E+20", 356: "6.41E+20", 760: "1.37E+21", 1_320: "2.38E+21",
              2_650: "4.77E+21", 6_660: "1.20E+22", 12_850: "2.31E+22", 174_600: "3.14E+23"}

# Narayanan et al. 2021 (2104.04473), Table 1: (layers, hidden size) → billions of parameters;
# vocabulary 51 200, context 2048.
MEGATRON = {(24, 2304): "1.7", (30, 3072): "3.6", (36, 4096): "7.5", (40, 6144): "18.4",
            (48, 8192): "39.1", (60, 10240): "76.1", (80, 12288): "145.6", (96, 16384): "310.1",
            (105, 20480): "529.6", (128, 25600): "1008.0"}

# Korthikanti et al. 2022 (2205.05198), Tables 3 and 5: layers, hidden size, GPUs, batch, seconds
# per iteration → model FLOPs utilization in per cent on A100s of 312 TFLOP/s.
UTILIZATION = [(48, 6144, 8, 4, 1.10, 41.5), (96, 12288, 64, 64, 13.75, 51.4),
               (105, 20480, 280, 280, 37.83, 56.0), (128, 25600, 512, 512, 71.49, 56.3)]

# Rajbhandari et al. 2020 (1910.02054), Table 1: GB per device for stages 1, 2, 3 (7.5 B, 128 B and
# 1 T parameters). The paper cuts the digits of the larger models off, so a unit either way holds.
ZERO_TABLE_1 = {
    1: "120 120 120 2048 2048 2048 16000 16000 16000",
    4: "52.5 41.3 30 896 704 512 7000 5500 4000",
    16: "35.6 21.6 7.5 608 368 128 4750 2875 1000",
    64: "31.4 16.6 1.88 536 284 32 4187 2218 250",
    256: "30.4 15.4 0.47 518 263 8 4046 2054 62.5",
    1024: "30.1 15.1 0.12 513 257 2 4011 2013 15.6",
}

# Bytes per parameter counted from DeepSpeed 0.19.8's tensors (padding left out): stages 0 to 3.
DEEPSPEED_BYTES = {("bf16", 1): (16, 16, 16, 16), ("bf16", 2): (16, 9, 9, 8),
                   ("bf16", 4): (16, 5.5, 5.5, 4), ("fp32", 1): (16, 20, 20, 20),
                   ("fp32", 2): (16, 12, 12, 10), ("fp32", 4): (16, 8, 8, 5)}

# Elements per parameter seen at DeepSpeed 0.19.8's collectives from the second step on:
# (stage, accumulation, parameters kept live) → what went through each collective.
DEEPSPEED_MESSAGES = {
    (0, 1, True): {"all_reduce": 1},
    (0, 4, True): {"all_reduce": 1},
    (1, 1, True): {"all_reduce": 1, "all_gather": 1},
    (1, 4, True): {"all_reduce": 1, "all_gather": 1},
    (2, 1, True): {"all_reduce": 1, "all_gather": 1},
    (2, 4, True): {"all_reduce": 4, "all_gather": 1},
    (3, 1, True): {"reduce_scatter": 1, "all_gather": 1},
    (3, 4, True): {"reduce_scatter": 4, "all_gather": 4},
    (3, 1, False): {"reduce_scatter": 1, "all_gather": 2},
    (3, 4, False): {"reduce_scatter": 4, "all_gather": 8},
}


def printed(value: float, figure: str, units: float = 0.51) -> bool:
    """Whether a value agrees with a figure as printed: to half a unit of its last digit."""
    unit = 10.0 ** Decimal(figure).as_tuple().exponent
    return abs(value - float(figure)) <= units * unit


def close(value: float, expected: float) -> bool:
    """Equal but for the rounding of a few float64 operations."""
    return math.isclose(value, expected, rel_tol=1e-12)


def check_parameters_and_flops(p) -> None:
    for (layers, hidden), params in GPT2.items():
        assert p.gpt_params(layers, hidden, 50_257, 1024) == params
    assert printed(p.gpt_params(96, 12_288, 50_257, 2048) / 1e6, "174600", units=5)  # Table D.1
    for (layers, hidden), billions in MEGATRON.items():
        assert printed(p.gpt_params(layers, hidden, 51_200, 2048) / 1e9, billions)
    # By hand: two layers of 12·3² + 13·3, or + 2·3 without biases; V = 5, s = 7.
    assert p.gpt_params(2, 3, 5, 7, tied=False) == 2 * (108 + 39) + (5 + 7 + 5) * 3 + 6
    assert p.gpt_params(2, 3, 5, 7, bias=False) == 2 * (108 + 6) + (5 + 7) * 3 + 3
    for millions, flops in GPT3_FLOPS.items():
        assert printed(p.training_flops(millions * 1e6, 300e9), flops)
    # PaLM, Appendix B, in small numbers: 6·10 + 12·2·3·5.
    assert close(p.flops_per_token(10, 2, 3, 5), 60 + 360)
    for layers, hidden, gpus, batch, seconds, utilization in UTILIZATION:
        flops = p.iteration_flops(batch, 2048, layers, hidden, 51_200)
        # The 22 B row prints its seconds to three digits: 0.5 % of 41.5.
        got = 100 * p.model_flops_utilization(flops, seconds, gpus, 312e12)
        assert abs(got - utilization) < 0.2
    # Products counted one by one (B = 2, s = 5, L = 3, H = 4, V = 7): 2 FLOPs each, times 3 for
    # forward and backward; recomputation adds the layers' forward once more.
    layers = 2 * 2 * 5 * 3 * (4 * 4 * 4 + 2 * 5 * 4 + 2 * 4 * 16)
    logits = 2 * 2 * 5 * 4 * 7
    assert close(p.iteration_flops(2, 5, 3, 4, 7), 3 * (layers + logits))
    assert close(p.iteration_flops(2, 5, 3, 4, 7, recompute=True), 4 * layers + 3 * logits)


def check_time_and_quality(p) -> None:
    assert p.train_batch_size(4, 8, 16) == 512
    assert p.accumulation_steps(512, 4, 16) == 8 and p.accumulation_steps(64, 4, 16) == 1
    # GPT-3 (Brown et al. 2020, Table 2.1): 300 B tokens in batches of 3.2 M.
    assert p.training_steps(300e9, 1600, 2000) == 93_750 and p.training_steps(11, 5, 2) == 2
    # Narayanan et al. 2021, section 5.1: GPT-3 on 1024 A100s at 140 TFLOP/s takes 34 days, 8·T·P
    # FLOPs with recomputation.
    days = p.training_seconds(8 * 300e9 * 175e9, 1024, 312e12, 140 / 312) / 86_400
    assert printed(days, "34")
    assert close(p.training_seconds(1e20, 10, 1e15, 0.4), 25_000)
    assert close(p.model_flops_utilization(1e18, 2.0, 4, 250e12), 0.0005 * 1e6)
    # Figure 4 of 2104.04473 draws p = 4, m = 8; v = 2 halves the bubble.
    assert close(p.bubble_overhead(4, 8), 3 / 8) and close(p.bubble_overhead(4, 8, 2), 3 / 16)
    assert close(p.bubble_fraction(4, 8), 3 / 11) and close(p.bubble_fraction(4, 8, 2), 3 / 19)
    assert close(p.perplexity(math.log(50_257)), 50_257)  # guessing among GPT-2's tokens
    assert close(p.bits_per_byte(math.log(256), 10, 10), 8)  # guessing bytes
    assert close(p.bits_per_byte(math.log(4), 3, 12), 0.5)


def check_zero(p) -> None:
    for gpus, row in ZERO_TABLE_1.items():
        for i, figure in enumerate(row.split()):
            params = (7.5e9, 128e9, 1e12)[i // 3]
            states = p.zero_states(params, gpus, i % 3 + 1)
            assert printed(states.total / p.GB, figure, units=0.51 if i < 3 else 1)
    figure_1 = ["120", "31.4", "16.6", "1.88"]
    for stage, figure in enumerate(figure_1):
        assert printed(p.zero_states(7.5e9, 64, stage).total / p.GB, figure)
    states = p.zero_states(100, 4, 2, parameter_bytes=1, gradient_bytes=3, optimizer_bytes=5)
    assert (states.parameters, states.gradients, states.optimizer) == (100, 75, 125)
    for (dtype, ranks), stages in DEEPSPEED_BYTES.items():
        for stage, expected in enumerate(stages):
            assert close(p.deepspeed_states(1000, ranks, stage, dtype).total, 1000 * expected)
    assert p.deepspeed_states(1000, 4, 3) == p.deepspeed_states(1000, 4, 3, "bf16")
    parts = p.deepspeed_states(1000, 4, 1, "fp32")
    assert (parts.parameters, parts.gradients, parts.optimizer) == (4000, 1000, 3000)


# Bytes counted on DeepSpeed 0.19.8's ranks for a GPT of 2 layers, 51 wide, context 33 (28 tensors, 78 591
# parameters): (dtype, ranks, stage, rank) → parameters, gradients, optimizer.
HELD_SIZES = [256 * 51, 33 * 51] + 2 * [51, 51, 153 * 51, 153, 51 * 51, 51, 51, 51, 204 * 51, 204,
                                        51 * 204, 51] + [51, 51]
DEEPSPEED_HELD = {
    ("fp32", 2, 0, 0): (314364, 314364, 628840), ("bf16", 2, 0, 0): (157182, 157182, 943204),
    ("fp32", 2, 1, 0): (314368, 186252, 471556), ("fp32", 2, 2, 1): (314368, 169732, 471556),
    ("bf16", 2, 1, 1): (157184, 84866, 471556), ("bf16", 2, 2, 0): (157184, 93126, 471556),
    ("fp32", 4, 1, 0): (314368, 90576, 235780), ("bf16", 4, 2, 3): (157184, 42332, 235780),
    ("fp32", 1, 1, 0): (314368, 314368, 943108), ("bf16", 1, 3, 0): (157182, 157182, 943096),
    ("fp32", 2, 3, 0): (157224, 157224, 471676), ("bf16", 4, 3, 1): (39310, 39310, 235864),
}


def check_held(p) -> None:
    for (dtype, ranks, stage, rank), expected in DEEPSPEED_HELD.items():
        held = p.deepspeed_held(HELD_SIZES, ranks, stage, dtype, rank=rank)
        assert (held.parameters, held.gradients, held.optimizer) == expected
    # ZeRO-3 with small parameters kept whole: counted with thresholds of 1 000 and 100 000.
    for threshold, parameters in [(1000, 81_500), (100_000, 235_836)]:
        held = p.deepspeed_held(HELD_SIZES, 2, 3, persistence_threshold=threshold)
        assert held.parameters == parameters
    assert p.deepspeed_held([100], 2, 3, persistence_threshold=100).parameters == 2 * (50 + 100)
    # 5 elements padded to 8, 4 a rank: a slice, or a tensor that reaches into it, and the padding of 3.
    assert p.deepspeed_held([4, 1], 2, 1, rank=1).gradients == 2 * (1 + 3)
    assert p.deepspeed_held([3, 2], 2, 1, rank=0).gradients == 2 * (3 + 2)
    assert p.deepspeed_held([4, 1], 2, 1).gradients == 2 * 4
    assert p.deepspeed_held.__kwdefaults__["persistence_threshold"] == 0
    assert p.deepspeed_bucket_bytes(0, 1000) == 0
    assert p.deepspeed_bucket_bytes(1, 1000) == 2000
    assert p.deepspeed_bucket_bytes(2, 1000, "fp32", overlap_comm=True) == 8000
    assert p.deepspeed_bucket_bytes(3, 1000, "bf16", overlap_comm=True) == 2000


def check_traffic(p) -> None:
    assert [p.zero_traffic(100, stage) for stage in range(4)] == [200, 200, 200, 300]  # section 7
    assert close(p.ring_share(4), 3 / 4) and p.ring_share(1) == 0
    assert [p.ring_traffic(100, 4, stage) for stage in range(4)] == [150, 150, 150, 225]
    for (stage, accumulation, live), expected in DEEPSPEED_MESSAGES.items():
        got = p.deepspeed_messages(1000, stage, gradient_accumulation_steps=accumulation,
                                   keep_live=live)
        assert got == {op: 1000 * elements for op, elements in expected.items()}
    assert p.deepspeed_messages(8, 2) == {"all_reduce": 8, "all_gather": 8}
    # Bytes on the wire read from interface counters: 1.50Ψ for stage 0 and 2.25Ψ for stages 1
    # and 2 on 4 ranks, all-reduce as a ring.
    for stage, sent in [(0, 150), (1, 225), (2, 225)]:
        assert close(p.message_traffic(p.deepspeed_messages(100, stage), 4), sent)
    # The paper's own messages: reduce-scatter, and the all-gathers of stages 2 and 3.
    for stage in (2, 3):
        messages = {"reduce_scatter": 100, "all_gather": 100 * (stage - 1)}
        assert close(p.message_traffic(messages, 4), p.ring_traffic(100, 4, stage))


def check_messages(p) -> None:
    # 2 s and 1000 bytes at 500 bytes/s; 4 ranks pass on 3 times a quarter of 4000 bytes, twice.
    assert close(p.message_seconds(1000, 2, 500), 4) and p.message_seconds(0, 2, 500) == 2
    assert close(p.ring_seconds(4000, 4, 2, 500), 2 * 3 * (2 + 2))
    assert close(p.ring_seconds(4000, 4, 2, 500, rounds=1), 3 * (2 + 2))
    assert p.ring_seconds(4000, 1, 2, 500) == 0


# Bytes counted at DeepSpeed 0.19.8's collectives, third step, for a GPT of 17 115 parameters in
# tensors of these sizes: (ranks, stage, dtype, accumulation, settings) → bytes through each collective.
TRAFFIC_SIZES = [250 * 21, 33 * 21] + 2 * [21, 21, 63 * 21, 63, 21 * 21, 21, 21, 21, 84 * 21, 84,
                                           21 * 84, 21] + [21, 21]
DEEPSPEED_SENT = [
    (4, 0, "fp32", 2, {}, {"all_reduce": 68460}),
    (4, 1, "fp32", 2, {}, {"all_reduce": 68464, "all_gather": 68480}),
    (4, 1, "bf16", 1, {}, {"all_reduce": 34235, "all_gather": 34240}),
    (4, 2, "bf16", 2, {}, {"all_reduce": 68465, "all_gather": 34240}),
    (4, 2, "fp32", 2, {"multi_rank_bucket": False},
     {"reduce": 136920, "all_gather": 68480, "all_reduce": 4}),
    (4, 2, "bf16", 1, {"multi_rank_bucket": False},
     {"reduce": 34230, "all_gather": 34240, "all_reduce": 5}),
    (4, 3, "fp32", 2, {}, {"all_gather": 137376, "reduce_scatter": 137376, "all_reduce": 8}),
    (4, 3, "bf16", 1, {"keep_live": False},
     {"all_gather": 68688, "reduce_scatter": 34344, "all_reduce": 8}),
    (4, 3, "fp32", 2, {"persistence_threshold": 100_000},
     {"all_gather": 68688, "reduce_scatter": 137376, "all_reduce": 8}),
    (4, 3, "fp32", 2, {"keep_live": False, "persistence_threshold": 441},
     {"all_gather": 256512, "reduce_scatter": 137376, "all_reduce": 8}),
]


def check_traffic_to_the_byte(p) -> None:
    for ranks, stage, dtype, accumulation, settings, expected in DEEPSPEED_SENT:
        got = p.deepspeed_bytes(TRAFFIC_SIZES, ranks, stage, dtype,
                                gradient_accumulation_steps=accumulation, **settings)
        assert got == expected
    sent = p.deepspeed_bytes([999, 1], 2, 3)
    assert sent == {"all_gather": 4008, "reduce_scatter": 4008, "all_reduce": 8}
    assert p.deepspeed_bytes.__kwdefaults__["persistence_threshold"] == 0
    assert p.deepspeed_messages(8, 0, multi_rank_bucket=False) == {"all_reduce": 8}
    # Parameters of one element are kept only if the threshold says so.
    assert p.deepspeed_bytes([1], 2, 3, keep_live=False)["all_gather"] == 16
    messages = p.deepspeed_messages(100, 2, multi_rank_bucket=False, gradient_accumulation_steps=2)
    assert messages == {"reduce": 200, "all_gather": 100}
    assert close(p.message_traffic(messages, 4), 225)
    # Copies seen on ranks: fp32 gradients down, bf16 parameters up, for half of 218 496 parameters.
    moved = p.offload_traffic(218_496, 2, gradient_bytes=4)
    assert (moved.down, moved.up) == (436_992, 218_496)
    assert p.offload_traffic(100) == p.Moved(200, 200)  # 2101.06840: 4M in all
    # hpZ on 4 ranks with groups of 2: counted in fp32.
    assert p.hpz_bytes(218_496, 2, parameter_bytes=4) == 436_992 and p.hpz_bytes(100, 4) == 50
    assert p.hpz_gathers(100, keep_live=False) == (100, 100) and p.hpz_gathers(100) == (100, 0)
    assert p.hpz_gathers(100, keep_live=False, gradient_accumulation_steps=2) == (100, 300)
    assert p.hpz_gathers(100, gradient_accumulation_steps=2) == (100, 100)


def check_plan(p) -> None:
    small = p.plan(7.5e9, 64, 3, gpu_memory_gb=32)
    assert small.fits and small.enough_ranks == 4 and p.plan(7.5e9, 64, 3).fits is None
    assert p.plan(7.5e9, 64, 3).rows() == [
        ("model", "7.5 B parameters, bf16 with fp32 Adam"), ("devices", "64, ZeRO stage 3"),
        ("parameters", "0.234 GB each"), ("gradients", "0.234 GB each"),
        ("optimizer", "1.41 GB each"), ("states in all", "1.88 GB each"),
        ("sent per step", "44.3 GB each, as a ring"),
    ]
    assert small.rows()[-1] == ("verdict", "fits, and leaves 30.1 of 32 GB for activations")
    verdict = p.plan(1e12, 8, 2, gpu_memory_gb=80).rows()[-1][1]
    assert verdict == "3,670 GB too much on any number of devices: take a higher stage"
    verdict = p.plan(7.5e9, 64, 1, gpu_memory_gb=31).rows()[-1][1]
    assert verdict == "0.406 GB too much: stage 1 fits from 90 devices on"
    # 16 bytes a parameter fit one device exactly; a little less needs two.
    assert p.plan(1e9, 1, 0, gpu_memory_gb=16).enough_ranks == 1
    assert p.plan(1e9, 1, 0, gpu_memory_gb=15.9).enough_ranks is None
    assert p.plan(1e9, 1, 3, gpu_memory_gb=15.9).enough_ranks == 2
    # Stage 2 keeps 2Ψ = 2 GB: 14 GB / N must fit into what is left, a thousandth of a GB.
    assert p.plan(1e9, 1, 2, gpu_memory_gb=2.001).enough_ranks in (14_000, 14_001)
    assert p.plan(1e9, 1, 2, gpu_memory_gb=2).enough_ranks is None
    assert close(p.plan(1e9, 4, 0).traffic_bytes, 3e9) and p.plan(1e9, 1, 3).traffic_bytes == 0


def check_activations(p) -> None:
    # Korthikanti et al. 2022, section 4.1: 5as/h is 80 for GPT-3 and 64 for MT-NLG (s = 2048).
    for hidden, heads, score in ((12_288, 96, 80), (20_480, 128, 64)):
        sbh = 2048 * hidden
        for options, factor in (
            ({}, 34 + score), ({"tensor": 8}, 10 + 24 / 8 + score / 8),
            ({"tensor": 8, "sequence_parallel": True}, (34 + score) / 8),
            ({"tensor": 8, "recompute": "selective"}, 10 + 24 / 8),
            ({"tensor": 8, "sequence_parallel": True, "recompute": "selective"}, 34 / 8),
            ({"tensor": 8, "recompute": "full"}, 2), ({"recompute": "full"}, 2),
        ):  # Table 2, row by row
            assert close(p.layer_activations(1, 2048, hidden, heads, **options), sbh * factor)
    assert close(p.layer_activations(3, 5, 8, 2), 3 * p.layer_activations(1, 5, 8, 2))
    # By hand: b = 2, s = 3, h = 5, V = 7; embedding mask 30 bytes; LayerNorm 60, input 60, fp32 logits 168.
    assert p.end_activations(2, 3, 5, 7) == (30, 120 + 168)
    assert p.end_activations(2, 3, 5, 7, tensor=2) == (30, 120 + 84)
    assert p.end_activations(2, 3, 5, 7, tensor=2, sequence_parallel=True) == (15, 60 + 84)
    assert p.in_flight(4, 8) == 4 and p.in_flight(4, 3) == 3 and p.in_flight(1, 9) == 1
    assert close(p.in_flight(8, 64, 3), 8 * (1 + 7 / 24)) and p.in_flight(8, 9, 3) == 9
    # Counted by hand from the tensors that torch 2.13 saves on a CPU.
    assert p.block_activations(3, 24, 32, 4) == 149_760
    assert p.block_activations(3, 24, 32, 4, width=2) == 75_456
    assert p.block_activations(3, 24, 32, 4, attention="math") == 176_256
    assert p.block_activations(3, 24, 32, 4, width=2, attention="math") == 115_776
    assert p.block_activations(1, 7, 48, 3) == 21_700
    assert p.block_activations(1, 7, 48, 3, attention="math") == 24_892
    assert p.block_activations(1, 7, 48, 3, width=2, attention="math") == 13_412
    assert p.gpt_activations(3, 24, 2, 32, 4, 97) == 347_812
    assert p.gpt_activations(3, 24, 2, 32, 4, 97, width=2) == 175_730
    assert p.block_activations(3, 24, 32, 4, dropout=True) == 249_984
    assert p.block_activations(3, 24, 32, 4, width=2, dropout=True) == 180_288
    assert p.block_activations(1, 24, 32, 4, dropout=True) == 89_472
    assert p.block_activations(1, 24, 32, 4, width=2, dropout=True) == 60_096
    assert p.block_activations(3, 7, 48, 1, attention="math") == 73_500
    assert p.block_activations(3, 7, 48, 1, dropout=True) == 82_740
    assert p.gpt_activations(3, 24, 2, 32, 4, 97, dropout=True) == 557_476


def check_pipeline(p) -> None:
    # 2401.10241, Table 2; Figure 3 draws p = 4, m = 8 with equal times: 27 long, idle for 3.
    assert close(p.zero_bubble_fraction(4, 8), 3 / 27) and p.zero_bubble_fraction(1, 8) == 0
    assert close(p.zero_bubble_fraction(3, 5, 2, 3, 4), 2 * (2 + 3 - 4) / (5 * 9 + 2))
    # Five micro-batches of 7 elements: an end sends one way, a stage between both ways.
    assert [p.pipeline_sent(3, stage, 5, 7) for stage in range(3)] == [35, 70, 35]
    assert [p.pipeline_sent(3, stage, 5, 7, 2) for stage in range(3)] == [105, 140, 105]
    assert p.pipeline_sent(1, 0, 5, 7) == 0


def check_tensor_sequence_expert(p) -> None:
    # GPT-2 (Radford et al. 2019) on one rank; on 2 ranks counted matrix by matrix (L = 3, H = 4,
    # V = 6, s = 5): qkv, out, up and down halved, two biases and two LayerNorms whole.
    assert p.tensor_parallel_params(12, 768, 50_257, 1024, 1) == 124_439_808
    layer = (12 * 4 + 12 + 4 * 4 + 16 * 4 + 16 + 4 * 16) // 2 + 2 * 4 + 2 * 2 * 4
    assert p.tensor_parallel_params(3, 4, 6, 5, 2) == 3 * layer + 6 * 4 // 2 + 5 * 4 + 2 * 4
    # The chapter's GPT on 2 ranks, counted by hooks on the collectives: 21 all-reduces.
    assert p.tensor_parallel_messages(4, 8, 32, 64) == {"all_reduce": 295_680}
    assert p.tensor_parallel_messages(1, 2, 3, 5) == {"all_reduce": 6 * 30 + 3 * 6}
    # One layer, b = 2, s = 32, H = 64: eight all-to-alls of 2·16·64 elements on each of 2 ranks.
    assert p.ulysses_messages(1, 2, 32, 64, 2) == {"all_to_all": 8 * 2 * 16 * 64}
    assert p.ulysses_messages(3, 2, 64, 64, 4) == {"all_to_all": 3 * 8 * 2 * 16 * 64}
    # Fedus et al. 2021, Figure 3: 6 tokens, 3 experts: 2 places each, 3 with a factor of 1.5.
    assert [p.moe_capacity(6, 3, f) for f in (1.0, 1.5)] == [2, 3] and p.moe_capacity(10, 4) == 3
    assert p.moe_dropped([3, 2, 1], 2) == 1 and p.moe_dropped([7, 0, 9], 3) == 10
    # DeepSpeed's layer: 64 tokens, 4 experts, H = 64: four all-to-alls of 4·16·64 elements.
    assert p.moe_messages(1, 4, p.moe_capacity(64, 4), 64) == {"all_to_all": 16_384}
    assert p.moe_messages(2, 3, 5, 7) == {"all_to_all": 840}
    assert close(p.load_balance_loss([0.25] * 4, [0.25] * 4), 1)
    assert close(p.load_balance_loss([1.0, 0.0], [0.75, 0.25]), 1.5)
    assert close(p.message_traffic({"all_to_all": 100}, 4), 75)


def check_strategies(p) -> None:
    # Packed by hand: [6, 4] [7] [12] [3, 3, 3, 1]; a bucket may be filled to the brim.
    assert p.num_buckets([6, 4, 7, 12, 3, 3, 3, 1], 10) == 4 and p.num_buckets([], 10) == 0
    assert p.num_buckets([1] * 21, 10) == 3
    # Three blocks of 100 bytes with inputs of 10, and 50 outside them: 350 → 80, and 90 more at a time.
    assert p.checkpointed_activations(350, 3, 100, 10) == (80, 170)
    assert p.clip_factor(0.5, 1.0) == 1 and p.clip_factor(0.0, 2.0) == 1
    assert close(p.clip_factor(4.0 - 1e-6, 1.0), 0.25) and close(p.clip_factor(1e-6, 1e-6), 0.5)


CHECKS = [check_messages, check_strategies, check_parameters_and_flops, check_time_and_quality,
          check_zero, check_held, check_traffic, check_traffic_to_the_byte, check_activations,
          check_plan, check_tensor_sequence_expert, check_pipeline]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_reference(check):
    check(plan)


# --- Breaking a formula by 1 % is noticed ---------------------------------------------------------


def formula_nodes(tree: ast.Module) -> list[ast.expr]:
    """Every number, product, sum and call in the formulas; not what guards the arguments."""
    found: list[ast.expr] = []

    def visit(node: ast.AST) -> None:
        guard = isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)
        call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if guard or (call and node.func.id in ("_at_least", "_check_stage", "_check_recompute")):
            return
        if isinstance(node, ast.FunctionDef):
            node.returns = None  # `float | None` is no formula
            for argument in node.args.args + node.args.kwonlyargs:
                argument.annotation = None
        if isinstance(node, ast.AnnAssign):
            return
        number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
        sum_or_product = isinstance(node, ast.BinOp | ast.UnaryOp)
        if number or sum_or_product or isinstance(node, ast.Call | ast.IfExp):
            found.append(node)
        for child in ast.iter_child_nodes(node):
            visit(child)

    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign):
            visit(node)
    return found


class Breaker(ast.NodeTransformer):
    """Wraps one expression of the module in ``off(…)``."""

    def __init__(self, target: ast.expr) -> None:
        self.target = target

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if node is not self.target:
            return node
        return ast.Call(func=ast.Name(id="off", ctx=ast.Load()), args=[node], keywords=[])


def load(tree: ast.Module) -> types.ModuleType:
    """The module with ``off``, which adds 1 % to a number and leaves everything else."""
    module = types.ModuleType("broken_plan")
    module.saw = set()

    def off(value):
        module.saw.add(type(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        return value * 1.01 if value else 0.01

    module.off = off
    exec(compile(ast.fix_missing_locations(tree), "plan.py", "exec"), module.__dict__)
    return module


def test_breaking_any_formula_by_one_per_cent_is_noticed():
    source = inspect.getsource(plan)
    for check in CHECKS:
        check(load(ast.parse(source)))
    broken, survivors = 0, []
    for i in range(len(formula_nodes(ast.parse(source)))):
        tree = ast.parse(source)
        node = formula_nodes(tree)[i]
        where = f"line {node.lineno}: {ast.unparse(node)}"
        module = load(Breaker(node).visit(tree))
        try:
            for check in CHECKS:
                check(module)
        except Exception:
            broken += 1
            continue
        if not module.saw or module.saw & {int, float}:  # else it is a text or a table: unbroken
            survivors.append(where)
    assert broken > 100
    assert not survivors, "\n".join(survivors)


# --- Against torch -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=97, context=24, num_layers=3, num_heads=4, hidden_size=32))


def test_the_labs_model_has_the_planned_parameters(model):
    assert count_parameters(model) == plan.gpt_params(3, 32, 97, 24)


def test_torch_counts_the_planned_flops(model):
    tokens = torch.zeros(5, 24, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention goes uncounted
        model(tokens)
    assert counter.get_total_flops() == pytest.approx(
        plan.iteration_flops(5, 24, 3, 32, 97) / 3, rel=1e-12
    )


def test_perplexity_of_uniform_logits():
    loss = torch.nn.functional.cross_entropy(torch.zeros(2, 97), torch.tensor([3, 5]))
    assert plan.perplexity(loss.item()) == pytest.approx(97, rel=1e-5)  # fp32 loss, 24 bits


# --- Properties -----------------------------------------------------------------------------------

params = st.integers(1, 10**13)
ranks = st.integers(1, 20_000)
stages = st.integers(0, 3)


@given(params, ranks)
def test_a_higher_stage_never_needs_more(num_params, n):
    totals = [plan.zero_states(num_params, n, stage).total for stage in range(4)]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == (1 if n == 1 else 4)


@given(params, ranks)
def test_stage_3_divides_and_stage_0_copies(num_params, n):
    assert close(plan.zero_states(num_params, n, 3).total * n, 16 * num_params)
    assert plan.zero_states(num_params, n, 0) == plan.zero_states(num_params, 1, 3)


@given(params, stages)
def test_one_rank_sends_nothing(num_params, stage):
    assert plan.ring_traffic(num_params, 1, stage) == 0
    assert plan.message_traffic(plan.deepspeed_messages(num_params, stage), 1) == 0


@given(params, ranks, stages)
def test_the_ring_never_sends_more_than_the_papers_volume(num_params, n, stage):
    assert plan.ring_traffic(num_params, n, stage) < plan.zero_traffic(num_params, stage)
    if n > 1:
        more = plan.ring_traffic(num_params, n + 1, stage)
        assert plan.ring_traffic(num_params, n, stage) <= more


@given(st.floats(1e6, 1e13), stages, st.floats(0.1, 1e4))
def test_enough_devices_are_enough_and_one_fewer_is_not(num_params, stage, memory):
    needed = plan.plan(num_params, 1, stage, gpu_memory_gb=memory).enough_ranks
    if needed is None:
        assert not plan.plan(num_params, 10**15, stage, gpu_memory_gb=memory * (1 - 1e-9)).fits
        return
    assert plan.plan(num_params, needed, stage, gpu_memory_gb=memory * (1 + 1e-9)).fits
    if needed > 1:
        assert not plan.plan(num_params, needed - 1, stage, gpu_memory_gb=memory * (1 - 1e-9)).fits


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 512))
def test_batch_arithmetic_goes_both_ways(micro, accumulation, n):
    batch = plan.train_batch_size(micro, accumulation, n)
    assert plan.accumulation_steps(batch, micro, n) == accumulation


@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 8))
def test_bubbles_add_up(num_stages, micro_batches, interleave):
    overhead = plan.bubble_overhead(num_stages, micro_batches, interleave)
    fraction = plan.bubble_fraction(num_stages, micro_batches, interleave)
    assert math.isclose(fraction * (1 + overhead), overhead, abs_tol=1e-12)
    assert plan.bubble_overhead(1, micro_batches) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plan.zero_states(1e9, 0, 1), "ranks is 0: give a number of at least 1"),
        (lambda: plan.zero_states(-1, 2, 1), "num_params is -1"),
        (lambda: plan.zero_states(1e9, 2, 4), "ZeRO stage is 4: give 0, 1, 2 or 3"),
        (lambda: plan.zero_traffic(1e9, -1), "ZeRO stage is -1"),
        (lambda: plan.plan(math.nan, 2, 1), "num_params is nan"),
        (lambda: plan.plan(math.inf, 2, 1), "num_params is inf"),
        (lambda: plan.plan(0, 2, 1), "num_params is 0"),
        (lambda: plan.plan(1e9, 2, 1, gpu_memory_gb=-3), "gpu_memory_gb is -3"),
        (lambda: plan.deepspeed_states(1e9, 2, 1, "fp16"), "dtype is 'fp16'"),
        (lambda: plan.accumulation_steps(10, 4, 2), "a batch of 10 cannot be split"),
        (lambda: plan.accumulation_steps(4, 4, 2), "use a multiple of 8"),
        (lambda: plan.training_seconds(1, 1, 1e12, 0), "utilization is 0"),
        (lambda: plan.training_seconds(1, 1, 1e12, 41.5), "at most 1"),
        (lambda: plan.gpt_params(2, 0, 5, 7), "hidden_size is 0"),
        (lambda: plan.bubble_fraction(4, 0), "micro_batches is 0"),
        (lambda: plan.bits_per_byte(1.0, 3, 0), "num_bytes is 0"),
        (lambda: plan.pipeline_sent(2, 2, 4, 8), "stage is 2: the last of 2 is 1"),
        (lambda: plan.zero_bubble_fraction(0, 4), "num_stages is 0"),
        (lambda: plan.layer_activations(1, 2, 3, 1, recompute="some"), "recompute is 'some'"),
        (lambda: plan.block_activations(1, 2, 3, 1, attention="flash"), "attention is 'flash'"),
    ],
)
def test_bad_input_names_the_value_and_the_cure(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_plan_needs_neither_torch_nor_numpy():
    code = "import sys, labkit.plan; print({'torch', 'numpy', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
