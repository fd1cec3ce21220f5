"""torch.nn.functional.linear (aten/src/ATen/native/Linear.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.views import contiguous, view_of


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] with weight [out, in] -> [..., out]. Saves x (for the weight's gradient) and the weight (for x's).

    Inputs of rank 3 are flattened, a view; the weight's transposition is a view too and left out of the graph here:
    its gradient comes back in the weight's own layout (mm_mat2_backward in torch/csrc/autograd/FunctionsManual.cpp).
    """
    dtype = x.trace.autocast_dtype
    if dtype is not None:
        # The arguments are cast last to first: the order in which C++ compilers evaluate them.
        bias = None if bias is None else cached_cast(bias, dtype)
        weight = cached_cast(weight, dtype)
        x = to(x, dtype)
    if len(x.shape) > 2:
        x = contiguous(x)  # two dimensions are multiplied as they lie
    name = "MmBackward0" if bias is None else "AddmmBackward0"
    node = make_node(name, _mm_backward if bias is None else _addmm_backward, bias, x, weight)
    if node is not None:
        if node.wants(2):
            node.save(x)
        if node.wants(1):
            node.save(weight)
    shape = (*x.shape[:-1], weight.shape[0])
    return attach(empty(x.trace, shape, x.dtype, "aten::mm" if bias is None else "aten::addmm"), node)


def _input_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(1):
        return None
    product = empty(gradient.trace, (*gradient.shape[:-1], saved[-1].shape[1]), gradient.dtype, "aten::mm")
    return product if len(product.shape) == 2 else view_of(product, product.shape, None)  # through the flattening


def _weight_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(2):
        return None
    product = empty(gradient.trace, (gradient.shape[-1], saved[0].shape[-1]), gradient.dtype, "aten::mm")
    return view_of(product, product.shape, None)  # it comes back through the transposition, a view


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
    """The gradient as a matrix the product takes: rows or columns without gaps, else a copy."""
    if gradient.strides is None or (len(gradient.shape) == 2 and 1 in gradient.strides and 0 not in gradient.strides):
        return gradient
    return contiguous(gradient)


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
