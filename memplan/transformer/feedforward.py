"""The position-wise feed-forward network."""

from __future__ import annotations

from collections.abc import Callable

from memplan.config.model import Activation, Transformer
from memplan.ops.activation import gelu, relu, silu
from memplan.ops.elementwise import mul
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.transformer.layers import Linear
from memplan.transformer.sizes import Sizes


def activation_function(name: Activation) -> Callable[[Tensor], Tensor]:
    """The non-linearity; the gated forms name the one on their gate."""
    if name == "relu":
        return relu
    return silu if name in ("silu", "swiglu") else gelu


class FeedForward(Module):
    """Up, activation, down; or gate and up, gated, down."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes) -> None:
        super().__init__(trace)
        size, inner, bias = sizes.hidden, sizes.intermediate, config.feedforward_bias
        self.activation = activation_function(config.activation)
        self.gate = Linear(trace, size, inner, bias) if config.gated else None
        self.up = Linear(trace, size, inner, bias)
        self.down = Linear(trace, inner, size, bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            output: Tensor = self.down(self.activation(self.up(x)))  # [B, S, E] -> [B, S, F] -> [B, S, E]
        else:
            output = self.down(mul(self.activation(self.gate(x)), self.up(x)))
        return output
