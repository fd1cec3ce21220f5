"""What PyTorch says when a card has no memory left, as figures."""

from __future__ import annotations

import re

import torch

_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB)"

# The message is put together in c10/cuda/CUDACachingAllocator.cpp, where an allocation has failed for good.
_FIGURES = {
    "requested_bytes": rf"Tried to allocate {_SIZE}",
    "capacity_bytes": rf"total capacity of {_SIZE}",
    "free_bytes": rf"of which {_SIZE} is free",
    "process_bytes": rf"this process has {_SIZE} memory in use",
    "allocated_bytes": rf"allocated memory {_SIZE} is allocated by PyTorch",
    "reserved_but_unallocated_bytes": rf"and {_SIZE} is reserved by PyTorch but unallocated",
}

# cuBLAS, cuDNN and the loading of kernels take memory from the driver, beside the allocator.
_LIBRARIES = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
              "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")  # fmt: skip


def is_exhaustion(error: BaseException) -> bool:
    """Whether `error` says that the card's memory ran out, whoever asked for it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _LIBRARIES)


def figures(error: BaseException) -> dict[str, int | str]:
    """Who asked, and the sizes of the message, in bytes as they are printed there: with two decimals of their unit.
    `requested_bytes` is the segment that was asked of the driver, not the tensor it was for."""
    text = str(error)
    found: dict[str, int | str] = {"asked_by": "allocator" if isinstance(error, torch.OutOfMemoryError) else "library"}
    for name, pattern in _FIGURES.items():
        match = re.search(pattern, text)
        if match:
            found[name] = round(float(match[1]) * _UNITS[match[2]])
    return found
