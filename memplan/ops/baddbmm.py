"""torch.baddbmm (aten/src/ATen/native/LinearAlgebra.cpp, baddbmm_out_cpu)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import number, pointwise, to
from memplan.ops.matmul import _multiply, _turned
from memplan.ops.tensor import Tensor


def baddbmm(added: Tensor, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """added + alpha * left [b, n, k] @ right [b, k, m], with `added` broadcast and outside the graph. Saves left and
    right."""
    dtype = left.trace.autocast_dtype
    if dtype is not None:  # the arguments are cast last to first
        right = to(right, dtype)
        left = to(left, dtype)
        added = to(added, dtype)
    node = make_node("BaddbmmBackward0", _baddbmm_backward, left, right)
    if node is not None:
        node.context = alpha
        if node.wants(1):
            node.save(left)
        if node.wants(0):
            node.save(right)
    return attach(_multiply(left, right, "aten::baddbmm"), node)


def _baddbmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    to_left: Tensor | None = None
    to_right: Tensor | None = None
    if node.wants(0):
        to_left = _multiplied(_multiply(gradient, _turned(saved[-1])), node.context)
    if node.wants(1):
        to_right = _multiplied(_multiply(_turned(saved[0]), gradient), node.context)
    return (to_left, to_right)


def _multiplied(gradient: Tensor, factor: float) -> Tensor:
    """maybe_multiply (torch/csrc/autograd/FunctionsManual.cpp)."""
    return gradient if factor == 1.0 else pointwise("aten::mul", (gradient, number(gradient, factor)))
