"""torch.nn.functional.linear (aten/src/ATen/native/Linear.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.layout import view_strides
from memplan.ops.size import product
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.views import contiguous, reshape, view_of


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] with weight [out, in] -> [..., out]. Saves x (for the weight's gradient) and the weight (for x's).

    Inputs of rank 3 are flattened first, a view with a node of its own; the weight's transposition is a view too and left out of the graph here:
    its gradient comes back in the weight's own layout (mm_mat2_backward in torch/csrc/autograd/FunctionsManual.cpp).
    """
    dtype = x.trace.autocast_dtype
    if dtype is not None:
        # The arguments are cast last to first: the order in which C++ compilers evaluate them.
        bias = None if bias is None else cached_cast(bias, dtype)
        weight = cached_cast(weight, dtype)
        x = to(x, dtype)
    shape = (*x.shape[:-1], weight.shape[0])
    if len(x.shape) > 2:
        x = reshape(x, (product(x.shape[:-1]), x.shape[-1]))
    name = "MmBackward0" if bias is None else "AddmmBackward0"
    node = make_node(name, _mm_backward if bias is None else _addmm_backward, bias, x, weight)
    if node is not None:
        if node.wants(2):
            node.save(x)
        if node.wants(1):
            node.save(weight)
    return attach(empty(x.trace, shape, x.dtype, "aten::mm" if bias is None else "aten::addmm"), node)


def _input_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(1):
        return None
    rows = gradient.shape[0] if len(gradient.shape) == 2 else product(gradient.shape[:-1])
    return empty(gradient.trace, (rows, saved[-1].shape[1]), gradient.dtype, "aten::mm")


def _weight_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(2):
        return None
    fresh = empty(gradient.trace, (gradient.shape[-1], saved[0].shape[-1]), gradient.dtype, "aten::mm")
    return view_of(fresh, fresh.shape, None)  # it comes back through the transposition, a view


def _mm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    gradient = _multipliable(gradient)
    to_weight = _weight_gradient(node, gradient, saved)
    return (None, _input_gradient(node, gradient, saved), to_weight)


def _addmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The bias gets the gradient itself, which is then summed to its shape."""
    gradient = _multipliable(gradient)
    to_input = _input_gradient(node, gradient, saved)
    return (gradient, to_input, _weight_gradient(node, gradient, saved))


def _multipliable(gradient: Tensor) -> Tensor:
    """The gradient as the product takes it: flattened to a matrix whose rows or columns have no gaps, else copied."""
    if gradient.strides is None:
        return gradient
    rows = 1
    for size in gradient.shape[:-1]:
        rows *= size
    strides = view_strides(gradient.shape, gradient.strides, (rows, gradient.shape[-1]))
    return gradient if strides is not None and 1 in strides and 0 not in strides else contiguous(gradient)


def cached_cast(parameter: Tensor, dtype: str) -> Tensor:
    """Autocast's cast of a weight, once per forward pass (aten/src/ATen/autocast_mode.cpp, cached_cast)."""
    if parameter.dtype == dtype:
        return parameter
    if not isinstance(parameter, Parameter):
        return to(parameter, dtype)
    cache = parameter.trace.autocast_cache
    cast = cache.get(parameter)
    if cast is None:
        cast = cache[parameter] = to(parameter, dtype)
    return cast
