"""Adapters: a frozen linear layer, and beside it a product of two narrow ones, which is trained."""

from __future__ import annotations

from memplan.config.adapters import is_target
from memplan.config.run import TrainingRun
from memplan.ops.elementwise import add, mul, to
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Parameter, Tensor
from memplan.transformer.layers import Dropout, Linear
from memplan.transformer.quantised import QuantisedLinear


class LoraLinear(Module):
    """x W + scaling * x A B, with peft's casts: the input is cast to the adapter's dtype, the sum to that of the frozen
    layer's output."""

    def __init__(self, base: Linear | QuantisedLinear, rank: int, dropout: float, dtype: str) -> None:
        super().__init__(base.trace)
        self.base = base
        self.dropout = Dropout(self.trace, dropout)
        self.lora_a = Linear(self.trace, base.in_features, rank, False)
        self.lora_b = Linear(self.trace, rank, base.out_features, False)
        self.lora_a.weight.fixed = self.lora_b.weight.fixed = dtype

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base(x)
        dtype = result.dtype
        x = to(x, self.lora_a.weight.dtype)
        result = add(result, mul(self.lora_b(self.lora_a(self.dropout(x))), 2.0))
        return to(result, dtype)

    @property
    def weight(self) -> Parameter:
        """The frozen layer's."""
        assert isinstance(self.base, Linear)
        return self.base.weight


def add_adapters(model: Module, run: TrainingRun) -> None:
    """Freeze the model and put an adapter on each linear layer that the run names."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    rank = Size(run.lora_rank, "lora_rank")
    for parent_path, parent in list(model.modules()):
        for name, layer in list(parent.members.items()):
            path = f"{parent_path}.{name}" if parent_path else name
            if isinstance(layer, (Linear, QuantisedLinear)) and is_target(path, run.lora_targets):
                setattr(parent, name, LoraLinear(layer, rank, run.lora_dropout, run.lora_dtype))
