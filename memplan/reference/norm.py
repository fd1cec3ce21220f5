"""The two normalisations."""

from __future__ import annotations

from torch import nn

from memplan.config.model import Transformer


def make_norm(config: Transformer) -> nn.Module:
    """Over the hidden size: LayerNorm (https://arxiv.org/abs/1607.06450) or RMSNorm (https://arxiv.org/abs/1910.07467)."""
    if config.norm == "layernorm":
        return nn.LayerNorm(config.hidden_size, eps=1e-5)
    return nn.RMSNorm(config.hidden_size, eps=1e-5)
