"""Copies that move elements: torch.roll, padding, and writing into rows by their numbers. Outside the graph."""

from __future__ import annotations

from memplan.ops.tensor import Tensor, empty


def pad(x: Tensor, length: int) -> Tensor:
    """x with its last dimension filled up to `length` with zeros (aten/src/ATen/native/PadNd.cpp, constant_pad_nd)."""
    return empty(x.trace, (*x.shape[:-1], length), x.dtype, "aten::constant_pad_nd")


def roll(x: Tensor) -> Tensor:
    """x moved along one dimension. The CPU joins two slices (aten/src/ATen/native/TensorTransformations.cpp), CUDA has
    a kernel (cuda/TensorTransformations.cu): both make one copy."""
    return empty(x.trace, x.shape, x.dtype, "aten::roll" if x.trace.backend.cuda else "aten::cat")


def take(x: Tensor, axis: int, numbers: Tensor) -> Tensor:
    """x.index_select(axis, numbers) (aten/src/ATen/native/TensorAdvancedIndexing.cpp)."""
    return empty(x.trace, (*x.shape[:axis], *numbers.shape, *x.shape[axis + 1 :]), x.dtype, "aten::index_select")
