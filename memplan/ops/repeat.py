"""Tensor.repeat (aten/src/ATen/native/TensorShape.cpp)."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import number, total
from memplan.ops.tensor import Tensor, empty
from memplan.ops.views import reshape


def repeat(tensor: Tensor, times: Sequence[int]) -> Tensor:
    """A copy with each dimension that many times as long. On the CPU the order of the dimensions that the copy is made
    in is itself computed with tensors, since 2.10."""
    trace, rank = tensor.trace, len(times)
    node = make_node("RepeatBackward0", _repeat_backward, tensor)
    if node is not None:
        node.context = (tensor.shape, times)
    shape = tuple([length * count for length, count in zip(tensor.shape, times, strict=True)])
    output = empty(trace, shape, tensor.dtype, "aten::repeat")
    if not trace.backend.cuda and trace.backend.torch >= (2, 10):
        first = empty(trace, (rank,), "int64", "aten::arange")
        offset = number(first, rank)
        second = empty(trace, (rank,), "int64", "aten::add")
        del offset
        empty(trace, (2 * rank,), "int64", "aten::cat")
        del first, second
    return attach(output, node)


def _repeat_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """repeat_backward (torch/csrc/autograd/FunctionsManual.cpp): the copies side by side, and summed."""
    shape, times = node.context
    for axis, count in enumerate(times):
        if count != 1:
            apart = (*shape[:axis], count, shape[axis], *gradient.shape[axis + 1 :])
            gradient = total(reshape(gradient, apart), axis)
    return (gradient,)
