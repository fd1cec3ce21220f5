"""The buffers a reduction takes on CUDA (aten/src/ATen/native/cuda/Reduce.cuh, setReduceConfig and gpu_reduce_kernel).

Where few outputs are summed from many inputs, several blocks of threads share an output. Each leaves its partial sum in
a buffer of the caching allocator, and a semaphore per output counts who is done. Both are gone when the sum returns.
The buffer can be large: 132 MiB for the gradient of a bias of 4,096 over 8,192 rows on an H100.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from memplan.ops.backend import Backend
from memplan.ops.layout import Shape, Strides
from memplan.ops.trace import Trace
from memplan.units import ITEM_BYTES

_ACCUMULATOR = {"fp64": 8, "int64": 8, "bool": 8}  # bytes of a partial sum; 4 for every other dtype
_MOST_BYTES = 2**31 - 1  # kernels index with 32 bits; larger reductions run in pieces
_VALUES = 4  # a thread reads at a time (vt0)

Dimension = tuple[int, int, bool]
"""Length, stride of the input in bytes, whether it is summed over."""


def take_buffers(
    trace: Trace,
    shape: Shape,
    strides: Strides,
    axes: Collection[int],
    dtype: str,
    result: str,
    wide_loads: bool = False,
    accumulator: int = 0,
) -> None:
    """Allocate and free what summing `shape` over `axes` takes beside its output, which exists already. `wide_loads`:
    16-bit inputs are read eight at a time (mean, since PyTorch 2.7). `accumulator`: bytes of a partial result, where it
    is no sum."""
    item = ITEM_BYTES[dtype]
    dimensions = iteration(shape, strides, frozenset(axes), item)
    outputs = 1
    for length, _, summed in dimensions:
        outputs *= 1 if summed else length
    backend = trace.backend
    vector = 8 if wide_loads and item == 2 and backend.torch >= (2, 7) else _VALUES
    pieces = split(dimensions, item)
    wide = None
    if len(pieces) > 1 and item == 2 and dtype == result:  # partial results of half precision are kept in fp32
        wide = trace.allocate((outputs,), "fp32", "aten::sum")
    for piece in pieces:
        buffer, semaphores = global_buffers(piece, item, accumulator or _ACCUMULATOR.get(dtype, 4), vector, backend)
        if buffer:
            first = trace.allocate((buffer,), "uint8", "partial sums")
            second = trace.allocate((semaphores,), "uint8", "semaphores of a sum")
            trace.free(first)
            trace.free(second)
    trace.free(wide)


def iteration(shape: Shape, strides: Strides, axes: frozenset[int], item: int) -> tuple[Dimension, ...]:
    """The dimensions as TensorIterator orders and joins them: summed ones first, then by stride; neighbours that lie
    one behind the other in the input and in the (contiguous) output are one."""
    entries = []
    step = item
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] != 1:
            summed = axis in axes
            entries.append((not summed, strides[axis] * item, shape[axis], 0 if summed else step))
            step *= 1 if summed else shape[axis]
    entries.sort(key=lambda entry: entry[:2])
    joined: list[tuple[bool, int, int, int]] = []
    for kept, stride, length, output_stride in entries:
        if joined:
            before = joined[-1]
            follows = before[1] * before[2] == stride and before[3] * before[2] == output_stride
            if before[0] == kept and follows:
                joined[-1] = (kept, before[1], before[2] * length, before[3])
                continue
        joined.append((kept, stride, length, output_stride))
    return tuple((length, stride, not kept) for kept, stride, length, _ in joined)


def split(dimensions: tuple[Dimension, ...], item: int) -> list[tuple[Dimension, ...]]:
    """The pieces a reduction runs in: halved along the dimension that reaches furthest until 32 bits can index each
    (aten/src/ATen/TensorIterator.cpp, with_32bit_indexing)."""
    reach = item + sum((length - 1) * stride for length, stride, _ in dimensions)
    elements = 1
    for length, _, _ in dimensions:
        elements *= length
    if reach <= _MOST_BYTES and elements <= _MOST_BYTES:
        return [dimensions]
    widest = max(range(len(dimensions)), key=lambda index: (dimensions[index][0] - 1) * dimensions[index][1])
    length, stride, summed = dimensions[widest]
    pieces = []
    for part in (length // 2, length - length // 2):
        pieces += split((*dimensions[:widest], (part, stride, summed), *dimensions[widest + 1 :]), item)
    return pieces


@lru_cache(maxsize=256)
def global_buffers(
    dimensions: tuple[Dimension, ...], item: int, accumulator: int, vector: int, backend: Backend
) -> tuple[int, int]:
    """Bytes of the partial sums and of the semaphores; (0, 0) where no two blocks share an output."""
    inputs = outputs = 1
    for length, _, summed in dimensions:
        inputs *= length if summed else 1
        outputs *= 1 if summed else length
    summed_count = sum(1 for dimension in dimensions if dimension[2])
    if not summed_count:
        return 0, 0
    kept = dimensions[summed_count:]
    fastest_is_summed = not kept or dimensions[0][1] < kept[0][1]
    if fastest_is_summed:
        across, along, stride = inputs, outputs, dimensions[0][1]
    else:
        across, along, stride = outputs, inputs, kept[0][1]
    output_vector = 1
    if stride == item:
        enough = across >= 128 if backend.torch >= (2, 10) else across > 128 and vector <= _VALUES
        if not fastest_is_summed:
            output_vector = _VALUES
            others = [length for length, _, _ in kept[:1]]
            others += [step // item for index, (_, step, _) in enumerate(dimensions) if index != summed_count]
            while any(value % output_vector for value in others):
                output_vector //= 2
            across //= output_vector
        elif enough and summed_count == 1:
            across //= vector
    most_threads = 512 // output_vector
    width_limit = _power_of_two(across) if across < most_threads else most_threads
    height_limit = _power_of_two(along) if along < most_threads else most_threads
    width = min(width_limit, 32)
    height = min(height_limit, most_threads // width)
    width = min(width_limit, most_threads // height)
    step_inputs, step_outputs = (width, 1) if fastest_is_summed else (1, width)
    shares_block = -(-inputs // step_inputs) >= min(height * 16, 256)
    if shares_block:
        step_inputs *= height
    else:
        step_outputs *= height
    values = -(-inputs // step_inputs)  # each thread adds up
    grid = -(-(outputs // output_vector) // step_outputs)
    target = backend.multiprocessors * (backend.threads_per_multiprocessor // (width * height))
    if not shares_block or values < 256 or grid > target:
        return 0, 0
    blocks = max(min(-(-target // grid), -(-values // 16)), -(-values // 256))
    if blocks <= 1:
        return 0, 0
    size = accumulator * outputs * blocks
    if not fastest_is_summed:
        size *= width * output_vector
    return size, 4 * grid


def _power_of_two(number: int) -> int:
    """The largest one that is not above `number`, at least 1."""
    return 1 << max(number.bit_length() - 1, 0)
