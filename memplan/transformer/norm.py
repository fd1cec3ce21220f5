"""The two normalisations."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.ops.module import Module
from memplan.ops.trace import Trace
from memplan.transformer.layers import LayerNorm, RMSNorm
from memplan.transformer.sizes import Sizes


def make_norm(trace: Trace, config: Transformer, sizes: Sizes) -> Module:
    """LayerNorm or RMSNorm over the hidden size."""
    if config.norm == "layernorm":
        return LayerNorm(trace, sizes.hidden)
    return RMSNorm(trace, sizes.hidden)
