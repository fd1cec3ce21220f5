"""Multi-head attention, and the two ways to compute it."""

from __future__ import annotations

from memplan.config.model import Transformer
from memplan.config.run import Attention as Kernel
from memplan.ops.activation import softmax
from memplan.ops.attention import flash_attention, masked_fill
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, mul
from memplan.ops.matmul import matmul
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import expand, reshape, transpose, unsqueeze
from memplan.transformer.layers import Linear
from memplan.transformer.positions import rotate
from memplan.transformer.sizes import Sizes


class Attention(Module):
    """Queries of x look at keys and values of `source` (x itself, or the encoder's output)."""

    def __init__(self, trace: Trace, config: Transformer, sizes: Sizes, kernel: Kernel) -> None:
        super().__init__(trace)
        self.heads = sizes.heads
        self.key_value_heads = sizes.key_value_heads
        self.head_dim = sizes.head_dim
        self.width = sizes.width
        self.scaled = config.scale_attention and config.head_dim != 1
        self.dropout = config.attention_dropout
        self.kernel = kernel
        self.query = Linear(trace, sizes.hidden, sizes.width, config.attention_bias)
        self.key = Linear(trace, sizes.hidden, sizes.key_value_width, config.attention_bias)
        self.value = Linear(trace, sizes.hidden, sizes.key_value_width, config.attention_bias)
        self.output = Linear(trace, sizes.width, sizes.hidden, config.attention_bias)

    def forward(
        self,
        x: Tensor,  # [B, S, E]
        source: Tensor,  # [B, T, E]
        mask: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        batch, length, source_length = x.shape[0], x.shape[1], source.shape[1]
        query = reshape(self.query(x), (batch, length, self.heads, self.head_dim))
        key = reshape(self.key(source), (batch, source_length, self.key_value_heads, self.head_dim))
        value = reshape(self.value(source), (batch, source_length, self.key_value_heads, self.head_dim))
        if rotary is not None:
            query = rotate(query, rotary)
            key = rotate(key, rotary)
        query, key, value = transpose(query, 1, 2), transpose(key, 1, 2), transpose(value, 1, 2)
        if self.kernel == "naive":
            mixed = self.naive(query, key, value, mask, bias)
        else:
            mixed = self.flash(query, key, value, mask)
        mixed = reshape(transpose(mixed, 1, 2), (batch, length, self.width))
        output: Tensor = self.output(mixed)  # [B, S, E]
        return output

    def naive(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, bias: Tensor | None) -> Tensor:
        """Scores written out in full, [B, H, S, T]. `hidden` is True where a query must not look."""
        if self.key_value_heads != self.heads:
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        scores = matmul(query, transpose(key, -2, -1))
        if self.scaled:
            scores = mul(scores, 1.0)
        if bias is not None:
            scores = add(scores, bias)
        if hidden is not None:
            scores = masked_fill(scores, hidden)
        scores = softmax(scores)
        scores = dropout(scores, self.dropout)
        return matmul(scores, value)

    def flash(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None) -> Tensor:
        """Block by block, never all scores at once."""
        if self.key_value_heads != self.heads and not self.trace.backend.groups_heads_in_flash:
            key, value = self.repeat_heads(key), self.repeat_heads(value)
        return flash_attention(query, key, value, visible)

    def repeat_heads(self, x: Tensor) -> Tensor:
        """[B, K, T, D] -> [B, H, T, D]: each key-value head serves a group of H / K query heads."""
        batch, heads, length, width = x.shape
        group = Size(self.heads // heads, "num_attention_heads / num_key_value_heads")
        return reshape(
            expand(unsqueeze(x, 2), (batch, heads, group, length, width)), (batch, self.heads, length, width)
        )
