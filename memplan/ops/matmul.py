"""Batched matrix products (aten/src/ATen/native/LinearAlgebra.cpp, matmul)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import reshape


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """left [..., n, k] @ right [..., k, m] -> [..., n, m], with equal leading dimensions.

    Both are reshaped to three dimensions (a copy where the strides ask for one) and multiplied; the product is reshaped
    back. Saves both operands in three dimensions.
    """
    dtype = left.trace.autocast_dtype
    if dtype is not None:
        right = to(right, dtype)
        left = to(left, dtype)
    lead = left.shape[:-2]
    batch = product(lead)
    rows, columns = left.shape[-2], right.shape[-1]
    # Names of their own: autocast's casts are held until the product returns.
    flat_left = reshape(left, (batch, rows, left.shape[-1]))
    flat_right = reshape(right, (batch, right.shape[-2], columns))
    return reshape(bmm(flat_left, flat_right), (*lead, rows, columns))


def bmm(left: Tensor, right: Tensor) -> Tensor:
    """left [b, n, k] @ right [b, k, m]. Saves both."""
    node = make_node("BmmBackward0", _bmm_backward, left, right)
    if node is not None:
        if node.wants(1):
            node.save(left)
        if node.wants(0):
            node.save(right)
        node.context = (left.shape, right.shape)
    shape = (left.shape[0], left.shape[1], right.shape[2])
    return attach(empty(left.trace, shape, left.dtype, "aten::bmm"), node)


def _bmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The second operand's gradient comes first (`mat2` before `self`)."""
    left, right = node.context
    to_left: Tensor | None = None
    to_right: Tensor | None = None
    if node.wants(1):
        to_right = empty(gradient.trace, right, gradient.dtype, "aten::bmm")
    if node.wants(0):
        to_left = empty(gradient.trace, left, gradient.dtype, "aten::bmm")
    return (to_left, to_right)
