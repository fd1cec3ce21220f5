"""Rotary positions (models/llama/modeling_llama.py, LlamaRotaryEmbedding, apply_rotary_pos_emb)."""

from __future__ import annotations

from memplan.ops.elementwise import add, function, mul, neg, pointwise, to
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, slice_, slice_from, unsqueeze


class RotaryEmbedding(Module):
    """Cosines and sines of [1, S, D] in the dtype of what is rotated. Keeps two tables of frequencies, in fp32."""

    def __init__(self, trace: Trace, width: int) -> None:
        super().__init__(trace)
        self.inv_freq = self.buffer(width // 2)
        self.original_inv_freq = self.buffer(width // 2)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        freqs = pointwise("aten::mul", (to(unsqueeze(position_ids, -1), "fp32"), self.inv_freq))
        emb = cat((freqs, freqs), -1)
        cos = mul(function("aten::cos", emb), 1.0)
        sin = mul(function("aten::sin", emb), 1.0)
        dtype = self.dtype_of(x)
        return to(cos, dtype), to(sin, dtype)

    def dtype_of(self, x: Tensor) -> str:
        """What the tables are cast to."""
        return x.dtype


def rotate_half(x: Tensor) -> Tensor:
    """(a, b) -> (-b, a), halves of the last dimension."""
    x1 = slice_(x, -1, x.shape[-1] // 2)
    x2 = slice_from(x, -1, x.shape[-1] // 2)
    return cat((neg(x2), x1), -1)


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """q [B, H, S, D] and k [B, K, S, D] turned by their positions."""
    cos = unsqueeze(cos, 1)
    sin = unsqueeze(sin, 1)
    q_embed = add(mul(q, cos), mul(rotate_half(q), sin))
    k_embed = add(mul(k, cos), mul(rotate_half(k), sin))
    return q_embed, k_embed
