"""A tensor taken apart along one dimension (aten/src/ATen/native/TensorShape.cpp, unbind)."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import view_of


def unbind(tensor: Tensor, axis: int) -> list[Tensor]:
    """A view for each index, all of one node. Their gradients are stacked (torch/csrc/autograd/FunctionsManual.cpp,
    unbind_backward)."""
    axis %= len(tensor.shape)
    node = make_node("UnbindBackward0", _unbind_backward, tensor)
    if node is not None:
        node.context = tensor.shape
        node.outputs = tensor.shape[axis]
    strides = tensor.full_strides()
    shape, strides = tensor.shape[:axis] + tensor.shape[axis + 1 :], strides[:axis] + strides[axis + 1 :]
    return [attach(view_of(tensor, shape, strides), node, index) for index in range(tensor.shape[axis])]


def _unbind_backward(node: Node, gradients: Sequence[Tensor], saved: Saved) -> Gradients:
    return (empty(gradients[0].trace, node.context, gradients[0].dtype, "aten::stack"),)
