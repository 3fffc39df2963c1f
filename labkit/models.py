"""The decoder-only Transformer that the labs train, in GPT-2's layout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.env import UserError


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT. The defaults are a laptop's: bytes in, bytes out."""

    vocab_size: int = 256
    context: int = 64
    num_layers: int = 2
    num_heads: int = 4
    hidden_size: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "dropout" and (not isinstance(value, int) or value < 1):
                raise UserError(f"{name} is {value!r}: it must be a whole number of at least 1")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout!r}: it must be a number from 0 to below 1")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} cannot be divided among {self.num_heads} heads: "
                "choose num_heads so that it divides hidden_size"
            )


class Attention(nn.Module):
    """Causal multi-head self-attention: (batch, time, hidden) -> (batch, time, hidden)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, hidden = x.shape
        heads = self.qkv(x).view(batch, time, 3, self.num_heads, hidden // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (batch, heads, time, head size)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, hidden))


class MLP(nn.Module):
    """Two linear maps with a GELU between, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.down = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))  # GPT-2's form of GELU


class Block(nn.Module):
    """One pre-norm layer: attention, then MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.dropout(self.attention(self.norm1(x)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


class GPT(nn.Module):
    """GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, tied embedding.

    Dropout, if any, in GPT-2's places: after the embeddings, on the attention's weights, and on
    what each half of a block adds to the residual stream.

    ``model(tokens)`` gives logits (batch, time, vocab_size); ``model(tokens, targets)`` gives the
    mean cross-entropy in nats per token, which is what a training loop and DeepSpeed want.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.context, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.apply(self._init)
        for block in self.blocks:  # 2 additions a layer: keep the residual stream's variance flat
            for last in (block.attention.out, block.mlp.down):
                nn.init.normal_(last.weight, std=0.02 / (2 * config.num_layers) ** 0.5)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        time = tokens.shape[1]
        if time > self.config.context:
            raise UserError(
                f"the input has {time} tokens, the model sees {self.config.context}: "
                "shorten the input or build the model with a larger context"
            )
        x = self.tokens(tokens) + self.positions(torch.arange(time, device=tokens.device))
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)  # the embedding again: tied weights
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        count: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Append `count` sampled tokens to `tokens` (batch, time); temperature 0 takes the best."""
        was_training = self.training
        self.eval()
        for _ in range(count):
            logits = self(tokens[:, -self.config.context :])[:, -1]
            if temperature == 0:
                new = logits.argmax(-1, keepdim=True)
            else:
                probabilities = (logits / temperature).softmax(-1)
                new = torch.multinomial(probabilities, 1, generator=generator)
            tokens = torch.cat([tokens, new], dim=1)
        self.train(was_training)
        return tokens


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, each shared tensor counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
