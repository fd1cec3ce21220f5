"""Differences, limits and largest elements, with their gradients (tools/autograd/derivatives.yaml)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import number, pointwise
from memplan.ops.reduction import take_buffers
from memplan.ops.routing import only_on_cpu, selection_backward
from memplan.ops.tensor import Tensor, empty, result_layout
from memplan.ops.views import view_of


def minus(left: Tensor, right: Tensor) -> Tensor:
    """left - right. Saves nothing."""
    node = make_node("SubBackward0", _minus_backward, left, right)
    return attach(pointwise("aten::sub", (left, right)), node)


def _minus_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient, pointwise("aten::neg", (gradient,)) if node.wants(1) else None)


def clamp(x: Tensor, least: float | None, most: float | None) -> Tensor:
    """x within limits (aten/src/ATen/native/TensorCompare.cpp). Saves its input."""
    node = make_node("ClampBackward1", _clamp_backward, x)
    if node is not None:
        node.context = tuple(limit for limit in (least, most) if limit is not None)
        node.save(x)
    return attach(pointwise("aten::clamp", (x,)), node)


def _clamp_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """clamp_backward (torch/csrc/autograd/FunctionsManual.cpp): a mask for each limit, all of them alive at the end."""
    trace, shape = gradient.trace, gradient.shape
    zero = empty(trace, (), gradient.dtype, "aten::scalar_tensor")
    within = [pointwise("aten::le", (saved[0], number(saved[0], limit)), "bool") for limit in node.context]
    clamped = empty(trace, shape, gradient.dtype, "aten::where", result_layout(shape, (within[0], gradient)))
    del within, zero
    return (clamped,)


def largest(x: Tensor) -> Tensor:
    """x.max(-1, keepdim=True).values. Saves where they are."""
    only_on_cpu(x.trace)
    node = make_node("MaxBackward0", selection_backward, x)
    shape = (*x.shape[:-1], 1)
    values = empty(x.trace, shape, x.dtype, "aten::max")
    indices = empty(x.trace, shape, "int64", "aten::max")
    if node is not None:
        node.context = x.shape
        node.save(indices)
    return attach(values, node)


def amax(x: Tensor) -> Tensor:
    """x.amax(-1, keepdim=True), outside the graph."""
    output = empty(x.trace, (*x.shape[:-1], 1), x.dtype, "aten::amax")
    if x.trace.backend.cuda:
        take_buffers(x.trace, x.shape, x.full_strides(), (len(x.shape) - 1,), x.dtype, x.dtype)
    return output


def every_second(x: Tensor) -> Tensor:
    """x[..., ::2], or the others, of an even number: a view. The gradient is a zero tensor of the input's size with
    every second element filled (slice_backward)."""
    node = make_node("SliceBackward0", _zeros_backward, x)
    if node is not None:
        node.context = x.shape
    *strides, step = x.full_strides()
    return view_of(x, (*x.shape[:-1], x.shape[-1] // 2), (*strides, 2 * step), node)


def _zeros_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (empty(gradient.trace, node.context, gradient.dtype, "aten::zeros"),)
