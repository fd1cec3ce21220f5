"""Batched matrix products (aten/src/ATen/native/LinearAlgebra.cpp, matmul)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.layout import broadcast_shape
from memplan.ops.size import product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import expand, reshape
from memplan.ops.workspaces import take_workspaces


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """left [..., n, k] @ right [..., k, m] -> [..., n, m]; leading dimensions of 1 are broadcast.

    Both are reshaped to three dimensions (a copy where the strides ask for one) and multiplied; the product is reshaped
    back. Saves both operands in three dimensions.
    """
    dtype = left.trace.autocast_dtype
    if dtype is not None:
        right = to(right, dtype)
        left = to(left, dtype)
    lead = left.shape[:-2]
    if right.shape[:-2] != lead:
        lead = broadcast_shape(lead, right.shape[:-2])
        left = expand(left, (*lead, *left.shape[-2:]))
        right = expand(right, (*lead, *right.shape[-2:]))
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
    return attach(_multiply(left, right), node)


def _multiply(left: Tensor, right: Tensor, operation: str = "aten::bmm") -> Tensor:
    """The product itself, and what it takes beside its output.

    On the CPU fp32 goes to MKL's batched product where the items of both operands lie in rows or columns; everything
    else one item after another, and an operand that BLAS cannot read as it lies is copied first. Items of a head_dim of
    1 are like that. Small products have a loop of their own (bmm_out_or_baddbmm_, addmm_impl_cpu_).
    """
    batch, rows, inner = left.shape
    columns = right.shape[2]
    output = empty(left.trace, (batch, rows, columns), left.dtype, operation)
    take_workspaces(left.trace)
    if left.trace.backend.cuda or (left.strides is None and right.strides is None) or inner * rows * columns < 400:
        return output
    if left.dtype == "fp32" and _lies_in_rows(left, True) and _lies_in_rows(right, True):
        return output
    for _ in range(batch):
        copies = [
            empty(operand.trace, operand.shape[1:], operand.dtype, "aten::clone")
            for operand in (right, left)
            if not _lies_in_rows(operand, False)
        ]
        if not copies:
            break
        del copies
    return output


def _lies_in_rows(tensor: Tensor, single: bool) -> bool:
    """Whether an item's rows or columns follow each other without a gap within; with `single` a single row or column
    may lie anywhere."""
    _, rows, columns = tensor.shape
    _, down, across = tensor.full_strides()
    return (across == 1 and ((single and rows == 1) or down >= columns)) or (
        down == 1 and ((single and columns == 1) or across >= rows)
    )


def _bmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The second operand's gradient comes first (`mat2` before `self`)."""
    to_left: Tensor | None = None
    to_right: Tensor | None = None
    if node.wants(1):
        to_right = _multiply(_turned(saved[0]), gradient)
    if node.wants(0):
        to_left = _multiply(gradient, _turned(saved[-1]))
    return (to_left, to_right)


def _turned(tensor: Tensor) -> Tensor:
    """[b, n, k] -> [b, k, n], the same memory."""
    batch, rows, columns = tensor.shape
    item, down, across = tensor.full_strides()
    return Tensor(tensor.storage, (batch, columns, rows), tensor.dtype, (item, across, down))
