"""A caching allocator that writes down every answer it gives, and everything it gets from the driver for it."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.allocator import Block, CachingAllocator, Settings
from memplan.allocator.blocks import SMALL_SIZE


@dataclass(frozen=True, slots=True)
class SegmentCall:
    """`action` (segment_alloc, segment_free, segment_map or segment_unmap) of `size` bytes, before call number `before`
    of the allocator, which is for a small block or not."""

    before: int
    action: str
    address: int
    size: int
    small: bool


class RecordingAllocator(CachingAllocator):
    """`addresses` and `sizes` are those of the blocks, in the order in which they were asked for. `calls` counts what
    was asked for and what was given back; `segments` are the calls of the driver between them."""

    def __init__(self, settings: Settings, capacity: int | None = None) -> None:
        super().__init__(settings, capacity)
        self.addresses: list[int] = []
        self.sizes: list[int] = []
        self.segments: list[SegmentCall] = []
        self.calls = 0
        self._small = False

    def allocate(self, size: int, stream: int = 0) -> Block:
        self._small = self.settings.round_size(size) <= SMALL_SIZE
        block = super().allocate(size, stream)
        self.addresses.append(block.address)
        self.sizes.append(block.size)
        self.calls += 1
        return block

    def free(self, block: Block) -> None:
        super().free(block)
        self.calls += 1

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        self.segments.append(SegmentCall(self.calls, action, address, size, self._small))
