"""The segments of a card's caching allocator, as a timeline goes on: who asked for them, and what is held."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memplan.allocator.trace import GAINS
from memplan.timeline import Tensor


@dataclass(frozen=True, slots=True)
class SegmentEvent:
    """What the driver gave or got back, just before event number `before` of the timeline: `action` is segment_alloc or
    segment_free, and segment_map or segment_unmap where segments are expandable. `cause` is the tensor that asked for
    memory then, a `small` one or not; what is given back to make room for it may be of either pool."""

    before: int
    action: str
    address: int
    size: int
    small: bool
    cause: Tensor

    @property
    def change(self) -> int:
        """Of the reserved bytes."""
        return self.size if self.action in GAINS else -self.size


@dataclass(frozen=True, slots=True)
class HeldSegment:
    """Memory of the driver that the allocator holds: a segment, or a mapped range of an expandable one. `cause` is the
    tensor that it was got for."""

    address: int
    size: int
    small: bool  # of the pool of small blocks
    expandable: bool
    cause: Tensor

    def part(self, start: int, stop: int) -> HeldSegment:
        """The same memory between these addresses."""
        return HeldSegment(start, stop - start, self.small, self.expandable, self.cause)


def held_after(found: Iterable[HeldSegment], events: Iterable[SegmentEvent]) -> tuple[HeldSegment, ...]:
    """What is held after these events, by address. Ranges of one expandable segment that touch are one, as in
    DeviceCachingAllocator::snapshot (c10/cuda/CUDACachingAllocator.cpp)."""
    pieces = {segment.address: segment for segment in found}
    for event in events:
        if event.change > 0:
            expandable = event.action == "segment_map"
            pieces[event.address] = HeldSegment(event.address, event.size, event.small, expandable, event.cause)
        else:
            _take(pieces, event.address, event.address + event.size)
    result: list[HeldSegment] = []
    for address in sorted(pieces):
        piece, last = pieces[address], result[-1] if result else None
        if last and piece.expandable and last.small == piece.small and last.address + last.size == address:
            result[-1] = last.part(last.address, address + piece.size)
        else:
            result.append(piece)
    return tuple(result)


def _take(pieces: dict[int, HeldSegment], start: int, stop: int) -> None:
    """Take the addresses from `start` to `stop` out; of expandable segments these may be parts of several pieces."""
    for piece in [each for each in pieces.values() if each.address < stop and start < each.address + each.size]:
        del pieces[piece.address]
        for low, high in ((piece.address, start), (stop, piece.address + piece.size)):
            if low < high:
                pieces[low] = piece.part(low, high)
