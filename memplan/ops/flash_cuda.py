"""The flash attention kernel of CUDA, for fp16 and bf16.

Sources: aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp (mha_fwd, mha_bwd), cuda/attention.cu,
cuda/attention_backward.cu, and pad_last_dim in transformers/attention.cpp. Without deterministic algorithms.
"""

from __future__ import annotations

from memplan.ops import layout
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.backend import Backend
from memplan.ops.tensor import Tensor, empty, result_layout
from memplan.ops.views import contiguous, transpose, view_of

_FORWARD = "aten::_scaled_dot_product_flash_attention"
_BACKWARD = "aten::_scaled_dot_product_flash_attention_backward"


def flash_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """query [batch, heads, queries, head_dim], key and value [batch, key_value_heads, keys, head_dim] -> as query.

    Saves the three, the output, a log-sum-exp of [batch, heads, queries] in fp32, and the state of the random numbers.
    Heads that are no multiple of 8 wide are padded first; what is saved are then the padded copies.
    """
    head_dim = query.shape[3]
    if head_dim % 8 == 0:
        return _attention(query, key, value, dropout)
    query, key, value = _padded(query), _padded(key), _padded(value)
    return _narrowed(_attention(query, key, value, dropout), head_dim)


def _padded(tensor: Tensor) -> Tensor:
    """The last dimension padded to a multiple of 8: a row-major copy."""
    node = make_node("ConstantPadNdBackward0", _padded_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    width = -(-tensor.shape[3] // 8) * 8
    return attach(empty(tensor.trace, (*tensor.shape[:3], width), tensor.dtype, "aten::constant_pad_nd"), node)


def _padded_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::constant_pad_nd"),)


def _narrowed(tensor: Tensor, width: int) -> Tensor:
    """The first `width` columns, as a view. Its gradient is a zero tensor of the whole with the part filled."""
    node = make_node("SliceBackward0", _narrowed_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    return view_of(tensor, (*tensor.shape[:3], width), tensor.full_strides(), node)


def _narrowed_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::slice_backward"),)


def _attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    trace = query.trace
    node = make_node("ScaledDotProductFlashAttentionBackward0", _backward, query, key, value)
    if node is not None:
        node.save(query)
        node.save(key)
        node.save(value)
    output = _like(query, _FORWARD)
    batch, heads, queries, head_dim = query.shape
    log_sum_exp = empty(trace, (batch, heads, queries), "fp32", _FORWARD)
    partial_sums = partial_outputs = None
    parts = 1 if dropout else key_parts(trace.backend, batch * heads, queries, key.shape[2], head_dim)
    if parts > 1:
        partial_sums = empty(trace, (parts, batch, heads, queries), "fp32", _FORWARD)
        width = rounded_width(trace.backend, head_dim)
        partial_outputs = empty(trace, (parts, batch, heads, queries, width), "fp32", _FORWARD)
    random: list[Tensor] = []
    if trace.backend.torch >= (2, 7):  # before, they lay in host memory
        random = [empty(trace, (2,), "int64", _FORWARD), empty(trace, (), "int64", _FORWARD)]
        if dropout:
            random[0] = empty(trace, (2,), "int64", _FORWARD)
    del partial_sums, partial_outputs
    if node is not None:
        node.save(output)
        node.save(log_sum_exp)
        for tensor in random:
            node.save(tensor)
    return attach(output, node)


def _backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """Gradients of query, key and value; sums per row; and the query's gradient once more, in fp32 and padded. Grouped
    heads get one gradient for each query head first."""
    query, key, value, output = saved[0], saved[1], saved[2], saved[3]
    trace = query.trace
    gradient, output = token_major(gradient), token_major(output)
    to_query, to_key, to_value = _like(query, _BACKWARD), _like(key, _BACKWARD), _like(value, _BACKWARD)
    batch, heads, queries, head_dim = query.shape
    rows = -(-queries // 128) * 128
    row_sums = empty(trace, (batch, heads, rows), "fp32", _BACKWARD)
    sums = empty(trace, (batch, rows, heads, rounded_width(trace.backend, head_dim)), "fp32", _BACKWARD)
    expanded = []
    if key.shape[1] != heads:
        expanded = [empty(trace, (batch, key.shape[2], heads, head_dim), key.dtype, _BACKWARD) for _ in range(2)]
    del row_sums, sums, expanded
    return (to_query, to_key, to_value)


def token_major(tensor: Tensor) -> Tensor:
    """[batch, heads, length, head_dim] as it is where memory holds [batch, length, heads, head_dim], else a copy that
    does (`transpose(1, 2).contiguous()`), outside the graph."""
    return contiguous(transpose(tensor.alias(), 1, 2))


def _like(tensor: Tensor, operation: str) -> Tensor:
    """A fresh tensor of the same shape and order of dimensions."""
    strides = tensor.strides
    if strides is not None and not layout.is_dense(tensor.shape, strides):
        strides = result_layout(tensor.shape, (tensor,))
    return empty(tensor.trace, tensor.shape, tensor.dtype, operation, strides)


def rounded_width(backend: Backend, head_dim: int) -> int:
    """A head's width in the accumulators."""
    if backend.torch >= (2, 11) and head_dim > 128:
        return -(-head_dim // 64) * 64
    width = -(-head_dim // 32) * 32
    return width if width < 224 or backend.torch < (2, 7) else 256


def key_parts(backend: Backend, heads: int, queries: int, keys: int, head_dim: int) -> int:
    """Into how many parts the keys are split where a job is too small to fill the card (num_splits_heuristic); `heads`
    counts those of all sequences."""
    block = 256 if head_dim <= 64 else 128 if head_dim <= 128 else 64
    blocks = -(-keys // block)
    jobs = heads * -(-queries // 64)
    places = 2 * backend.multiprocessors
    if jobs >= 0.8 * places:
        return 1
    eligible = [
        parts
        for parts in range(1, min(128, places, blocks) + 1)
        if parts == 1 or -(-blocks // parts) != -(-blocks // (parts - 1))
    ]
    filled = {parts: (jobs * parts / places) / -(-jobs * parts // places) for parts in eligible}
    best = max(filled.values())
    return next(parts for parts in eligible if filled[parts] >= 0.85 * best)
