"""Dropout (aten/src/ATen/native/Dropout.cpp; cuda/Dropout.cu)."""

from __future__ import annotations

from memplan.ops.activation import one_gradient
from memplan.ops.autograd import attach, make_node
from memplan.ops.elementwise import in_place, mul
from memplan.ops.tensor import Tensor, empty, result_layout


def dropout(x: Tensor, probability: float) -> Tensor:
    """Dropout in training, shaped as x; with probability 0 the input itself comes back.

    The CPU draws a noise tensor in the input's dtype and multiplies by it, so the noise is saved. CUDA has one kernel
    for both, which saves a mask of one byte an element.
    """
    if probability == 0.0:
        return x
    if x.trace.backend.cuda and probability < 1.0:
        return _native_dropout(x)
    noise = empty(x.trace, x.shape, x.dtype, "aten::dropout")
    if x.trace.backend.draws_integer_noise:
        empty(x.trace, x.shape, "int32", "aten::bernoulli_")
    in_place(noise, 1.0 - probability)
    return mul(x, noise)


def _native_dropout(x: Tensor) -> Tensor:
    node = make_node("NativeDropoutBackward0", one_gradient, x)
    strides = result_layout(x.shape, (x,))
    mask = empty(x.trace, x.shape, "bool", "aten::native_dropout", strides)
    output = empty(x.trace, x.shape, x.dtype, "aten::native_dropout", strides)
    if node is not None:
        node.context = "aten::native_dropout_backward"
        node.save(mask)
    return attach(output, node)
