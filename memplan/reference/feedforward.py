"""The position-wise feed-forward network."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from memplan.config.model import Activation, Transformer


def activation_function(name: Activation) -> Callable[[Tensor], Tensor]:
    """The non-linearity; the gated forms name the one on their gate."""
    if name == "relu":
        return F.relu
    if name in ("silu", "swiglu"):
        return F.silu
    if name == "gelu_tanh":
        return lambda x: F.gelu(x, approximate="tanh")
    return F.gelu


class FeedForward(nn.Module):
    """Up, activation, down; or gate and up, gated (https://arxiv.org/abs/2002.05202), down."""

    def __init__(self, config: Transformer) -> None:
        super().__init__()
        size, inner, bias = config.hidden_size, config.intermediate_size, config.feedforward_bias
        self.activation = activation_function(config.activation)
        self.gate = nn.Linear(size, inner, bias=bias) if config.gated else None
        self.up = nn.Linear(size, inner, bias=bias)
        self.down = nn.Linear(inner, size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            output: Tensor = self.down(self.activation(self.up(x)))  # [B, S, E] -> [B, S, F] -> [B, S, E]
        else:
            output = self.down(self.activation(self.gate(x)) * self.up(x))
        return output
