"""Activation functions (aten/src/ATen/native/Activation.cpp). One output each; the backward pass makes one gradient."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
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


def sigmoid(x: Tensor) -> Tensor:
    """Saves its result."""
    return _saves_result(x, "aten::sigmoid", "SigmoidBackward0")


def softmax(x: Tensor, dtype: str | None = None) -> Tensor:
    """Softmax over the last dimension, in the dtype of x or in `dtype`, under CUDA's autocast in fp32. Saves its result
    (aten/src/ATen/native/SoftMax.cpp, cuda/SoftMax.cu). On CUDA one kernel reads fp16 and writes fp32."""
    if dtype is not None and dtype != x.dtype:
        if x.trace.backend.cuda and x.dtype == "fp16":
            return _widening_softmax(x, dtype)
        x = to(x, dtype)
    if not x.trace.backend.cuda:
        return _softmax_on_cpu(x)
    dtype = x.dtype
    if x.trace.autocast_dtype is not None:
        if x.dtype != "fp16":  # the kernel reads fp16 and writes fp32 itself
            x = to(x, "fp32")
        dtype = "fp32"
    node = make_node("SoftmaxBackward0", _softmax_backward, x)
    output = empty(x.trace, x.shape, dtype, "aten::softmax")
    if node is not None:
        node.context = x.dtype
        node.save(output)
    return attach(output, node)


def _softmax_on_cpu(x: Tensor) -> Tensor:
    """Row-major, whatever the input is, which is copied where it is not."""
    node = make_node("SoftmaxBackward0", one_gradient, x)
    output = empty(x.trace, x.shape, x.dtype, "aten::softmax")
    if x.strides is not None:
        empty(x.trace, x.shape, x.dtype, "aten::clone")
    if node is not None:
        node.context = "aten::softmax_backward"
        node.save(output)
    return attach(output, node)


def _widening_softmax(x: Tensor, dtype: str) -> Tensor:
    node = make_node("SoftmaxBackward0", _softmax_backward, x)
    output = empty(x.trace, x.shape, dtype, "aten::softmax")
    if node is not None:
        node.context = x.dtype
        node.save(output)
    return attach(output, node)


def _softmax_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """CUDA multiplies gradient and result out first: one more tensor of the scores' size than on the CPU."""
    to_input = empty(gradient.trace, gradient.shape, node.context, "aten::_softmax_backward_data")
    empty(gradient.trace, gradient.shape, saved[0].dtype, "aten::_softmax_backward_data")
    return (to_input,)


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
