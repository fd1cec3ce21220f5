"""Norms of whole tensors and along a dimension, outside the graph, and what is made of them.

Sources: aten/src/ATen/native/LinearAlgebra.cpp (linalg_vector_norm), torch/nn/utils/clip_grad.py,
aten/src/ATen/native/ForeachOpsKernels.cpp (the CPU's _foreach_norm, one norm after another) and
cuda/ForeachReduceOp.cu (foreach_tensor_norm_cuda, sums of 65,536 elements each for all tensors at once).
"""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ops.elementwise import function, number, pointwise
from memplan.ops.layout import Shape
from memplan.ops.reduction import take_buffers
from memplan.ops.tensor import Parameter, Tensor, empty
from memplan.ops.trace import Trace

_CHUNK = 65_536


def vector_norm(tensor: Tensor, axis: int | None = None) -> Tensor:
    """The norm of all elements, or along one dimension, which stays with length 1."""
    trace, shape = tensor.trace, tensor.shape
    kept: Shape = ()
    axes = range(len(shape))
    if axis is not None:
        axis %= len(shape)
        axes, kept = range(axis, axis + 1), (*shape[:axis], 1, *shape[axis + 1 :])
    output = empty(trace, kept, tensor.dtype, "aten::linalg_vector_norm")
    if trace.backend.cuda:
        take_buffers(trace, shape, tensor.full_strides(), axes, tensor.dtype, tensor.dtype)
    return output


def clip_grad_norm(trace: Trace, parameters: Sequence[Parameter], name: str = "clip_grad_norm_") -> None:
    """torch.nn.utils.clip_grad_norm_, which takes the foreach operations on both devices. Its result is dropped."""
    clipped = [parameter for parameter in parameters if parameter.grad is not None]
    if not clipped:
        return
    trace.module = name
    count = sum(1 if parameter.repeat is None else parameter.repeat.copies for parameter in clipped)
    chunks = None
    if trace.backend.cuda:
        most = max(-(-_elements(parameter) // _CHUNK) for parameter in clipped)
        chunks = empty(trace, (count * most,), "fp32", "aten::_foreach_norm")
    norms: list[Tensor] = []
    for parameter in clipped:
        trace.enter_repeat(parameter.repeat)
        assert parameter.grad is not None
        norms.append(empty(trace, (), parameter.grad.dtype, "aten::_foreach_norm"))
    trace.enter_repeat(None)
    del chunks
    stacked = empty(trace, (count,), norms[0].dtype, "aten::stack")
    total = vector_norm(stacked)
    del stacked
    norms.reverse()
    for parameter in clipped:
        trace.enter_repeat(parameter.repeat)
        norms.pop()
    trace.enter_repeat(None)
    coefficient = _over(1.0, pointwise("aten::add", (total, number(total, 1e-6))))
    function("aten::clamp", coefficient)
    trace.module = ""


def _over(value: float, tensor: Tensor) -> Tensor:
    """value / tensor (torch/_tensor.py, __rdiv__)."""
    inverse = function("aten::reciprocal", tensor)
    return pointwise("aten::mul", (inverse, number(inverse, value)))


def _elements(parameter: Parameter) -> int:
    count = 1
    for length in parameter.shape:
        count *= length
    return count
