"""The gradient of a table look-up on CUDA (aten/src/ATen/native/cuda/Embedding.cu and EmbeddingBackwardKernel.cu).

Up to 3,072 indices one kernel adds rows to the table. More are sorted first, and the rows of equal indices are summed
in parts of ten, in fp32. The sizes depend on the number of indices alone, never on their values.
"""

from __future__ import annotations

from memplan.ops.backend import Backend
from memplan.ops.layout import Shape
from memplan.ops.tensor import Tensor, empty
from memplan.units import KIB

_FEW_INDICES = 3072
_PART = 10  # indices summed by one thread


def table_gradient(gradient: Tensor, table: Shape, indices: int) -> Tensor:
    """gradient [..., width] of `indices` rows -> the table's gradient [rows, width]."""
    trace, operation = gradient.trace, "aten::embedding_dense_backward"
    if indices <= _FEW_INDICES:
        return empty(trace, table, gradient.dtype, operation)

    def integers(length: int) -> Tensor:
        return empty(trace, (length,), "int64", operation)

    def scratch(size: int) -> Tensor:
        return empty(trace, (size,), "uint8", "scratch of a sort")

    order = [integers(indices), integers(indices)]  # the sorted indices, and where each one was
    positions = integers(indices)
    scratch(_sort_bytes(trace.backend, indices, table[0]))
    del positions
    output = empty(trace, table, gradient.dtype, operation)
    segments = [integers(indices), integers(1)]  # where runs of equal indices begin, and how many there are
    keys = scratch(8 * indices)
    scratch(_unique_bytes(trace.backend, indices))
    del keys
    most = min(indices, table[0])
    parts = [integers(most), integers(most)]  # how many parts each run has, and where they begin
    scratch(_scan_bytes(trace.backend, most))
    parts.append(integers(1))
    most_parts = indices // _PART + most
    parts.append(integers(most_parts))
    half = gradient.dtype in ("bf16", "fp16")
    if _scatters(trace.backend, table[1], most, most_parts):
        parts.append(integers(most_parts))  # the run each part belongs to
        if half:
            empty(trace, table, "fp32", operation)
    else:
        empty(trace, (most_parts, table[1]), "fp32" if half else gradient.dtype, operation)
    del parts, segments, order
    return output


def _scatters(backend: Backend, width: int, runs: int, parts: int) -> bool:
    """Whether the parts are added to the table at once: where runs are few and long, one block of threads each would
    leave the card idle. PyTorch 2.11 and newer."""
    threads = -(-width // 32) * 32
    blocks = -(-runs * threads // min(threads, 1024))
    few = parts > 4 * runs and blocks < 4 * backend.multiprocessors
    return few and backend.torch >= (2, 11)


def _sort_bytes(backend: Backend, count: int, rows: int) -> int:
    """Scratch of cub::DeviceRadixSort for pairs of 64-bit integers: bins for each pass over 8 bits, counters for each
    tile, and two buffers where there are several passes. PyTorch 2.13 and newer sort the bits that `rows` need."""
    passes = 8 if backend.torch < (2, 13) else -(-rows.bit_length() // 8)
    major = backend.compute_capability[0]
    tile = 4608 if major >= 9 else 3840 if major == 8 else 2816
    buffers = 2 * _aligned(8 * count) if passes > 1 else 0
    return passes * 2 * KIB + -(-count // tile) * KIB + buffers + 511


def _scan_bytes(backend: Backend, count: int) -> int:
    """Scratch of cub::DeviceScan: 16 bytes for each tile of 896 and 32 more."""
    return _aligned(16 * (32 + -(-count // 896))) + _alignment(backend)


def _unique_bytes(backend: Backend, count: int) -> int:
    """Scratch of cub::DeviceSelect: the same with tiles by card and by release of cub."""
    if backend.torch < (2, 7):
        return _aligned(16 * 32) + _alignment(backend)
    tile = 320
    if backend.compute_capability >= (9, 0):
        tile = 4480 if backend.torch < (2, 13) else 4928
    elif backend.compute_capability == (8, 0):
        tile = 1792 if backend.torch < (2, 13) else 1344
    return _aligned(16 * (32 + -(-count // tile))) + _alignment(backend)


def _alignment(backend: Backend) -> int:
    """What cub adds for the alignment of its scratch; the cub of PyTorch 2.11 adds more."""
    return 255 if backend.torch < (2, 11) else 511


def _aligned(size: int) -> int:
    return -(-size // 256) * 256
