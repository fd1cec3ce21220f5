"""Tensors cut by Python's index expressions (torch/csrc/autograd/python_variable_indexing.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, make_node
from memplan.ops.tensor import Tensor
from memplan.ops.views import slice_, view_of


def first(tensor: Tensor, length: int) -> Tensor:
    """tensor[..., :length]. Where that is everything, a view with a node of its own: gradients are summed there."""
    if length != tensor.shape[-1]:
        return slice_(tensor, -1, length)
    node = make_node("AliasBackward0", _alias_backward, tensor)
    return view_of(tensor, tensor.shape, tensor.strides, node)


def _alias_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient,)
