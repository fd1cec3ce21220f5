"""What the system counts for this process: everything in it, not only tensors. Torch-free."""

from __future__ import annotations

import os
from contextlib import suppress

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0


def resident_bytes() -> int | None:
    """Memory of the process that is in RAM now, in bytes (proc(5), statm). None where the system does not tell."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read(100).split()[1]) * _PAGE
    return None


def peak_resident_bytes() -> int | None:
    """The most that it ever was since the process began, in bytes (getrusage(2))."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # kilobytes on Linux
