"""The caching allocator itself: best fit, splitting, merging, growing, and what happens when memory runs out.

Mirrors DeviceCachingAllocator of c10/cuda/CUDACachingAllocator.cpp, 2.6 to 2.14, for the default pools (no CUDA graphs,
no user pools). Releases differ in what decides between free blocks of one size (`Settings.ties`) and in what
`parse_settings` accepts. Known limitations:

- Where addresses decide (up to 2.11), the addresses that the driver gives are not known beforehand: segments get rising
  ones here, unless a subclass knows better (`place`).
- `capacity` is compared with the bytes of the segments; what the driver loses by its own granularity is not seen.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable

from memplan.allocator.blocks import (
    MIN_BLOCK,
    MIN_LARGE,
    RANK_BITS,
    ROUND_LARGE,
    SIZE_BITS,
    SMALL_SEGMENT,
    SMALL_SIZE,
    Block,
    OutOfMemory,
    Pool,
    Segment,
)
from memplan.allocator.settings import ADDRESS, SERIAL, Settings
from memplan.errors import ConfigurationError

UNLIMITED = 1 << 62
FIRST_ADDRESS = 1 << 32


class CachingAllocator:
    """One device's caching allocator.

    `capacity` is what the driver can give in segments, in bytes (None: without end). `device_memory` is the memory that
    `Settings.memory_fraction` is a fraction of; the capacity, where it is not given.

    `allocated`, `requested` and `reserved` are the present bytes of blocks in use, of what was asked for, and of
    segments.
    """

    def __init__(
        self, settings: Settings | None = None, capacity: int | None = None, device_memory: int | None = None
    ) -> None:
        self.settings = settings = Settings() if settings is None else settings
        self.capacity = capacity
        self.device_memory = capacity if device_memory is None else device_memory
        self.allowed: int | None = None  # by the memory fraction
        self.allocated = self.requested = self.reserved = 0
        self.peak_allocated = self.peak_reserved = 0
        self.small: dict[int, Pool] = {}  # by stream
        self.large: dict[int, Pool] = {}
        self.pending: dict[Block, None] = {}  # freed, but other streams still use them
        self.searches = 0  # in the large pools, while garbage is collected (get_free_blocks_call_count)
        self._next_address = FIRST_ADDRESS
        self._ranks = 0
        self.ranks_blocks = settings.ties == SERIAL  # else segments
        self._divisions = bool(settings.roundup_power2_divisions)
        self._collects = self._plain = False
        self.set_memory_fraction(settings.memory_fraction)

    # ---- what a program does

    def allocate(self, size: int, stream: int = 0) -> Block:
        """A block of at least `size` bytes (more than 0) for `stream`. Raises OutOfMemory."""
        if size <= 0:
            raise ValueError(f"{size} bytes cannot be allocated")
        rounded = self.settings.round_size(size) if self._divisions else (size + 511) & -512
        pool = (self.small if rounded <= SMALL_SIZE else self.large).get(stream)
        if pool is None:
            pool = self.open_pool(rounded <= SMALL_SIZE, stream)
        if self._plain:
            keys = pool.keys
            at = bisect_left(keys, rounded << SIZE_BITS)
            block = pool.blocks.pop(keys.pop(at)) if at < len(keys) else self._grow(pool, rounded, size)
        else:
            block = self._find(pool, rounded) or self._grow(pool, rounded, size)
        rest = block.size - rounded
        if rest > pool.leave and rounded < pool.split_below:
            # The front becomes a new block, the old one shrinks to what is left (alloc_found_block).
            remaining = block
            block = Block.__new__(Block)  # without __init__: this is the hottest place there is
            block.segment = remaining.segment
            block.pool = pool
            block.address = remaining.address
            block.size = rounded
            block.rank = self.next_rank() if self.ranks_blocks else remaining.rank
            block.mapped = True
            block.next = remaining
            block.prev = before = remaining.prev
            if before is not None:
                before.next = block
            remaining.prev = block
            remaining.address += rounded
            remaining.size = rest
            remaining.free = True
            remaining.key = key = rest << SIZE_BITS | remaining.rank | remaining.address
            insort(pool.keys, key)
            pool.blocks[key] = remaining
            if self._collects:
                remaining.age = self.searches
        block.free = False
        block.requested = size
        self.requested += size
        self.allocated = allocated = self.allocated + block.size
        if allocated > self.peak_allocated:
            self.peak_allocated = allocated
        return block

    def free(self, block: Block) -> None:
        """Give a block back; it merges with free neighbours of its segment."""
        if block.free:
            raise ValueError(f"{block!r} is freed twice")
        size = block.size
        self.allocated -= size
        self.requested -= block.requested
        pool = block.pool
        keys = pool.keys
        blocks = pool.blocks
        before = block.prev
        if before is not None and before.free:
            key = before.key
            del keys[bisect_left(keys, key)]
            del blocks[key]
            size += before.size
            block.address = before.address
            block.prev = before = before.prev
            if before is not None:
                before.next = block
        after = block.next
        if after is not None and after.free:
            key = after.key
            del keys[bisect_left(keys, key)]
            del blocks[key]
            size += after.size
            block.next = after = after.next
            if after is not None:
                after.prev = block
        block.size = size
        block.free = True
        block.key = key = size << SIZE_BITS | block.rank | block.address
        insort(keys, key)
        blocks[key] = block
        if self._collects:
            block.age = self.searches

    def defer_free(self, block: Block) -> None:
        """Free a block that other streams still use (record_stream): it no longer counts as allocated, but its memory
        is taken until `finish_free`, or until the cache is emptied, which waits for all streams."""
        if block.free or block in self.pending:
            raise ValueError(f"{block!r} is freed twice")
        self.allocated -= block.size
        self.pending[block] = None

    def finish_free(self, block: Block) -> None:
        """The other streams are done with a deferred block."""
        del self.pending[block]
        self.allocated += block.size
        self.free(block)

    @property
    def active(self) -> int:
        """Bytes of the blocks that no other tensor can have: allocated ones, and those of deferred frees."""
        return self.allocated + sum(block.size for block in self.pending)

    def empty_cache(self) -> None:
        """Give every segment (page of an expandable one) without a block in use back to the driver."""
        from memplan.allocator.release import release_all  # needed only here, and by few runs

        for block in list(self.pending):
            self.finish_free(block)
        release_all(self)

    def reset_peaks(self) -> None:
        """The peaks start again at the present values."""
        self.peak_allocated = self.allocated
        self.peak_reserved = self.reserved

    def state(self) -> Hashable:
        """What answers to come depend on, beside the blocks in use: where that is equal twice, with the same blocks in
        use, everything goes on alike. None where ages, or an order that always goes on, decide as well."""
        if self.ranks_blocks or not self._plain or self.pending:
            return None
        pools = (*self.small.values(), *self.large.values())
        return (self.reserved, *(tuple(pool.keys) for pool in pools))

    def set_memory_fraction(self, fraction: float) -> None:
        """Allow the process this part of the device's memory (set_per_process_memory_fraction; 1.0 is no limit, as
        since PyTorch 2.10). Garbage is collected only below 1.0. Raises ConfigurationError where the memory is unknown.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ConfigurationError(f"{fraction} is no part of the device's memory", "a number from 0 to 1")
        self.allowed = None
        if fraction < 1.0:
            if self.device_memory is None:
                raise ConfigurationError(
                    f"a memory fraction of {fraction} needs the device's memory", "name a --device"
                )
            self.allowed = int(fraction * self.device_memory)
        settings = self.settings
        self._collects = self.allowed is not None and settings.garbage_collection_threshold > 0.0
        if self._collects:
            for pool in self.large.values():
                for block in pool.blocks.values():
                    block.age = self.searches
        self._plain = not (self._collects or settings.expandable_segments or settings.max_split_size is not None)

    # ---- what subclasses may know better

    def driver_gives(self, size: int) -> bool:
        """Whether the driver has `size` bytes more."""
        return self.capacity is None or self.reserved + size <= self.capacity

    def place(self, size: int) -> int:
        """The address of a new segment of `size` bytes."""
        address = self._next_address
        self._next_address = address + size
        return address

    def settle(self, block: Block) -> None:
        """The last chance to move a new expandable segment: `block`, all of it, gets its first memory."""

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        """Called after every segment_alloc, segment_free, segment_map and segment_unmap."""

    # ---- how it gets there

    def open_pool(self, small: bool, stream: int) -> Pool:
        """The pool of a stream that had none."""
        settings = self.settings
        if small or settings.expandable_segments:
            pool = Pool(small, stream, MIN_BLOCK - 1, UNLIMITED)
        else:
            pool = Pool(small, stream, SMALL_SIZE, settings.max_split_size or UNLIMITED)
        (self.small if small else self.large)[stream] = pool
        return pool

    def next_rank(self) -> int:
        """A rank behind all others."""
        self._ranks += 1
        return self._ranks << RANK_BITS

    def segment_rank(self) -> int:
        """The rank of a new segment's first block: 0 where addresses alone decide."""
        return 0 if self.settings.ties == ADDRESS else self.next_rank()

    def _find(self, pool: Pool, size: int) -> Block | None:
        """The best free block, taken out of its pool; None where there is none (get_free_block)."""
        if self._collects and not pool.small:
            self.searches += 1
        keys = pool.keys
        at = bisect_left(keys, size << SIZE_BITS)
        if at == len(keys):
            return None
        block = pool.blocks[keys[at]]
        settings = self.settings
        if settings.expandable_segments:
            # A block before unmapped space is as large as it can grow: a larger one that cannot grow fits better.
            reach = _reach(block)
            while at + 1 < len(keys) and _reach(pool.blocks[keys[at + 1]]) < reach:
                at += 1
                block = pool.blocks[keys[at]]
                reach = _reach(block)
        limit = settings.max_split_size
        if limit is not None:
            if size < limit:
                if block.size >= limit:
                    return None
            elif block.size >= size + settings.max_non_split_rounding:
                return None
        del keys[at]
        return pool.blocks.pop(block.key)

    def _grow(self, pool: Pool, size: int, requested: int) -> Block:
        """A new block of `size` bytes from the driver, if need be after giving back cached ones. Raises OutOfMemory."""
        if self._collects:
            from memplan.allocator.release import collect_garbage

            collect_garbage(self)
        block = self._obtain(pool, size)
        if block is None and self.settings.max_split_size is not None:
            from memplan.allocator.release import release_oversize

            if release_oversize(self, pool, size):
                block = self._obtain(pool, size)
        if block is None:
            self.empty_cache()
            block = self._obtain(pool, size)
        if block is None:
            limits = [limit for limit in (self.capacity, self.allowed) if limit is not None]
            raise OutOfMemory(requested, self.allocated, self.reserved, min(limits, default=None))
        return block

    def segment_size(self, size: int) -> int:
        """The bytes of the segment for a rounded request (get_allocation_size)."""
        if size <= SMALL_SIZE:
            return SMALL_SEGMENT
        if size < MIN_LARGE:
            return self.settings.large_segment_size
        return (size + ROUND_LARGE - 1) // ROUND_LARGE * ROUND_LARGE

    def _obtain(self, pool: Pool, size: int) -> Block | None:
        """A block of a new segment, or of a grown expandable one; None where there is no memory (alloc_block)."""
        total = self.segment_size(size)
        if self.allowed is not None and self.reserved + total > self.allowed:
            return None
        if self.settings.expandable_segments:
            from memplan.allocator.expandable import obtain

            return obtain(self, pool, size)
        if not self.driver_gives(total):
            return None
        segment = Segment(self.place(total), total, 0, pool)
        block = Block(segment, segment.address, total, self.segment_rank())
        self.reserve("segment_alloc", segment.address, total, pool.stream)
        return block

    def reserve(self, action: str, address: int, size: int, stream: int) -> None:
        """Count memory that came from the driver."""
        self.reserved += size
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self.record(action, address, size, stream)

    def give_back(self, action: str, address: int, size: int, stream: int) -> None:
        """Count memory that went back to the driver."""
        self.reserved -= size
        self.record(action, address, size, stream)


def _reach(block: Block) -> int:
    """The bytes that a block of an expandable segment can grow to."""
    after = block.next
    return block.size + (after.size if after is not None and not after.mapped else 0)
