"""The course's GPT is GPT-2: same parameters, same numbers."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from labkit.models import GPT, GPTConfig, count_parameters

CONFIG = GPTConfig(vocab_size=97, context=24, num_layers=3, num_heads=4, hidden_size=48)


def reference(config: GPTConfig) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context,
            n_embd=config.hidden_size,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    ).eval()


NAMES = {  # ours -> theirs; their Conv1D stores weights transposed
    "norm1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def copy_weights(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    source = theirs.transformer.state_dict()
    state = {
        "tokens.weight": source["wte.weight"],
        "positions.weight": source["wpe.weight"],
        "norm.weight": source["ln_f.weight"],
        "norm.bias": source["ln_f.bias"],
    }
    for layer in range(ours.config.num_layers):
        for mine, other in NAMES.items():
            weight = source[f"h.{layer}.{other}.weight"]
            state[f"blocks.{layer}.{mine}.weight"] = weight.T if weight.dim() == 2 else weight
            state[f"blocks.{layer}.{mine}.bias"] = source[f"h.{layer}.{other}.bias"]
    ours.load_state_dict(state)


@pytest.fixture(scope="module")
def twins() -> tuple[GPT, GPT2LMHeadModel]:
    theirs = reference(CONFIG)
    with torch.no_grad():  # biases start at zero and norms at one: make them matter
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = GPT(CONFIG).eval()
    copy_weights(ours, theirs)
    return ours, theirs


def test_same_number_of_parameters(twins):
    ours, theirs = twins
    assert count_parameters(ours) == theirs.num_parameters()


def test_same_number_as_the_formula():
    from labkit import plan

    for config in (CONFIG, GPTConfig()):
        expected = plan.gpt_params(
            config.num_layers, config.hidden_size, config.vocab_size, config.context
        )
        assert count_parameters(GPT(config)) == expected


def test_same_logits_and_loss(twins):
    ours, theirs = twins
    tokens = torch.randint(0, CONFIG.vocab_size, (3, CONFIG.context))
    with torch.no_grad():
        mine, other = ours(tokens), theirs(tokens).logits
    # fp32 rounds at 6e-8; sums of 48…192 terms through 3 layers may lose two digits of it
    assert (mine - other).abs().max() < 1e-5 * other.abs().max()
    with torch.no_grad():
        loss, expected = ours(tokens[:, :-1], tokens[:, 1:]), theirs(tokens, labels=tokens).loss
    assert abs(loss - expected) < 1e-5 * expected


def test_same_gradients(twins):
    ours, theirs = twins
    tokens = torch.randint(0, CONFIG.vocab_size, (3, CONFIG.context))
    ours(tokens[:, :-1], tokens[:, 1:]).backward()
    theirs(tokens, labels=tokens).loss.backward()
    mine, other = ours.tokens.weight.grad, theirs.transformer.wte.weight.grad
    assert (mine - other).abs().max() < 1e-5 * other.abs().max()
    mine = ours.blocks[0].attention.qkv.weight.grad
    other = theirs.transformer.h[0].attn.c_attn.weight.grad.T
    assert (mine - other).abs().max() < 1e-5 * other.abs().max()


def test_it_is_causal(twins):
    ours, _ = twins
    tokens = torch.randint(0, CONFIG.vocab_size, (1, 12))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        before, after = ours(tokens), ours(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_a_fresh_model_knows_nothing():
    torch.manual_seed(0)
    model = GPT(CONFIG)
    tokens = torch.randint(0, CONFIG.vocab_size, (8, CONFIG.context + 1))
    loss = model(tokens[:, :-1], tokens[:, 1:])
    assert abs(loss.item() - torch.tensor(CONFIG.vocab_size).log()) < 0.1


def test_generate_is_repeatable_and_slides_its_window(twins):
    ours, _ = twins
    prompt = torch.zeros(2, 3, dtype=torch.long)
    count = CONFIG.context + 5
    samples = [
        ours.generate(prompt, count, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    ]
    assert samples[0].shape == (2, 3 + count)
    assert torch.equal(*samples)
    best = ours.generate(prompt, 4, temperature=0)
    assert torch.equal(best[:, 3], ours(prompt)[:, -1].argmax(-1))
    assert not ours.training
    ours.train()
    ours.generate(prompt, 1)
    assert ours.training
    ours.eval()


def test_too_long_an_input_says_what_to_do(twins):
    with pytest.raises(ValueError, match=r"has 25 tokens, the model sees 24: shorten"):
        twins[0](torch.zeros(1, 25, dtype=torch.long))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 0, "num_layers is 0"),
        ("hidden_size", 7.5, "hidden_size is 7.5"),
        ("num_heads", 5, "cannot be divided among 5 heads"),
    ],
)
def test_impossible_shapes_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{field: value})
