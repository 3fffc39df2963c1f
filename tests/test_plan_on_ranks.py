"""labkit.plan's formulas for DeepSpeed against what DeepSpeed does on real ranks."""

import sys

import cloudpickle
import pytest
from test_plan import DEEPSPEED_BYTES, DEEPSPEED_MESSAGES

from labkit import plan, ranks

NUM_PARAMS = 8 * (256 * 256 + 256)
RANKS = 2
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import this file


@pytest.fixture(scope="module")
def pool():
    yield ranks.start(RANKS, timeout=600)
    ranks.stop()


def train(stage, accumulation, live, dtype):
    """Two steps on this rank: (bytes of states, elements through each collective) of the second."""
    import deepspeed
    import torch

    from labkit import measure

    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)])
    zero = {"stage": stage, "reduce_bucket_size": 10**6, "stage3_param_persistence_threshold": 0}
    if not live:
        zero |= {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    engine, *_ = deepspeed.initialize(model=model, config={
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 0.0,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": zero,
        "bf16": {"enabled": dtype == "bf16"},
    })
    x = torch.randn(1, 256, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
    for _ in range(2):
        with measure.collectives() as traffic:
            for _ in range(accumulation):
                engine.backward(engine(x).float().square().mean())
                states = measure.states(engine)
                engine.step()
    engine.destroy()
    return (states.parameters, states.gradients, states.optimizer), traffic.elements


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("stage", range(4))
def test_states(pool, stage, dtype):
    expected = plan.deepspeed_states(NUM_PARAMS, RANKS, stage, dtype)
    assert expected.total / NUM_PARAMS == DEEPSPEED_BYTES[dtype, RANKS][stage]
    for (parameters, gradients, optimizer), _ in pool.run(train, stage, 1, True, dtype):
        # Padding and Adam's step counters are less than a thousandth.
        assert parameters == pytest.approx(expected.parameters, rel=1e-3)
        assert gradients == pytest.approx(expected.gradients, rel=1e-3)
        assert optimizer == pytest.approx(expected.optimizer, rel=1e-3)


@pytest.mark.parametrize(("stage", "accumulation", "live"), DEEPSPEED_MESSAGES)
def test_messages(pool, stage, accumulation, live):
    expected = plan.deepspeed_messages(NUM_PARAMS, stage, gradient_accumulation_steps=accumulation,
                                       keep_live=live)
    for _, elements in pool.run(train, stage, accumulation, live, "fp32"):
        # The overflow check of a step all-reduces a single number.
        seen = {op: count for op, count in elements.items() if count > 100}
        assert seen == pytest.approx(expected, rel=1e-3)
