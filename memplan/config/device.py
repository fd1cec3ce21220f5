"""Where the run happens: a card of the catalogue, or the CPU with a stated number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_CPU_THREADS = 2
"""Threads of the device `cpu`. Fixed, so that the same request gives the same bytes on every machine: some CPU kernels
keep a buffer per thread. `cpu:8` asks for eight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device. `capacity_bytes` is what the driver reports as usable, 0 where there is no fixed capacity (the CPU)."""

    name: str
    backend: Literal["cpu", "cuda"]
    capacity_bytes: int = 0
    threads: int = 0  # cpu only
    description: str = ""
    source: str = ""  # where capacity_bytes comes from
