"""torch.where (aten/src/ATen/native/TensorCompare.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.layout import broadcast_shape
from memplan.ops.tensor import Tensor, empty, result_layout


def where(condition: Tensor, x: Tensor) -> Tensor:
    """x where the condition holds, a number elsewhere, which becomes a tensor of x's dtype. Saves the condition."""
    node = make_node("WhereBackward0", _where_backward, x)
    if node is not None:
        node.save(condition)
    return attach(_chosen(condition, x), node)


def _where_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (_chosen(saved[0], gradient),)


def _chosen(condition: Tensor, x: Tensor) -> Tensor:
    other = empty(x.trace, (), x.dtype, "aten::scalar_tensor")
    shape = broadcast_shape(condition.shape, x.shape)
    output = empty(x.trace, shape, x.dtype, "aten::where", result_layout(shape, (condition, x)))
    del other
    return output


def choose(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition holds, y elsewhere, outside the graph."""
    shape = broadcast_shape(condition.shape, broadcast_shape(x.shape, y.shape))
    return empty(x.trace, shape, x.dtype, "aten::where", result_layout(shape, (condition, x, y)))
