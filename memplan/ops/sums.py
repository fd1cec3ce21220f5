"""Reductions outside the graph (aten/src/ATen/native/ReduceOps.cpp, TensorIteratorReduce.cpp)."""

from __future__ import annotations

from memplan.ops.reduction import take_buffers
from memplan.ops.tensor import Tensor, empty

_GRAIN = 32768
"""Elements from which on the CPU sums in several threads (aten/src/ATen/TensorIterator.h, GRAIN_SIZE)."""


def largest(tensor: Tensor) -> Tensor:
    """tensor.amax(dim=-1, keepdim=True)."""
    output = empty(tensor.trace, (*tensor.shape[:-1], 1), tensor.dtype, "aten::amax")
    if tensor.trace.backend.cuda:
        axis = len(tensor.shape) - 1
        take_buffers(tensor.trace, tensor.shape, tensor.full_strides(), (axis,), tensor.dtype, tensor.dtype)
    return output


def sum_of_all(tensor: Tensor) -> Tensor:
    """tensor.sum(): booleans are counted. On the CPU they are cast to whole numbers first, and each thread has a sum of
    its own."""
    trace = tensor.trace
    dtype = "int64" if tensor.dtype == "bool" else tensor.dtype
    output = empty(trace, (), dtype, "aten::sum")
    if trace.backend.cuda:
        axes = range(len(tensor.shape))
        take_buffers(trace, tensor.shape, tensor.full_strides(), axes, tensor.dtype, dtype)
        return output
    cast = None if tensor.dtype == dtype else empty(trace, tensor.shape, dtype, "aten::to")
    elements = 1
    for size in tensor.shape:
        elements *= size
    if elements >= _GRAIN and trace.backend.threads > 1:
        trace.free(trace.allocate((trace.backend.threads,), dtype, "sum of each thread"))
    del cast
    return output
