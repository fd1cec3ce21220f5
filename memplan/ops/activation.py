"""Activation functions (aten/src/ATen/native/Activation.cpp). One output each; the backward pass makes one gradient."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.tensor import Tensor, empty, result_layout


def gelu(x: Tensor) -> Tensor:
    """GELU, exact or with the tanh approximation: both are one kernel. Saves its input."""
    return _saves_input(x, "aten::gelu", "GeluBackward0")


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x). Saves its input."""
    return _saves_input(x, "aten::silu", "SiluBackward0")


def relu(x: Tensor) -> Tensor:
    """max(x, 0). Saves its result."""
    return _saves_result(x, "aten::relu", "ReluBackward0")


def tanh(x: Tensor) -> Tensor:
    """Saves its result."""
    return _saves_result(x, "aten::tanh", "TanhBackward0")


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension, in the dtype of x. Saves its result (aten/src/ATen/native/SoftMax.cpp)."""
    return _saves_result(x, "aten::softmax", "SoftmaxBackward0")


def _saves_input(x: Tensor, operation: str, name: str) -> Tensor:
    node = make_node(name, one_gradient, x)
    if node is not None:
        node.context = operation + "_backward"
        node.save(x)
    return attach(empty(x.trace, x.shape, x.dtype, operation, result_layout(x.shape, (x,))), node)


def _saves_result(x: Tensor, operation: str, name: str) -> Tensor:
    node = make_node(name, one_gradient, x)
    output = empty(x.trace, x.shape, x.dtype, operation, result_layout(x.shape, (x,)))
    if node is not None:
        node.context = operation + "_backward"
        node.save(output)
    return attach(output, node)


def one_gradient(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """A fresh gradient laid out as the incoming one; `node.context` names the operation that makes it."""
    return (empty(gradient.trace, gradient.shape, gradient.dtype, node.context, gradient.strides),)
