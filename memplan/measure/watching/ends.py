"""How a watched run ended."""

from __future__ import annotations

from memplan.measure.exhaustion import figures, is_exhaustion
from memplan.measure.tracing.subject import told
from memplan.measure.watching.record import Ending

_NO_ROOM = "DefaultCPUAllocator"
"""How the CPU's allocator begins what it says when the system has nothing left (c10/core/impl/alloc_cpu.cpp)."""


def ending_of(error: BaseException | None, step: int) -> Ending:
    """The outcome of a record: `ran` where nothing was raised. `step` is how many steps were over by then."""
    if error is None:
        return Ending("ran", {}, True)
    if isinstance(error, Exception) and is_exhaustion(error):
        return Ending("out_of_memory", {"out_of_memory": {"step": step + 1, **figures(error)}}, True)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_ROOM in str(error)):
        return Ending("out_of_memory", {"out_of_memory": {"step": step + 1}, "error": told(error)}, True)
    if isinstance(error, KeyboardInterrupt):
        return Ending("killed", {"signal": 2, "error": "interrupted"}, True)
    if isinstance(error, SystemExit):
        return Ending("killed", {"exit_code": error.code if isinstance(error.code, int) else 1}, True)
    return Ending("failed", {"error": told(error)}, True)
