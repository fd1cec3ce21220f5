"""What the caching allocator is made of: blocks, the segments they lie in, and the pools of free blocks."""

from __future__ import annotations

from bisect import bisect_left, insort

from memplan.units import MIB, human

# c10/core/AllocatorConfig.h (until 2.9 c10/cuda/CUDACachingAllocator.cpp)
MIN_BLOCK = 512
SMALL_SIZE = 1 * MIB
SMALL_SEGMENT = 2 * MIB
MIN_LARGE = 10 * MIB
ROUND_LARGE = 2 * MIB

# A key orders the free blocks of a pool: by size, then by the rank that decides between equal ones, then by address.
RANK_BITS = 64
SIZE_BITS = 96


class OutOfMemory(Exception):
    """The allocator could not get `requested` bytes, not even after giving back all it had cached."""

    def __init__(self, requested: int, allocated: int, reserved: int, capacity: int | None) -> None:
        limit = "" if capacity is None else f" of {human(capacity)}"
        used = f"{human(allocated)} allocated, {human(reserved)}{limit} reserved"
        super().__init__(f"out of memory: {human(requested)} on top of {used}")
        self.requested = requested
        self.allocated = allocated
        self.reserved = reserved
        self.capacity = capacity


class Pool:
    """The free blocks of one stream in one of the two pools, small (requests up to 1 MiB) or large, best fit first.

    A remainder is split off where it is larger than `leave` bytes and the request smaller than `split_below`.
    """

    __slots__ = ("blocks", "keys", "leave", "small", "split_below", "stream", "unmapped")

    def __init__(self, small: bool, stream: int, leave: int, split_below: int) -> None:
        self.small = small
        self.stream = stream
        self.leave = leave
        self.split_below = split_below
        self.keys: list[int] = []  # sorted
        self.blocks: dict[int, Block] = {}  # by key
        self.unmapped: list[Block] = []  # address space of expandable segments without memory behind it

    def insert(self, block: Block) -> None:
        key = block.size << SIZE_BITS | block.rank | block.address
        block.key = key
        block.free = True
        insort(self.keys, key)
        self.blocks[key] = block

    def remove(self, block: Block) -> None:
        key = block.key
        block.free = False
        del self.keys[bisect_left(self.keys, key)]
        del self.blocks[key]

    def sorted_blocks(self) -> list[Block]:
        """The free blocks in the order of the pool."""
        return [self.blocks[key] for key in self.keys]


class Segment:
    """Memory from the driver: `size` bytes of one cudaMalloc, or the address space of an expandable segment, which is
    mapped in pages of `page` bytes (0 for the others)."""

    __slots__ = ("address", "page", "pool", "size")

    def __init__(self, address: int, size: int, page: int, pool: Pool) -> None:
        self.address = address
        self.size = size
        self.page = page
        self.pool = pool


class Block:
    """A piece of a segment. `size` bytes count as allocated while it is in use, of which `requested` were asked for.

    `prev` and `next` are its neighbours in the segment. `free` blocks are in their pool; a block that is not `mapped`
    is address space without memory. `rank` decides between free blocks of one size, before the address does.
    """

    __slots__ = (
        "address", "age", "free", "key", "mapped", "next", "pool", "prev", "rank", "requested", "segment", "size",
    )  # fmt: skip

    address: int
    age: int  # get_free_blocks_call_count when it became free; kept only where garbage is collected
    free: bool
    key: int
    mapped: bool
    next: Block | None
    pool: Pool
    prev: Block | None
    rank: int
    requested: int
    segment: Segment
    size: int

    def __init__(self, segment: Segment, address: int, size: int, rank: int, mapped: bool = True) -> None:
        self.segment = segment
        self.pool = segment.pool
        self.address = address
        self.size = size
        self.rank = rank
        self.mapped = mapped
        self.free = False
        self.requested = 0
        self.prev = None
        self.next = None

    @property
    def split(self) -> bool:
        """Whether it shares its segment with other blocks."""
        return self.prev is not None or self.next is not None

    def __repr__(self) -> str:
        state = "free" if self.free else "in use" if self.mapped else "unmapped"
        return f"<Block {state} {self.size} at {self.address:#x}>"
