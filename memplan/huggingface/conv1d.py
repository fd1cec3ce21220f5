"""GPT-2's own linear layer (transformers/pytorch_utils.py)."""

from __future__ import annotations

from memplan.ops.addmm import addmm
from memplan.ops.module import Module, parameter
from memplan.ops.size import product
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import reshape


class Conv1D(Module):
    """Conv1D: weight [in, out], bias [out]."""

    def __init__(self, trace: Trace, outputs: int, inputs: int) -> None:
        super().__init__(trace)
        self.in_features, self.out_features = inputs, outputs
        self.weight = parameter(trace, inputs, outputs)
        self.bias = parameter(trace, outputs)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[:-1]
        x = addmm(self.bias, reshape(x, (product(lead), x.shape[-1])), self.weight)
        return reshape(x, (*lead, self.bias.shape[0]))
