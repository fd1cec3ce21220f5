"""Strides: which views need no copy, and how the output of an elementwise operation is laid out.

Strides are counted in elements. `None` stands for "contiguous" wherever strides are passed.

The layers of a stack, and forward and backward pass, ask for the same few layouts again and again, so answers are kept.
What is kept must not carry shapes: equal sizes may have different names (`Size`).
"""

from __future__ import annotations

from functools import lru_cache

Shape = tuple[int, ...]
Strides = tuple[int, ...]

_keep = lru_cache(maxsize=1024)


@_keep
def contiguous_strides(shape: Shape) -> Strides:
    """Row-major strides of `shape`; a dimension of size 0 counts as 1 (c10/core/TensorImpl.h)."""
    strides = [0] * len(shape)
    step = 1
    for axis in range(len(shape) - 1, -1, -1):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


@_keep
def is_contiguous(shape: Shape, strides: Strides) -> bool:
    """Whether elements lie in row-major order without gaps; dimensions of size 1 may have any stride."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != step:
                return False
            step *= size
    return True


def is_dense(shape: Shape, strides: Strides) -> bool:
    """Whether the elements fill a block of memory without gaps or overlaps, in any order of dimensions."""
    step = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != step:
            return False
        step *= size
    return True


@_keep
def view_strides(shape: Shape, strides: Strides, target: Shape) -> Strides | None:
    """Strides that show memory of (`shape`, `strides`) as `target`, or None where that needs a copy.

    Rule: aten/src/ATen/TensorUtils.cpp, computeStride: chunks of dimensions that are contiguous among themselves may
    be split and merged freely; the target's dimensions must not cross a chunk.
    """
    result = [0] * len(target)
    view_axis = len(target) - 1
    base = strides[-1] if strides else 1
    elements = viewed = 1
    for axis in range(len(shape) - 1, -1, -1):
        elements *= shape[axis]
        chunk_ends = axis == 0 or (shape[axis - 1] != 1 and strides[axis - 1] != elements * base)
        if not chunk_ends:
            continue
        while view_axis >= 0 and (viewed < elements or target[view_axis] == 1):
            result[view_axis] = viewed * base
            viewed *= target[view_axis]
            view_axis -= 1
        if viewed != elements:
            return None
        if axis > 0:
            base = strides[axis - 1]
            elements = viewed = 1
    return tuple(result) if view_axis == -1 else None


def broadcast_shape(left: Shape, right: Shape) -> Shape:
    """The shape two operands broadcast to."""
    if len(left) < len(right):
        left, right = right, left
    if not right:
        return left
    offset = len(left) - len(right)
    return left[:offset] + tuple(
        first if second == 1 else second for first, second in zip(left[offset:], right, strict=True)
    )


@_keep
def elementwise_strides(shape: Shape, operands: tuple[tuple[Shape, Strides], ...]) -> Strides | None:
    """Strides of a fresh output of an elementwise operation over `operands`, None where it is contiguous.

    Rule: aten/src/ATen/TensorIterator.cpp, reorder_dimensions: dimensions are sorted by the strides of the first
    operand that can tell two of them apart.
    """
    rank = len(shape)
    aligned: list[Strides] = []
    for operand_shape, strides in operands:
        offset = rank - len(operand_shape)
        aligned.append(
            (0,) * offset
            + tuple(
                0 if size == 1 and shape[offset + axis] != 1 else stride
                for axis, (size, stride) in enumerate(zip(operand_shape, strides, strict=True))
            )
        )
    if all(strides == aligned[0] for strides in aligned) and is_dense(shape, aligned[0]):
        return None if is_contiguous(shape, aligned[0]) else aligned[0]

    def order(first: int, second: int) -> int:
        for strides in aligned:
            if strides[first] == 0 or strides[second] == 0:
                continue
            if strides[first] != strides[second]:
                return -1 if strides[first] < strides[second] else 1
            if shape[first] > shape[second]:
                return 1
        return 0

    permutation = list(range(rank - 1, -1, -1))
    for position in range(1, rank):
        current = position
        for earlier in range(position - 1, -1, -1):
            comparison = order(permutation[earlier], permutation[current])
            if comparison > 0:
                permutation[earlier], permutation[current] = permutation[current], permutation[earlier]
                current = earlier
            elif comparison < 0:
                break
    strides_out = [0] * rank
    step = 1
    for axis in permutation:
        strides_out[axis] = step
        step *= shape[axis]
    result = tuple(strides_out)
    return None if is_contiguous(shape, result) else result


def reduced_runs(shape: Shape, strides: Strides, target: Shape) -> int:
    """How many separate runs of dimensions a sum of `shape` to `target` goes over. TensorIterator sorts them by stride;
    those that follow each other in memory count as one."""
    offset = len(shape) - len(target)
    summed = sorted(
        (strides[axis], shape[axis])
        for axis in range(len(shape))
        if shape[axis] != 1 and (axis < offset or target[axis - offset] == 1)
    )
    runs = 0
    step = 0
    for stride, length in summed:
        if not runs or stride != step:
            runs += 1
        step = stride * length
    return runs


def forget() -> None:
    """Drop all kept answers: they hold the very sizes they were asked with."""
    for answer in (contiguous_strides, is_contiguous, view_strides, elementwise_strides):
        answer.cache_clear()
