"""Falcon's attention with rotary positions, and its linear layer (models/falcon/modeling_falcon.py)."""

from __future__ import annotations

from memplan.config.library.falcon import Falcon as Configuration
from memplan.huggingface.attention import scaled_dot_product
from memplan.huggingface.cache import Cache
from memplan.huggingface.rotary import apply_rotary_pos_emb
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import softmax
from memplan.ops.elementwise import add, div_in_place
from memplan.ops.index import pick
from memplan.ops.matmul import matmul
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.unbiased import times_transposed
from memplan.ops.views import expand, permute, reshape, select, slice_, transpose
from memplan.transformer.layers import Linear


class FalconLinear(Linear):
    """FalconLinear: the bias is added afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        hidden_states = times_transposed(x, self.weight)
        if self.bias is None:
            return hidden_states
        return add(hidden_states, self.bias)


class Attention(Module):
    """FalconAttention: query, key and value come from one product, by heads, by groups, or all keys at the end."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Configuration, settings: Settings) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.new_decoder = config.new_decoder_architecture
        hidden = sized(config, "hidden_size")
        self.num_heads = sized(config, "num_attention_heads")
        self.head_dim = Size(hidden // self.num_heads, "hidden_size / num_attention_heads")
        self.key_value_heads = Size(config.key_value_heads, "num_kv_heads" if config.key_value_heads > 1 else "1")
        width = (self.num_heads + 2 * self.key_value_heads) * self.head_dim
        together = Size(width, "(num_attention_heads + 2 * num_kv_heads) * hidden_size / num_attention_heads")
        self.query_key_value = FalconLinear(trace, hidden, together, config.bias)
        self.dense = FalconLinear(trace, hidden, hidden, config.bias)
        self.multi_query = config.multi_query

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        layer_past: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        fused_qkv = self.query_key_value(hidden_states)
        query_layer, key_layer, value_layer = self.split_heads(fused_qkv)
        batch, length, _, _ = query_layer.shape
        query_layer = _by_heads(query_layer)
        key_layer = _by_heads(key_layer)
        value_layer = _by_heads(value_layer)
        cos, sin = position_embeddings
        query_layer, key_layer = apply_rotary_pos_emb(query_layer, key_layer, cos, sin)
        if layer_past is not None:
            key_layer, value_layer = layer_past.update(key_layer, value_layer, self.layer_idx)
        attention_scores: Tensor | None
        if self.implementation == "naive":
            assert attention_mask is not None
            attention_scores = matmul(query_layer, transpose(key_layer, 2, 3))
            attention_scores = div_in_place(attention_scores, 1.0)
            attention_scores = softmax(add(attention_scores, attention_mask), hidden_states.dtype)
            attn_output = matmul(attention_scores, value_layer)
        else:
            attn_output = scaled_dot_product(
                query_layer, key_layer, value_layer, attention_mask, False, 0.0, grouped=False
            )
            attention_scores = None
        attn_output = reshape(attn_output, (batch, self.num_heads, length, self.head_dim))
        attn_output = permute(attn_output, (0, 2, 1, 3))
        attn_output = reshape(attn_output, (batch, length, self.dense.in_features))
        attn_output = self.dense(attn_output)
        return attn_output, attention_scores

    def split_heads(self, fused_qkv: Tensor) -> list[Tensor]:
        """_split_heads: each [B, S, heads, D]."""
        batch, length, _ = fused_qkv.shape
        if self.new_decoder:
            groups = Size(self.num_heads // self.key_value_heads, "num_attention_heads / num_kv_heads")
            qkv = reshape(fused_qkv, (batch, length, self.key_value_heads, groups + 2, self.head_dim))
            query = slice_(qkv, 3, groups)
            key = pick(qkv, 3)
            value = pick(qkv, 3)
            key = expand(key, query.shape)
            value = expand(value, query.shape)
            return [reshape(x, (batch, length, self.num_heads, self.head_dim)) for x in (query, key, value)]
        if not self.multi_query:
            fused_qkv = reshape(fused_qkv, (batch, length, self.num_heads, 3, self.head_dim))
            return [select(fused_qkv, 3) for _ in range(3)]
        fused_qkv = reshape(fused_qkv, (batch, length, self.num_heads + 2, self.head_dim))
        return [slice_(fused_qkv, 2, self.num_heads), pick(fused_qkv, 2), pick(fused_qkv, 2)]


def _by_heads(x: Tensor) -> Tensor:
    """[B, S, H, D] -> [B, H, S, D]."""
    x = transpose(x, 1, 2)
    return reshape(x, x.shape)
