"""Complex numbers: pairs of fp32 that a rotation multiplies (aten/src/ATen/native/ComplexHelper.h)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import pointwise
from memplan.ops.tensor import Tensor, empty, result_layout
from memplan.ops.views import contiguous, view_of

COMPLEX = "complex64"


def polar(lengths: Tensor, angles: Tensor) -> Tensor:
    """torch.polar, outside the graph."""
    return pointwise("aten::polar", (lengths, angles), COMPLEX)


def view_as_complex(x: Tensor) -> Tensor:
    """[..., 2] in fp32 as [...]: the same memory."""
    node = make_node("ViewAsComplexBackward0", _real_backward, x)
    strides = tuple([stride // 2 for stride in x.full_strides()[:-1]])
    return attach(_as(x, x.shape[:-1], strides, COMPLEX), node)


def view_as_real(x: Tensor) -> Tensor:
    """[...] as [..., 2] in fp32: the same memory."""
    node = make_node("ViewAsRealBackward0", _complex_backward, x)
    strides = (*[2 * stride for stride in x.full_strides()], 1)
    return attach(_as(x, (*x.shape, 2), strides, "fp32"), node)


def _as(x: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> Tensor:
    view = view_of(x, shape, strides)
    view.dtype = dtype
    return view


def _real_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (view_as_real(contiguous(gradient)),)


def _complex_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (view_as_complex(contiguous(gradient)),)


def turn(x: Tensor, by: Tensor) -> Tensor:
    """x * by, with a `by` that is not trained. Saves `by`: the gradient is multiplied by its conjugate, which is
    written out for that (mul_tensor_backward in torch/csrc/autograd/FunctionsManual.cpp)."""
    node = make_node("MulBackward0", _turn_backward, x)
    if node is not None:
        node.save(by)
    return attach(pointwise("aten::mul", (x, by)), node)


def _turn_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    by = saved[0]
    conjugate = empty(by.trace, by.shape, by.dtype, "aten::conj_physical", result_layout(by.shape, (by,)))
    turned = pointwise("aten::mul", (gradient, conjugate))
    del conjugate
    return (turned,)
