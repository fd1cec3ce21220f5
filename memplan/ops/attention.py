"""torch.nn.functional.scaled_dot_product_attention with the flash kernel."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.layout import contiguous_strides
from memplan.ops.tensor import Tensor, empty

KEY_BLOCK = 512


def query_block(length: int) -> int:
    """Rows of queries the CPU kernel works on at a time (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp)."""
    block = 256 if length >= 768 else 64 if length >= 192 else 32
    return min(block, length)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """query [batch, heads, queries, head_dim], key and value [batch, key_value_heads, keys, head_dim] -> as query.

    Saves the three inputs, the output, a log-sum-exp of [batch, queries, heads] in fp32 and, with a boolean mask
    `visible`, the float mask it is turned into (aten/src/ATen/native/transformers/attention.cpp).
    """
    dtype = query.trace.autocast_dtype
    if dtype is not None:
        value = to(value, dtype)
        key = to(key, dtype)
        query = to(query, dtype)
    trace = query.trace
    mask = None if visible is None else _float_mask(visible, query.dtype)
    node = make_node("ScaledDotProductFlashAttentionForCpuBackward0", _flash_backward, query, key, value)
    if node is not None:
        if mask is not None:
            node.save(mask)
        node.save(key)
        node.save(query)
        node.save(value)
    batch, heads, queries, head_dim = query.shape
    keys = key.shape[2]
    output = _like(query, "aten::_scaled_dot_product_flash_attention_for_cpu")
    log_sum_exp = empty(trace, (batch, queries, heads), "fp32", "aten::_scaled_dot_product_flash_attention_for_cpu")
    rows, columns, threads = query_block(queries), min(KEY_BLOCK, keys), trace.backend.threads
    per_thread = rows * columns + 2 * rows + rows * head_dim
    scores = empty(trace, (threads, per_thread), "fp32", "flash attention's buffer per thread")
    if query.dtype != "fp32":
        reduced = empty(trace, (threads, rows, columns), query.dtype, "flash attention's buffer per thread")
        del reduced
    del scores
    if node is not None:
        node.save(log_sum_exp)
        node.save(output)
    return attach(output, node)


def _like(tensor: Tensor, operation: str) -> Tensor:
    """A fresh [batch, heads, length, head_dim], laid out in memory as [batch, length, heads, head_dim]."""
    batch, heads, length, head_dim = tensor.shape
    strides = contiguous_strides((batch, length, heads, head_dim))
    return empty(tensor.trace, tensor.shape, tensor.dtype, operation, (strides[0], strides[2], strides[1], strides[3]))


def _float_mask(visible: Tensor, dtype: str) -> Tensor:
    """convert_boolean_attn_mask: a float mask of the same shape, 0 where visible and -inf elsewhere."""
    trace = visible.trace
    zero = empty(trace, (), dtype, "aten::scalar_tensor")
    infinity = empty(trace, (), dtype, "aten::scalar_tensor")
    mask = empty(trace, visible.shape, dtype, "aten::where")
    del infinity, zero
    return mask


def _flash_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """Gradients of query, key and value, and per thread two blocks of scores and a row of sums."""
    key, query, value = saved[-5], saved[-4], saved[-3]
    trace, operation = query.trace, "aten::_scaled_dot_product_flash_attention_for_cpu_backward"
    gradients = (_like(query, operation), _like(key, operation), _like(value, operation))
    rows, columns, threads = query_block(query.shape[2]), min(KEY_BLOCK, key.shape[2]), trace.backend.threads
    scores = empty(trace, (threads, 2, rows, columns), "fp32", "flash attention's buffer per thread")
    reduced = None
    if query.dtype != "fp32":
        reduced = empty(trace, (threads, 2, rows, columns), query.dtype, "flash attention's buffer per thread")
    empty(trace, (rows,), "fp32", "flash attention's buffer per thread")
    del scores, reduced
    return gradients


def masked_fill(scores: Tensor, hidden: Tensor) -> Tensor:
    """scores where `hidden` is False, a constant elsewhere. Saves the mask."""
    node = make_node("MaskedFillBackward0", _masked_fill_backward, scores)
    if node is not None:
        node.save(hidden)
    return attach(empty(scores.trace, scores.shape, scores.dtype, "aten::masked_fill"), node)


def _masked_fill_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, gradient.shape, gradient.dtype, "aten::masked_fill"),)
