"""Multi-head attention, written out or in one of PyTorch's fused kernels."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.config.run import Recompute
from memplan.ops.activation import softmax, tanh
from memplan.ops.attention import fused_attention, masked_fill
from memplan.ops.checkpoint import checkpoint
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, div, mul
from memplan.ops.matmul import matmul
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import expand, reshape, transpose, unsqueeze
from memplan.transformer.cache import Kept
from memplan.transformer.layers import Linear
from memplan.transformer.positions import rotate
from memplan.transformer.sizes import Sizes


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """x bent so that it stays within -cap and cap."""
    return mul(tanh(div(x, cap)), cap)


class Attention(Module):
    """Queries of x look at keys and values of `source` (x itself, or the encoder's output). With recompute = attention
    what lies between them and the mixed values is made again in the backward pass."""

    def __init__(
        self, trace: Trace, config: Transformer, sizes: Sizes, kernel: Kernel, recompute: Recompute = "none"
    ) -> None:
        super().__init__(trace)
        self.heads = sizes.heads
        self.key_value_heads = sizes.key_value_heads
        self.head_dim = sizes.head_dim
        self.width = sizes.width
        self.scaled = config.scale_attention and config.head_dim != 1
        self.soft_cap = config.attention_soft_cap
        self.dropout = config.attention_dropout
        self.kernel = kernel
        self.recompute = recompute
        self.value_dim = sizes.value_dim
        self.value_width = sizes.value_width
        self.add_projections(config, sizes)

    def add_projections(self, config: Transformer, sizes: Sizes) -> None:
        """The matrices that make queries, keys and values, and the one that joins the heads."""
        trace = self.trace
        self.query = Linear(trace, sizes.hidden, sizes.width, config.attention_bias)
        self.key = Linear(trace, sizes.hidden, sizes.key_value_width, config.attention_bias)
        self.value = Linear(trace, sizes.hidden, sizes.key_value_width, config.attention_bias)
        self.output = Linear(trace, sizes.width, sizes.hidden, config.attention_bias)

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        source: Tensor | None,  # [B, T, E]; None: what `kept` holds
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        kept: Kept | None = None,  # keys and values of earlier tokens
    ) -> Tensor:
        query, key, value = self.project(x, source, rotary, kept)
        attend, others = (self.naive, (mask, bias)) if self.kernel == "naive" else (self.fused, (mask,))
        if self.recompute == "attention":
            mixed = checkpoint(attend, query, key, value, *others)
        else:
            mixed = attend(query, key, value, *others)
        mixed = reshape(transpose(mixed, 1, 2), (x.shape[0], x.shape[1], self.value_width))
        output: Tensor = self.output(mixed)  # [B, S, E]
        return output

    def project(
        self, x: Tensor, source: Tensor | None, rotary: tuple[Tensor, Tensor] | None, kept: Kept | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, S, D], keys and values [B, K, T, D], with those of earlier tokens."""
        batch, length = x.shape[0], x.shape[1]
        query = reshape(self.query(x), (batch, length, self.heads, self.head_dim))
        if source is None:
            assert kept is not None
            return (transpose(query, 1, 2), *kept.read())
        source_length = source.shape[1]
        key = reshape(self.key(source), (batch, source_length, self.key_value_heads, self.head_dim))
        value = reshape(self.value(source), (batch, source_length, self.key_value_heads, self.head_dim))
        if rotary is not None:
            query = rotate(query, rotary)
            key = rotate(key, rotary)
        if kept is not None:
            return (transpose(query, 1, 2), *kept.update(transpose(key, 1, 2), transpose(value, 1, 2)))
        return transpose(query, 1, 2), transpose(key, 1, 2), transpose(value, 1, 2)

    def naive(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, bias: Tensor | None) -> Tensor:
        """Scores written out in full, [B, H, S, T]. `hidden` is True where a query must not look."""
        if self.key_value_heads != self.heads:
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        scores = matmul(query, transpose(key, -2, -1))
        if self.scaled:
            scores = mul(scores, 1.0)
        if self.soft_cap:
            scores = soft_cap(scores, self.soft_cap)
        if bias is not None:
            scores = add(scores, bias)
        if hidden is not None:
            scores = masked_fill(scores, hidden)
        scores = softmax(scores)
        scores = dropout(scores, self.dropout)
        return matmul(scores, value)

    def fused(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Block by block, never all scores at once."""
        if self.key_value_heads != self.heads and not self.trace.backend.groups_heads(self.kernel):
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        return fused_attention(self.kernel, query, key, value, visible, self.dropout)

    def repeat_heads(self, x: Tensor) -> Tensor:
        """[B, K, T, D] -> [B, H, T, D]: each key-value head serves a group of H / K query heads."""
        batch, heads, length, width = x.shape
        group = Size(self.heads // heads, "num_attention_heads / num_key_value_heads")
        return reshape(
            expand(unsqueeze(x, 2), (batch, heads, group, length, width)), (batch, self.heads, length, width)
        )
