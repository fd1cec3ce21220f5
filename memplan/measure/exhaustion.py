"""What PyTorch says when a card has no memory left, as figures."""

from __future__ import annotations

import torch

from memplan.oom.parse import parse

_FIGURES = {
    "requested_bytes": "asked",
    "capacity_bytes": "capacity",
    "free_bytes": "free",
    "process_bytes": "this_process",
    "allocated_bytes": "allocated",
    "reserved_but_unallocated_bytes": "unallocated",
}
"""What a record calls the figures of a message."""


def is_exhaustion(error: BaseException) -> bool:
    """Whether `error` says that the card's memory ran out, whoever asked for it: cuBLAS, cuDNN and the loading of
    kernels take memory from the driver, beside the allocator."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    message = parse(str(error), line=1)
    return message is not None and message.kind in ("library", "driver")


def figures(error: BaseException) -> dict[str, int | str]:
    """Who asked, and the sizes of the message in bytes: it prints two decimals of a unit, so each is the middle of what
    prints alike. `requested_bytes` is the segment that was asked of the driver, not the tensor it was for."""
    found: dict[str, int | str] = {"asked_by": "allocator" if isinstance(error, torch.OutOfMemoryError) else "library"}
    message = parse(str(error), line=1)
    for name, field in _FIGURES.items():
        size = getattr(message, field, None)
        if size is not None:
            found[name] = size.middle
    return found
