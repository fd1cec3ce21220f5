"""The library's norms: written out in several operations, each of which keeps what its gradient needs."""

from __future__ import annotations

from memplan.ops.elementwise import add, mean, mul, rsqrt, square, to
from memplan.ops.module import Module, parameter
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace


class RMSNorm(Module):
    """LlamaRMSNorm (models/llama/modeling_llama.py): in fp32, cast back before the weight."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        dtype = hidden_states.dtype
        hidden_states = to(hidden_states, "fp32")
        variance = mean(square(hidden_states), -1, keepdim=True)
        hidden_states = mul(hidden_states, rsqrt(add(variance, 1e-6)))
        return mul(self.weight, to(hidden_states, dtype))
