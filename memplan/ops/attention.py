"""torch.nn.functional.scaled_dot_product_attention, and the masking of scores that are written out.

What happens before a kernel is called: aten/src/ATen/native/transformers/attention.cpp.
"""

from __future__ import annotations

from memplan.ops.activation import one_gradient
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.dropout import dropout
from memplan.ops.efficient_cuda import aligned, efficient_attention
from memplan.ops.elementwise import scale, to
from memplan.ops.flash_cpu import flash_attention as flash_on_cpu
from memplan.ops.flash_cuda import flash_attention as flash_on_cuda
from memplan.ops.layout import broadcast_shape
from memplan.ops.linear import cached_cast
from memplan.ops.matmul import matmul
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import copied, expand, reshape, transpose, unsqueeze


def fused_attention(
    kernel: str, query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, dropout_probability: float
) -> Tensor:
    """query [batch, heads, queries, head_dim], key and value [batch, key_value_heads, keys, head_dim] -> as query, by
    the kernel of that name. A mask is added to the scores; a boolean one (True: `visible`) is made into one of
    floats first."""
    query, key, value, mask = _prepared(query, key, value, visible)
    if not query.trace.backend.cuda:
        return flash_on_cpu(query, key, value, mask)
    if kernel == "flash":
        return flash_on_cuda(query, key, value, dropout_probability)
    if mask is not None:
        mask = aligned(mask)
    return efficient_attention(query, key, value, mask, dropout_probability)


def _prepared(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What every kernel is given: arguments that autocast has cast, last to first; a boolean mask made a float one."""
    dtype = query.trace.autocast_dtype
    if dtype is not None:
        if mask is not None and mask.dtype != "bool":
            mask = cached_cast(mask, dtype)
        value = to(value, dtype)
        key = to(key, dtype)
        query = to(query, dtype)
    if mask is not None and mask.dtype == "bool":
        mask = _float_mask(mask, query.dtype)
    return query, key, value, mask


def math_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_probability: float,
    grouped: bool = True,
) -> Tensor:
    """The kernel that takes every job: the scores in full (_scaled_dot_product_attention_math). Half precision is
    computed in fp32. `mask` is boolean (True: may look) or added to the scores; `causal` makes one of its own.
    Fewer key-value heads are repeated (enable_gqa), or a single one is broadcast where they are not `grouped`."""
    query, key, value, mask = _prepared(query, key, value, mask)
    with query.trace.without_autocast():
        return _math(query, key, value, mask, causal, dropout_probability, grouped)


def _math(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    dropout_probability: float,
    grouped: bool,
) -> Tensor:
    dtype = query.dtype
    # PyTorch's locals: all of them live until it returns.
    query_wide = to(query, "fp32")
    key_wide, value_wide = to(key, "fp32"), to(value, "fp32")
    scaled = scale(query_wide, 1.0)
    if causal:
        length = (query.shape[2], key.shape[2])
        ones = empty(query.trace, length, "bool", "aten::ones")
        past = empty(query.trace, length, "bool", "aten::tril")
        del ones
        mask = _float_mask(past, "fp32")
        del past
    groups = query.shape[1] // key.shape[1] if grouped else 1
    key_expanded, value_expanded = repeat_interleave(key_wide, groups), repeat_interleave(value_wide, groups)
    scores = matmul(scaled, scale(transpose(key_expanded, -2, -1), 1.0))
    if mask is not None:
        scores = add_in_place(scores, mask)
    weights = safe_softmax(scores)
    del scores
    weights = dropout(weights, dropout_probability)
    narrow = to(weights, dtype)  # returned as well, and made first: C++ compilers evaluate arguments last to first
    mixed = to(matmul(weights, value_expanded), dtype)
    del narrow
    return mixed


def repeat_interleave(x: Tensor, repeats: int) -> Tensor:
    """[B, K, T, D] -> [B, K * repeats, T, D], a copy (aten/src/ATen/native/Repeat.cpp)."""
    if repeats == 1:
        return x
    batch, heads, length, width = x.shape
    copies = copied(expand(unsqueeze(x, 2), (batch, heads, repeats, length, width)))
    return reshape(copies, (batch, heads * repeats, length, width))


def add_in_place(scores: Tensor, mask: Tensor) -> Tensor:
    """scores.add_(mask): the same memory. The CPU casts a mask of another dtype first."""
    node = make_node("AddBackward0", _added_backward, scores, mask)
    if mask.dtype != scores.dtype and not mask.trace.backend.cuda:
        empty(mask.trace, mask.shape, scores.dtype, "aten::to")
    return attach(scores.alias(), node)


def _added_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient, gradient)


def safe_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension with zeros where a row is all -inf, set in place (_safe_softmax). Saves its
    result."""
    node = make_node("SafeSoftmaxBackward0", one_gradient, scores)
    output = empty(scores.trace, scores.shape, scores.dtype, "aten::_softmax")
    masked = empty(scores.trace, scores.shape, "bool", "aten::isneginf")
    rows = empty(scores.trace, (*scores.shape[:-1], 1), "bool", "aten::all")
    zero = empty(scores.trace, (), scores.dtype, "aten::scalar_tensor")
    del zero, rows, masked
    if node is not None:
        node.context = "aten::_softmax_backward_data"
        node.save(output)
    return attach(output, node)


def _float_mask(visible: Tensor, dtype: str) -> Tensor:
    """convert_boolean_attn_mask: a float mask of the same shape, 0 where visible and -inf elsewhere."""
    trace = visible.trace
    zero = empty(trace, (), dtype, "aten::scalar_tensor")
    infinity = empty(trace, (), dtype, "aten::scalar_tensor")
    mask = empty(trace, visible.shape, dtype, "aten::where")
    del infinity, zero
    return mask


def masked_fill(scores: Tensor, hidden: Tensor) -> Tensor:
    """scores where `hidden` is False, a constant elsewhere; both are broadcast. Saves the mask."""
    node = make_node("MaskedFillBackward0", _masked_fill_backward, scores)
    if node is not None:
        node.save(hidden)
    shape = broadcast_shape(scores.shape, hidden.shape)
    if shape == scores.shape:
        shape = scores.shape  # its sizes have the names that fit
    return attach(empty(scores.trace, shape, scores.dtype, "aten::masked_fill"), node)


def _masked_fill_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, gradient.shape, gradient.dtype, "aten::masked_fill"),)
