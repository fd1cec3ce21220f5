"""The memory-efficient attention kernel of CUDA, for every dtype.

Sources: aten/src/ATen/native/transformers/cuda/attention.cu (_efficient_attention_forward), attention_backward.cu
(_efficient_attention_backward), mem_eff_attention/kernel_backward.h (workspace_size) and its list of kernels
kernels/cutlassB.h. Without deterministic algorithms.
"""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.backend import Backend
from memplan.ops.flash_cuda import token_major
from memplan.ops.layout import Shape, contiguous_strides
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import view_of

_FORWARD = "aten::_scaled_dot_product_efficient_attention"
_BACKWARD = "aten::_scaled_dot_product_efficient_attention_backward"


def efficient_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """query [batch, heads, queries, head_dim], key and value [batch, key_value_heads, keys, head_dim] -> as query;
    before 2.14 with as many heads in all.

    Saves the three, the mask, the output, and a log-sum-exp of [batch, heads, queries up to a multiple of 32] in fp32.
    """
    trace = query.trace
    node = make_node("ScaledDotProductEfficientAttentionBackward0", _backward, query, key, value)
    if node is not None:
        node.save(query)
        node.save(key)
        node.save(value)
        node.context = dropout
    batch, heads, queries, head_dim = query.shape
    random: list[Tensor] = []
    if trace.backend.torch >= (2, 14) and not dropout:  # else the state of the random numbers lies in host memory
        random = [empty(trace, (), "int64", _FORWARD), empty(trace, (), "int64", _FORWARD)]
    output = _token_major(query, _FORWARD)
    rows = -(-queries // 32) * 32 if node is not None else 0
    log_sum_exp = empty(trace, (batch, heads, rows), "fp32", _FORWARD)
    if query.dtype != "fp32" and head_dim > 128:  # the kernel sums a row in several passes
        empty(trace, (batch, queries, heads, head_dim), "fp32", _FORWARD)
    if node is not None:
        node.save(output)
        node.save(log_sum_exp)
        for tensor in random:
            node.save(tensor)
        if mask is not None:
            node.save(mask)
    return attach(output, node)


def aligned(mask: Tensor) -> Tensor:
    """A float mask whose rows begin at multiples of 8 elements: padded where they do not (pad_bias)."""
    columns = mask.shape[-1]
    if columns % 8 == 0:
        return mask
    padded = (*mask.shape[:-1], columns + 8 - columns % 8)
    return view_of(
        empty(mask.trace, padded, mask.dtype, "aten::constant_pad_nd"), mask.shape, contiguous_strides(padded)
    )


def _backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """Gradients of query, key and value; those of keys and values for each query head, where heads share them; the
    product of gradient and output summed per row; and a workspace."""
    query, key, value, output = saved[0], saved[1], saved[2], saved[3]
    trace = query.trace
    gradient = token_major(gradient)
    gradients = (_token_major(query, _BACKWARD), _token_major(key, _BACKWARD), _token_major(value, _BACKWARD))
    batch, heads, queries, head_dim = query.shape
    by_head = []
    if key.shape[1] != heads:
        shape = (batch, heads, key.shape[2], head_dim)
        by_head = [empty(trace, shape, query.dtype, _BACKWARD) for _ in (key, value)]
    rows, columns, in_registers = tile(trace.backend, query.dtype, head_dim, bool(node.context))
    if query.dtype == "fp32" or (trace.backend.compute_capability == (7, 0) and not in_registers):
        casts = []
        if query.dtype != "fp32":
            casts = [empty(trace, query.shape, "fp32", "aten::to") for _ in (gradient, output)]
        product = empty(trace, (batch, queries, heads, head_dim), "fp32", "aten::mul")
        total = empty(trace, (batch, queries, heads), "fp32", "aten::sum")
        delta = total if queries == 1 or heads == 1 else empty(trace, (batch, heads, queries), "fp32", "aten::clone")
        del casts, product, total
    else:
        delta = empty(trace, (batch, heads, queries), "fp32", _BACKWARD)
    size = workspace_bytes(query.shape, key.shape[2], rows, columns, query.dtype != "fp32" and not in_registers)
    workspace = empty(trace, (size,), "uint8", _BACKWARD)
    del delta, workspace, by_head
    return gradients


def _token_major(tensor: Tensor, operation: str) -> Tensor:
    """A fresh [batch, heads, length, head_dim], laid out in memory as [batch, length, heads, head_dim]."""
    batch, heads, length, head_dim = tensor.shape
    strides = contiguous_strides((batch, length, heads, head_dim))
    return empty(tensor.trace, tensor.shape, tensor.dtype, operation, (strides[0], strides[2], strides[1], strides[3]))


def tile(backend: Backend, dtype: str, head_dim: int, dropout: bool) -> tuple[int, int, bool]:
    """Queries and keys the backward kernel takes at a time, and whether its half-precision results stay in registers.

    The first kernel of the list that is wide enough and fits the card's shared memory: 163 KiB a block and more on 8.0,
    8.7, 9.0 and 10.x; 99 KiB on 8.6, 8.9 and 12.x; 64 or 96 KiB before.
    """
    major, minor = backend.compute_capability
    roomy = (major, minor) in ((8, 0), (8, 7)) or major in (9, 10, 11)
    if dtype == "fp32":
        return (128 if roomy and head_dim > 64 else 64), 64, False
    if head_dim <= 64:
        return 64, 64, True
    if head_dim > 128:
        return 128, 64, False
    if roomy:
        return 128, 128, True
    if major == 7:
        return 128, 64, True
    if head_dim <= 96 and major == 8 and not dropout:
        return 128, 64, True
    return 64, 64, False


def workspace_bytes(query: Shape, keys: int, rows: int, columns: int, gathers: bool) -> int:
    """The buffer in which blocks add up the query's gradient and, with `gathers`, those of keys and values."""
    batch, heads, queries, head_dim = query
    size = -(-queries // rows) * -(-head_dim // columns) * (16 + 4 * rows * columns) // 4
    if gathers:
        parts = -(-keys // columns)
        if batch * heads >= 256 and keys <= 2 * columns:
            parts = 1
        parts = max(min(parts, 200 // (batch * heads)), 1)
        size += 2 * parts * columns * (-(-head_dim // rows) * rows)
    return 4 * batch * heads * (-(-size // 4) * 4)
