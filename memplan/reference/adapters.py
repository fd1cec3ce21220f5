"""Adapters: a frozen linear layer, and beside it a product of two narrow ones, which is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memplan.config.adapters import is_target
from memplan.config.run import TrainingRun
from memplan.reference.quantised import QuantisedLinear

SCALING = 2.0
"""lora_alpha / lora_rank: no byte depends on it."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class LoraLinear(nn.Module):
    """x W + scaling * x A B (https://arxiv.org/abs/2106.09685), with the casts of the library peft: the input goes to
    the adapter's dtype, the sum to that of the frozen layer's output (peft/tuners/lora/layer.py)."""

    def __init__(self, base: nn.Linear | QuantisedLinear, rank: int, dropout: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Linear(base.in_features, rank, bias=False, dtype=dtype)
        self.lora_b = nn.Linear(rank, base.out_features, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base(x)
        dtype = result.dtype
        x = x.to(self.lora_a.weight.dtype)
        result = result + self.lora_b(self.lora_a(self.dropout(x))) * SCALING
        return result.to(dtype)


def add_adapters(model: nn.Module, run: TrainingRun) -> None:
    """Freeze the model and put an adapter on each linear layer that the run names."""
    model.requires_grad_(False)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, (nn.Linear, QuantisedLinear)) and is_target(path, run.lora_targets):
            parent, _, name = path.rpartition(".")
            adapted = LoraLinear(layer, run.lora_rank, run.lora_dropout, DTYPES[run.lora_dtype])
            setattr(model.get_submodule(parent), name, adapted)
