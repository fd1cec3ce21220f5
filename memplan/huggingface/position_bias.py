"""Attention with a position bias that is added to the scores (models/t5/modeling_t5.py,
integrations/sdpa_attention.py)."""

from __future__ import annotations

from memplan.huggingface.attention import scaled_dot_product
from memplan.ops.activation import softmax
from memplan.ops.dropout import dropout
from memplan.ops.elementwise import add, arange, div, function, mul, number, pointwise, subtract, to
from memplan.ops.matmul import matmul
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import contiguous, narrow, permute, reshape, transpose, unsqueeze
from memplan.ops.where import choose, where
from memplan.transformer.layers import Embedding


def compute_bias(
    table: Embedding, queries: int, keys: int, bidirectional: bool, past_seen_tokens: int | Tensor = 0
) -> Tensor:
    """T5Attention.compute_bias: [1, H, S, T], looked up in a table of [buckets, H]."""
    context_position = add(unsqueeze(arange(table.weight, queries), 1), past_seen_tokens)
    memory_position = unsqueeze(arange(table.weight, keys), 0)
    relative_position = subtract(memory_position, context_position)
    relative_position_buckets = relative_position_bucket(relative_position, bidirectional)
    values: Tensor = table(relative_position_buckets)
    return unsqueeze(permute(values, (2, 0, 1)), 0)


def relative_position_bucket(relative_position: Tensor, bidirectional: bool) -> Tensor:
    """T5Attention._relative_position_bucket: 64-bit integers of [S, T]."""
    trace, shape = relative_position.trace, relative_position.shape
    relative_buckets = None
    if bidirectional:
        relative_buckets = add(mul(to(_compared("aten::gt", relative_position), "int64"), 1), 0)
        relative_position = function("aten::abs", relative_position)
    else:
        relative_position = function(
            "aten::neg",
            pointwise("aten::minimum", (relative_position, empty(trace, shape, "int64", "aten::zeros_like"))),
        )
    is_small = _compared("aten::lt", relative_position)
    relative_position_if_large = add(
        to(mul(div(function("aten::log", div(to(relative_position, "fp32"), 1)), 1.0), 1), "int64"), 1
    )
    relative_position_if_large = pointwise(
        "aten::minimum", (relative_position_if_large, empty(trace, shape, "int64", "aten::full_like"))
    )
    buckets = choose(is_small, relative_position, relative_position_if_large)
    return add(buckets, 0) if relative_buckets is None else relative_buckets  # the latter in place


def _compared(operation: str, tensor: Tensor) -> Tensor:
    return pointwise(operation, (tensor, number(tensor, 0)), "bool")


def eager_attention(
    query: Tensor,  # [B, H, S, D]
    key: Tensor,  # [B, H, T, D]
    value: Tensor,  # [B, H, T, D]
    attention_mask: Tensor | None,  # [B, 1, S, T]
    dropout_probability: float,
    position_bias: Tensor | None = None,  # [1, H, S, T]
) -> tuple[Tensor, Tensor]:
    """T5's, and without a bias Bart's: softmax in the dtype of the scores. Returns [B, S, H, D] and the weights."""
    attn_weights = mul(matmul(query, transpose(key, 2, 3)), 1.0)
    if position_bias is not None:
        attn_weights = add(attn_weights, position_bias)
    if attention_mask is not None:
        attn_weights = add(attn_weights, attention_mask)
    attn_weights = softmax(attn_weights)
    attn_weights = dropout(attn_weights, dropout_probability)
    attn_output = matmul(attn_weights, value)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, attn_weights


def create_position_bias_mask(
    position_bias: Tensor, attention_mask: Tensor | None, is_causal: bool, query: Tensor, key: Tensor
) -> Tensor:
    """The bias with what is hidden set to the lowest number, for scaled_dot_product_attention."""
    if attention_mask is not None:
        return contiguous(where(attention_mask, position_bias))
    if not is_causal:
        return contiguous(position_bias)
    queries, keys = query.shape[2], key.shape[2]
    causal_mask = pointwise("aten::ge", (unsqueeze(arange(key, queries), 1), unsqueeze(arange(key, keys), 0)), "bool")
    causal_mask = reshape(causal_mask, (1, 1, queries, keys))
    position_bias_mask = where(causal_mask, position_bias)
    return contiguous(position_bias_mask)


def sdpa_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout_probability: float,
    position_bias: Tensor,
    causal: bool,
) -> tuple[Tensor, None]:
    """scaled_dot_product_attention with the bias for a mask. One that is trained asks for the scores in full."""
    causal = causal and attention_mask is None and query.shape[2] > 1
    if causal and key.shape[2] > query.shape[2]:  # room that a static cache has not filled
        key = narrow(key, 2, query.shape[2])
        value = narrow(value, 2, query.shape[2])
        position_bias = narrow(position_bias, 3, query.shape[2])
    attention_mask = create_position_bias_mask(position_bias, attention_mask, causal, query, key)
    attn_output = scaled_dot_product(query, key, value, attention_mask, False, dropout_probability)
    attn_output = reshape(attn_output, attn_output.shape)
    attn_output = contiguous(transpose(attn_output, 1, 2))
    return attn_output, None


def attend(
    implementation: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout_probability: float,
    position_bias: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention by the implementation of that name."""
    if implementation == "naive":
        return eager_attention(query, key, value, attention_mask, dropout_probability, position_bias)
    return sdpa_attention(query, key, value, attention_mask, dropout_probability, position_bias, causal)
