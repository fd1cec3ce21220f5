"""torch.nn.functional.linear (aten/src/ATen/native/Linear.cpp)."""

from __future__ import annotations

from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.elementwise import to
from memplan.ops.size import product
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.views import contiguous, reshape, view_of
from memplan.ops.workspaces import fuses_bias, take_workspaces


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] with weight [out, in] -> [..., out]. Saves x (for the weight's gradient) and the weight (for x's).

    Inputs of rank 3 are flattened, the weight is transposed and the output unflattened: views with nodes of their own,
    which decide when each gradient is taken up.
    """
    dtype = x.trace.autocast_dtype
    if dtype is not None:
        # The arguments are cast last to first: the order in which C++ compilers evaluate them.
        bias = None if bias is None else cached_cast(bias, dtype)
        weight = cached_cast(weight, dtype)
        x = cached_cast(x, dtype)
    if len(x.shape) == 2:
        return _product(x, _transposed(weight), bias)
    rows, shape = product(x.shape[:-1]), (*x.shape[:-1], weight.shape[0])
    if bias is None:  # matmul: the weight is transposed before the input is flattened, so its gradient waits longer
        weight = _transposed(weight)
        return reshape(_product(reshape(x, (rows, x.shape[-1])), weight, None), shape)
    flat = reshape(x, (rows, x.shape[-1]))
    return reshape(_product(flat, _transposed(weight), bias), shape)


def _transposed(weight: Tensor) -> Tensor:
    """The view weight.t(); kept as [out, in] here, since its gradient comes back in the weight's own layout
    (mm_mat2_backward in torch/csrc/autograd/FunctionsManual.cpp)."""
    return view_of(weight, weight.shape, None, make_node("TBackward0", _transposed_backward, weight))


def _transposed_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (view_of(gradient, gradient.shape, None),)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    name = "MmBackward0" if bias is None else "AddmmBackward0"
    node = make_node(name, _mm_backward if bias is None else _addmm_backward, bias, x, weight)
    if node is not None:
        if node.wants(2):
            node.save(x)
        if node.wants(1):
            node.save(weight)
    shape = (x.shape[0], weight.shape[0])
    output = empty(x.trace, shape, x.dtype, "aten::mm" if bias is None else "aten::addmm")
    if x.trace.backend.cuda:
        take_workspaces(x.trace, bias is not None and fuses_bias(x.trace.backend, x.shape[0], weight.shape))
    return attach(output, node)


def multiplied(x: Tensor, weight: Tensor) -> Tensor:
    """x [rows, n] @ weight [n, m], outside the graph."""
    x = _multipliable(x)
    output = empty(x.trace, (x.shape[0], weight.shape[1]), x.dtype, "aten::mm")
    take_workspaces(x.trace)
    return output


def _input_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(1):
        return None
    fresh = empty(gradient.trace, (gradient.shape[0], saved[-1].shape[1]), gradient.dtype, "aten::mm")
    take_workspaces(gradient.trace)
    # An input of one element counts as column-major: its gradient comes transposed, as a view (mm_mat1_backward).
    return view_of(fresh, fresh.shape, None) if fresh.shape == (1, 1) else fresh


def _weight_gradient(node: Node, gradient: Tensor, saved: Saved) -> Tensor | None:
    if not node.wants(2):
        return None
    output = empty(gradient.trace, (gradient.shape[-1], saved[0].shape[-1]), gradient.dtype, "aten::mm")
    take_workspaces(gradient.trace)
    return output


def _mm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    gradient = _multipliable(gradient)
    to_weight = _weight_gradient(node, gradient, saved)
    return (None, _input_gradient(node, gradient, saved), to_weight)


def _addmm_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The bias gets the gradient itself, which is then summed to its shape."""
    if node.wants(1) or node.wants(2):
        gradient = _multipliable(gradient)
    to_input = _input_gradient(node, gradient, saved)
    return (gradient, to_input, _weight_gradient(node, gradient, saved))


def _multipliable(gradient: Tensor) -> Tensor:
    """The gradient as the product takes it: rows or columns without gaps, else copied."""
    strides = gradient.strides
    return gradient if strides is None or (1 in strides and 0 not in strides) else contiguous(gradient)


def cached_cast(parameter: Tensor, dtype: str) -> Tensor:
    """Autocast's cast of a weight, once per forward pass where it is an fp32 weight that is trained
    (aten/src/ATen/autocast_mode.cpp, cached_cast), else at each use."""
    if parameter.dtype == dtype:
        return parameter
    if not isinstance(parameter, Parameter) or not parameter.requires_grad or parameter.dtype != "fp32":
        return to(parameter, dtype)
    cache = parameter.trace.autocast_cache
    cast = cache.get(parameter)
    if cast is None:
        cast = cache[parameter] = to(parameter, dtype)
    return cast
