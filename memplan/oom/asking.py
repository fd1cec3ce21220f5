"""From a tensor to the size that a message names, and back.

What a caching allocator says it tried to allocate is the segment it asked the driver for, not the tensor: in
c10/cuda/CUDACachingAllocator.cpp get_allocation_size gives 2 MiB for up to 1 MiB, 20 MiB for up to 10 MiB, and rounds
the rest up to 2 MiB. c10/xpu/XPUCachingAllocator.cpp has the same constants. Before PyTorch 1.1 large requests were
rounded up to 128 KiB. CUDA's asynchronous allocator, MPS and the CPU say the size itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.allocator import CachingAllocator, Settings
from memplan.allocator.blocks import MIN_LARGE, ROUND_LARGE, SMALL_SEGMENT, SMALL_SIZE
from memplan.oom.message import Message
from memplan.oom.printed import Printed
from memplan.units import KIB

EARLY_ROUND = 128 * KIB
_ROUND = 512

WIDTHS = (1, 2, 4, 8)
"""Bytes of an element: of int8, fp8 and bool; of bf16 and fp16; of fp32; of int64."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes in bytes, `low` to `high`, of a tensor that makes an allocator ask for what a message says. `shared`
    says that the segment would have served other tensors too, so that its size says little of this one."""

    low: int
    high: int
    shared: bool = False

    def elements(self, width: int) -> tuple[int, int] | None:
        """How many elements of `width` bytes; None where no whole number has such a size."""
        low, high = -(-self.low // width), self.high // width
        return (low, high) if low <= high else None


class Asking:
    """What a request of some bytes makes the allocator ask for, and whether that is what the message says."""

    def __init__(self, message: Message, settings: Settings | None = None) -> None:
        assert message.asked is not None
        self.asked: Printed = message.asked
        self._rounds = message.kind == "caching"
        self._early = message.early
        self._allocator = CachingAllocator(settings)

    def segment(self, size: int) -> int:
        """The bytes that the driver is asked for."""
        if not self._rounds:
            return size
        return self._allocator.segment_size(self._allocator.settings.round_size(size))

    def matches(self, size: int) -> bool:
        """Whether a tensor of `size` bytes can be what was asked for."""
        if size <= 0:
            return False
        return self.segment(size) in self.asked or (self._early and _early(size) in self.asked)


def _early(size: int) -> int:
    """The segment before PyTorch 1.1."""
    return 1024 * KIB if size <= SMALL_SIZE else -(-size // EARLY_ROUND) * EARLY_ROUND


def tensor_sizes(message: Message) -> tuple[Sizes, ...]:
    """Every size that a tensor can have for which the message says what it says; () where it says no size. With an
    allocator's settings at their defaults."""
    asked = message.asked
    if asked is None:
        return ()
    if message.kind != "caching":
        return (Sizes(max(asked.low, 1), asked.high),)
    found = []
    if SMALL_SEGMENT in asked:
        found.append(Sizes(1, SMALL_SIZE, shared=True))
    large = Settings().large_segment_size
    if large in asked:
        found.append(Sizes(SMALL_SIZE + 1, MIN_LARGE - _ROUND, shared=True))
    own = _multiples(asked, ROUND_LARGE)
    if own is not None and own[1] >= MIN_LARGE:
        found.append(Sizes(max(own[0] - ROUND_LARGE, MIN_LARGE - _ROUND) + 1, own[1]))
    if message.early or not found:
        early = _multiples(asked, EARLY_ROUND)
        if early is not None and early[1] > SMALL_SIZE:
            found.append(Sizes(max(early[0] - EARLY_ROUND, SMALL_SIZE) + 1, early[1]))
    return _joined(found) if found else (Sizes(max(asked.low, 1), asked.high),)


def _multiples(asked: Printed, step: int) -> tuple[int, int] | None:
    """The least and the greatest multiple of `step` that prints as the message says."""
    low, high = -(-asked.low // step) * step, asked.high // step * step
    return (low, high) if 0 < low <= high else None


def _joined(found: list[Sizes]) -> tuple[Sizes, ...]:
    """In order, without those that lie within another one."""
    kept: list[Sizes] = []
    for each in sorted(found, key=lambda sizes: (sizes.low, -sizes.high)):
        if not any(other.low <= each.low and each.high <= other.high for other in kept):
            kept.append(each)
    return tuple(kept)
