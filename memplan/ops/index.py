"""Indexing with a list (aten/src/ATen/native/TensorAdvancedIndexing.cpp, index)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty


def pick(tensor: Tensor, axis: int) -> Tensor:
    """tensor[:, [i]]: one element along one dimension, copied. Saves the list, as a tensor; the gradient is a zero
    tensor of the input's size with that part filled."""
    axis %= len(tensor.shape)
    trace = tensor.trace
    indices = empty(trace, (1,), "int64", "aten::tensor")
    node = make_node("IndexBackward0", _pick_backward, tensor)
    if node is not None:
        node.context = tensor.shape
        node.save(indices)
    shape = (*tensor.shape[:axis], 1, *tensor.shape[axis + 1 :])
    return attach(empty(trace, shape, tensor.dtype, "aten::index"), node)


def _pick_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::new_zeros"),)
