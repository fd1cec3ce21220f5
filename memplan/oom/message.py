"""What a message of running out of memory says: figures and names, nothing concluded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.oom.printed import Printed

Kind = Literal["caching", "async", "mps", "cpu", "library", "driver", "nvml", "bare"]
"""Who speaks: a caching allocator; CUDA's asynchronous one (backend:cudaMallocAsync); Apple's; the CPU's allocator; a
library such as cuBLAS; the driver itself; PyTorch's assertion that the driver can be asked who uses the card, which
fails while it puts such a message together; or somebody who gives no figures."""


@dataclass(frozen=True, slots=True)
class Process:
    """Another process on the card: its number as the driver knows it; `size` is None where the driver does not say."""

    number: str
    size: Printed | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback, the outermost first. `code` is "" where it is not shown."""

    file: str
    line: int
    function: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. A figure is None where it is not said.

    `asked` is what PyTorch says it tried to allocate: of a caching allocator the segment, not the tensor (elements.py).
    `allocated` includes private pools; `unallocated` is reserved and in no tensor; `reserved` is both, and said by
    older releases. `limit` is what the process allows itself.
    """

    kind: Kind
    backend: str  # "CUDA", "HIP", "XPU", "MPS", "CPU", ..., "" where it is not said
    text: str  # the message itself, spaces made one
    line: int  # of the log, the first is 1
    gpu: int | None = None
    asked: Printed | None = None
    capacity: Printed | None = None
    free: Printed | None = None
    this_process: Printed | None = None
    others: tuple[Process, ...] = ()
    allocated: Printed | None = None
    private_pools: Printed | None = None
    unallocated: Printed | None = None
    reserved: Printed | None = None
    limit: Printed | None = None
    other_allocations: Printed | None = None  # MPS
    pool: str = ""  # MPS: private or shared
    block_limit: bool = False  # the platform gives no block as large as this
    suggestion: str = ""  # the setting that the message names
    library: str = ""  # the status that a library returned
    early: bool = False  # the wording of releases that rounded large requests to 128 KiB, or may have

    @property
    def held(self) -> tuple[int, int] | None:
        """The least and the most bytes of the allocator's segments when it gave up."""
        if self.reserved is not None:
            return self.reserved.low, self.reserved.high
        if self.allocated is None or self.unallocated is None:
            return None
        return self.allocated.low + self.unallocated.low, self.allocated.high + self.unallocated.high

    @property
    def loose(self) -> tuple[int, int] | None:
        """The least and the most bytes that are reserved and in no tensor."""
        if self.unallocated is not None:
            return self.unallocated.low, self.unallocated.high
        if self.reserved is None or self.allocated is None:
            return None
        low = self.reserved.low - self.allocated.high
        return max(low, 0), max(self.reserved.high - self.allocated.low, 0)

    @property
    def others_bytes(self) -> int:
        """What the named other processes hold together, as far as it is said."""
        return sum(process.size.middle for process in self.others if process.size is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """The first message of one process, how many it has in all, and the traceback before it."""

    message: Message
    process: str  # as the log calls it: "rank 2", "pid 518"; else "GPU 0", or "" where nothing tells
    count: int  # messages of this process, this one among them
    same: int  # of these with the same text
    frames: tuple[Frame, ...] = ()
