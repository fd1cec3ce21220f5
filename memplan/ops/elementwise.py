"""Pointwise operations, reductions and casts.

On the CPU, TensorIterator casts operands of another dtype into temporaries before it runs
(aten/src/ATen/TensorIterator.cpp, compute_types), and a Python number becomes an 8-byte tensor first
(torch/csrc/utils/python_arg_parser.h). Both are alive next to the output, so they are recorded. On CUDA neither takes
memory of the device.

Gradient formulas and what they save: tools/autograd/derivatives.yaml. Where a node has several gradients, the generated
code computes them in the alphabetical order of their arguments' names (`other` before `self`).
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops import layout
from memplan.ops.autograd import Gradients, Node, Saved, attach, make_node
from memplan.ops.layout import Shape
from memplan.ops.reduction import take_buffers
from memplan.ops.tensor import Number, Storage, Tensor, empty, result_layout

Operand = Tensor | float


def number(like: Tensor, value: float) -> Number:
    """The 8-byte tensor a Python number is wrapped in. It lies in host memory, also where `like` is on a GPU."""
    trace, dtype = like.trace, "fp64" if isinstance(value, float) else "int64"
    allocation = None if trace.backend.cuda else trace.allocate((), dtype, "aten::scalar_tensor")
    return Number(Storage(trace, allocation), (), dtype)


def common_dtype(operands: Sequence[Tensor]) -> str:
    """Type promotion: the widest dtype among the operands that have dimensions; those of rank 0 count only where none
    has, and wrapped numbers where nothing else is there."""
    best = ""
    for operand in operands:
        if operand.shape and (not best or _RANK[operand.dtype] > _RANK[best]):
            best = operand.dtype
    if not best:
        for operand in operands:
            if not isinstance(operand, Number) and (not best or _RANK[operand.dtype] > _RANK[best]):
                best = operand.dtype
    return best or operands[0].dtype


_RANK = {
    "bool": 0, "uint8": 1, "int8": 1, "int32": 2, "int64": 3, "bf16": 4, "fp16": 4, "fp32": 5, "fp64": 6,
    "complex64": 7,
}  # fmt: skip


def pointwise(operation: str, operands: Sequence[Tensor], dtype: str | None = None) -> Tensor:
    """The forward part of any pointwise operation: casts, output. `dtype` is the output's, where not the common one."""
    common = common_dtype(operands)
    casts = []
    if not operands[0].trace.backend.cuda:  # CUDA kernels cast as they load (aten/src/ATen/native/cuda/CUDALoops.cuh)
        casts = [empty(each.trace, each.shape, common, "aten::to") for each in operands if each.dtype != common]
    shape = operands[0].shape
    for operand in operands:
        if operand.shape != shape:
            shape = layout.broadcast_shape(shape, operand.shape)
    output = empty(operands[0].trace, shape, dtype or common, operation, result_layout(shape, operands))
    del casts
    return output


def in_place(target: Tensor, value: float) -> None:
    """An in-place pointwise operation with a number: only the number's wrapper and its cast are allocated."""
    trace, dtype = target.trace, "fp64" if isinstance(value, float) else "int64"
    if trace.backend.cuda:
        return
    wrapper = trace.allocate((), dtype, "aten::scalar_tensor")
    if dtype != target.dtype:
        trace.free(trace.allocate((), target.dtype, "aten::to"))
    trace.free(wrapper)


def add(left: Tensor, right: Operand) -> Tensor:
    """left + right. Saves nothing."""
    wrapped = right if isinstance(right, Tensor) else number(left, right)
    node = make_node("AddBackward0", _add_backward, left, wrapped)
    return attach(pointwise("aten::add", (left, wrapped)), node)


def _add_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (gradient, gradient)


def subtract(left: Tensor, right: Operand) -> Tensor:
    """left - right, for tensors outside the graph."""
    wrapped = right if isinstance(right, Tensor) else number(left, right)
    return pointwise("aten::sub", (left, wrapped))


def mul(left: Tensor, right: Operand) -> Tensor:
    """left * right. Saves each operand the other one's gradient needs."""
    wrapped = right if isinstance(right, Tensor) else number(left, right)
    node = make_node("MulBackward0", _mul_backward, left, wrapped)
    if node is not None:
        node.context = (left.dtype, wrapped.dtype)
        if node.wants(0):
            node.save(wrapped)
        if node.wants(1):
            node.save(left)
    return attach(pointwise("aten::mul", (left, wrapped)), node)


def _mul_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    to_left: Tensor | None = None
    to_right: Tensor | None = None
    if node.wants(1):
        to_right = pointwise("aten::mul", (gradient, saved[-1]))
    if node.wants(0):
        to_left = pointwise("aten::mul", (gradient, saved[0]))
    return (to_left, to_right)


def scale(tensor: Tensor, value: float) -> Tensor:
    """tensor * value as C++ writes it: the number is kept as such, not as a tensor (mul.Scalar)."""
    node = make_node("MulBackward1", _scale_backward, tensor)
    if node is not None:
        node.context = value
    return attach(pointwise("aten::mul", (tensor, number(tensor, value))), node)


def _scale_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (pointwise("aten::mul", (gradient, number(gradient, node.context))),)


def div(left: Tensor, right: Operand) -> Tensor:
    """left / right for a right side that is not trained."""
    wrapped = right if isinstance(right, Tensor) else number(left, right)
    node = make_node("DivBackward0", _div_backward, left, wrapped)
    if node is not None:
        node.save(wrapped)
    return attach(pointwise("aten::div", (left, wrapped)), node)


def _div_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (pointwise("aten::div", (gradient, saved[0])), None)


def div_in_place(tensor: Tensor, value: float) -> Tensor:
    """tensor /= value: the same memory, with the number kept for the gradient."""
    wrapped = number(tensor, value)
    node = make_node("DivBackward0", _div_backward, tensor, wrapped)
    if node is not None:
        node.save(wrapped)
    if tensor.dtype != wrapped.dtype and not tensor.trace.backend.cuda:
        empty(tensor.trace, (), tensor.dtype, "aten::to")
    return attach(tensor.alias(), node)


def neg(tensor: Tensor) -> Tensor:
    """-tensor. Saves nothing."""
    node = make_node("NegBackward0", _neg_backward, tensor)
    return attach(pointwise("aten::neg", (tensor,)), node)


def _neg_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (pointwise("aten::neg", (gradient,)),)


def square(tensor: Tensor) -> Tensor:
    """tensor.pow(2). Saves its input."""
    return power(tensor, 2.0)


def power(tensor: Tensor, exponent: float) -> Tensor:
    """tensor.pow(exponent), for an exponent other than 0 and 1. Saves its input."""
    node = make_node("PowBackward0", _power_backward, tensor)
    if node is not None:
        node.save(tensor)
        node.context = exponent
    return attach(pointwise("aten::pow", (tensor,)), node)


def _power_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    lower = pointwise("aten::pow", (saved[0],))
    scaled = pointwise("aten::mul", (lower, number(lower, node.context)))
    return (pointwise("aten::mul", (gradient, scaled)),)


def rsqrt(tensor: Tensor) -> Tensor:
    """1 / sqrt(tensor). Saves its result."""
    node = make_node("RsqrtBackward0", _rsqrt_backward, tensor)
    output = pointwise("aten::rsqrt", (tensor,))
    if node is not None:
        node.save(output)
    return attach(output, node)


def _rsqrt_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    cube = pointwise("aten::pow", (saved[0],))
    scaled = pointwise("aten::mul", (gradient, number(gradient, -0.5)))
    return (pointwise("aten::mul", (scaled, cube)),)


def function(operation: str, tensor: Tensor, dtype: str | None = None) -> Tensor:
    """A pointwise function outside the graph: cos, sin, exp, ..."""
    return pointwise(operation, (tensor,), dtype)


def mean(tensor: Tensor, axis: int, keepdim: bool = False) -> Tensor:
    """Mean over one dimension. On the CPU a sum that is then divided in place; half-precision inputs are summed in fp32
    (aten/src/ATen/native/ReduceOps.cpp, mean). CUDA has a kernel of its own."""
    axis %= len(tensor.shape)
    node = make_node("MeanBackward1", _mean_backward, tensor)
    if node is not None:
        node.context = tensor.shape
    shape = tensor.shape[:axis] + ((1,) if keepdim else ()) + tensor.shape[axis + 1 :]
    output = empty(tensor.trace, shape, tensor.dtype, "aten::mean")
    if tensor.trace.backend.cuda:
        take_buffers(tensor.trace, tensor.shape, tensor.full_strides(), (axis,), tensor.dtype, tensor.dtype, True)
        return attach(output, node)
    wide = output
    if tensor.dtype != "fp32":
        wide = empty(tensor.trace, shape, "fp32", "aten::to")
        empty(tensor.trace, tensor.shape, "fp32", "aten::to")
    in_place(wide, tensor.shape[axis])
    return attach(output, node)


def _mean_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    shape: Shape = node.context
    count = number(gradient, 1)
    cast = None if gradient.trace.backend.cuda else empty(gradient.trace, (), gradient.dtype, "aten::to")
    output = empty(gradient.trace, shape, gradient.dtype, "aten::div")
    del cast, count
    return (output,)


def total(tensor: Tensor, axis: int, keepdim: bool = False) -> Tensor:
    """Sum over one dimension. CUDA's autocast sums in fp32 (aten/src/ATen/autocast_mode.h)."""
    axis %= len(tensor.shape)
    node = make_node("SumBackward1", _sum_backward, tensor)
    if node is not None:
        node.context = (tensor.shape, axis, keepdim)
    shape = tensor.shape[:axis] + ((1,) if keepdim else ()) + tensor.shape[axis + 1 :]
    trace, dtype = tensor.trace, "int64" if tensor.dtype == "bool" else tensor.dtype
    if not trace.backend.cuda:
        return attach(empty(trace, shape, dtype, "aten::sum"), node)
    if trace.autocast_dtype is not None and dtype != "int64":
        dtype = "fp32"  # the sum is asked for in fp32, and the kernel casts as it loads
    output = empty(trace, shape, dtype, "aten::sum")
    take_buffers(trace, tensor.shape, tensor.full_strides(), (axis,), tensor.dtype, dtype)
    return attach(output, node)


def _sum_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    """The gradient is expanded, a view with stride 0 (it is copied only where somebody needs it whole)."""
    shape, axis, keepdim = node.context
    strides = list(gradient.full_strides())
    if keepdim:
        strides[axis] = 0
    else:
        strides.insert(axis, 0)
    contiguous = layout.is_contiguous(shape, tuple(strides))
    expanded = Tensor(gradient.storage, shape, gradient.dtype, None if contiguous else tuple(strides))
    expanded.base = gradient
    return (expanded,)


def to(tensor: Tensor, dtype: str) -> Tensor:
    """A cast; the tensor itself where it already has the dtype."""
    if tensor.dtype == dtype:
        return tensor
    node = make_node("ToCopyBackward0", _to_backward, tensor)
    if node is not None:
        node.context = tensor.dtype
    strides = tensor.strides
    if strides is not None and not layout.is_dense(tensor.shape, strides):
        strides = result_layout(tensor.shape, (tensor,))
    return attach(empty(tensor.trace, tensor.shape, dtype, "aten::to", strides), node)


def _to_backward(node: Node, gradient: Tensor, saved: Saved) -> Gradients:
    return (to(gradient, node.context),)


def arange(like: Tensor, length: int, dtype: str = "int64") -> Tensor:
    """torch.arange(length)."""
    return empty(like.trace, (length,), dtype, "aten::arange")
