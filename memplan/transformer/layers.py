"""The layers torch.nn brings ready-made: Linear, Embedding, LayerNorm, RMSNorm, Dropout."""

from __future__ import annotations

from memplan.ops.dropout import dropout
from memplan.ops.embedding import embedding
from memplan.ops.linear import linear
from memplan.ops.module import Module, parameter
from memplan.ops.norm import layer_norm, rms_norm
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace


class Linear(Module):
    """torch.nn.Linear: weight [out, in], bias [out]."""

    def __init__(self, trace: Trace, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(trace)
        self.in_features, self.out_features = inputs, outputs
        self.weight = parameter(trace, outputs, inputs)
        self.bias = parameter(trace, outputs) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """torch.nn.Embedding: weight [rows, width]."""

    def __init__(self, trace: Trace, rows: int, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, rows, width)

    def forward(self, indices: Tensor) -> Tensor:
        return embedding(indices, self.weight)


class LayerNorm(Module):
    """torch.nn.LayerNorm: weight and bias [hidden]."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, width)
        self.bias = parameter(trace, width)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias)


class RMSNorm(Module):
    """torch.nn.RMSNorm: weight [hidden]."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.weight = parameter(trace, width)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class Dropout(Module):
    """torch.nn.Dropout."""

    def __init__(self, trace: Trace, probability: float) -> None:
        super().__init__(trace)
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability)
