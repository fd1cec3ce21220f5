"""The flash attention kernel of the CPU (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.layout import contiguous_strides
from memplan.ops.tensor import Tensor, empty, result_layout
from memplan.ops.views import contiguous, transpose

KEY_BLOCK = 512


def query_block(length: int) -> int:
    """Rows of queries the CPU kernel works on at a time (aten/src/ATen/native/cpu/FlashAttentionKernel.cpp)."""
    block = 256 if length >= 768 else 64 if length >= 192 else 32
    return min(block, length)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """query [batch, heads, queries, head_dim], key and value [batch, key_value_heads, keys, head_dim] -> as query.

    The output is laid out as the query is, the gradients by token. Saves the three inputs, the output, a log-sum-exp of
    [batch, queries, heads] in fp32, and the float mask if any.
    """
    trace = query.trace
    node = make_node("ScaledDotProductFlashAttentionForCpuBackward0", _flash_backward, query, key, value)
    if node is not None:
        if mask is not None:
            node.save(mask)
        node.save(key)
        node.save(query)
        node.save(value)
    batch, heads, queries, head_dim = query.shape
    keys = key.shape[2]
    operation = "aten::_scaled_dot_product_flash_attention_for_cpu"
    output = empty(trace, query.shape, query.dtype, operation, result_layout(query.shape, (query,)))
    log_sum_exp = empty(trace, (batch, queries, heads), "fp32", operation)
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


def token_major(tensor: Tensor, operation: str) -> Tensor:
    """A fresh [batch, heads, length, head_dim], laid out in memory as [batch, length, heads, head_dim]."""
    batch, heads, length, head_dim = tensor.shape
    strides = contiguous_strides((batch, length, heads, head_dim))
    return empty(tensor.trace, tensor.shape, tensor.dtype, operation, (strides[0], strides[2], strides[1], strides[3]))


def _flash_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """Gradients of query, key and value, and per thread two blocks of scores and a row of sums."""
    key, query, value = saved[-5], saved[-4], saved[-3]
    trace, operation = query.trace, "aten::_scaled_dot_product_flash_attention_for_cpu_backward"
    gradients = (token_major(query, operation), token_major(key, operation), token_major(value, operation))
    incoming = contiguous(transpose(gradient, 1, 2))  # a copy unless it lies token by token
    rows, columns, threads = query_block(query.shape[2]), min(KEY_BLOCK, key.shape[2]), trace.backend.threads
    scores = empty(trace, (threads, 2, rows, columns), "fp32", "flash attention's buffer per thread")
    reduced = None
    if query.dtype != "fp32":
        reduced = empty(trace, (threads, 2, rows, columns), query.dtype, "flash attention's buffer per thread")
    empty(trace, (rows,), "fp32", "flash attention's buffer per thread")
    del scores, reduced, incoming
    return gradients
