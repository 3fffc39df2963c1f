"""Chapter 5's floating-point formats, rounding and loss scale, against torch and DeepSpeed."""

import math
from functools import cache

import numpy as np
import torch
from cells import run, sources
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = settings(max_examples=50, deadline=None, derandomize=True)


@cache
def chapter():
    return run(sources("05"), ["imports", "floats-decode", "floats-quantize", "floats-scaler",
                               "floats-scaler-both", "floats-stochastic"])


@EXAMPLES
@given(st.integers(0, 2**32 - 1))
def test_fp32_codes_are_read_as_numpy_reads_them(code):
    ours = chapter()["decode"](code, 8, 23)
    numpy = float(np.array(code, dtype=np.uint32).view(np.float32))
    assert ours == numpy or (math.isnan(ours) and math.isnan(numpy))


@EXAMPLES
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_rounding_equals_torchs_cast(values):
    x = torch.tensor(values, dtype=torch.float32)
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16),
                        ("fp8 e5m2", torch.float8_e5m2)):
        ours = chapter()["quantize"](x, *chapter()["FORMATS"][name])
        assert torch.equal(ours, x.to(dtype).double()), name


@EXAMPLES
@given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=50))
def test_rounding_to_e4m3_equals_torchs_cast_in_its_range(values):
    x = torch.tensor(values, dtype=torch.float32)
    ours = chapter()["quantize"](x, 5, 3)  # one exponent bit more, since e4m3 has no infinity
    small = x.abs() < 2.0**-6  # below e4m3's normal numbers the bits' number matters
    assert torch.equal(ours[~small], x.to(torch.float8_e4m3fn).double()[~small])


@EXAMPLES
@given(overflows=st.lists(st.sampled_from([False, False, False, True]), max_size=300),
       power=st.integers(0, 20), window=st.integers(1, 30), hysteresis=st.integers(1, 4),
       refill=st.booleans())
def test_the_loss_scale_follows_deepspeeds(overflows, power, window, hysteresis, refill):
    ours, theirs = chapter()["scales_of_both"](overflows, 2.0**power, window, hysteresis, 1.0, refill)
    assert ours == theirs


@EXAMPLES
@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(0, 2**31))
def test_stochastic_rounding_gives_a_neighbour_and_keeps_bf16_numbers(value, seed):
    x = torch.tensor(value)
    generator = torch.Generator().manual_seed(seed)
    drawn = chapter()["stochastic_bf16"](x.repeat(8), generator)
    assert torch.equal(drawn.bfloat16().float(), drawn)
    below = (x.view(torch.int32) & ~0xFFFF).view(torch.float32)
    above = ((x.view(torch.int32) & ~0xFFFF) + 0x10000).view(torch.float32)
    assert ((drawn == below) | (drawn == above)).all()
    exact = x.bfloat16().float()
    assert torch.equal(chapter()["stochastic_bf16"](exact.repeat(8), generator), exact.repeat(8))
