"""Expandable segments: address space for more than the device has, into which pages of memory are mapped as needed.

Mirrors ExpandableSegment, find_expandable_block, map_block, try_allocate_expandable_block and unmap_block of
c10/cuda/CUDACachingAllocator.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.allocator.blocks import SMALL_SEGMENT, Block, Pool, Segment

if TYPE_CHECKING:
    from memplan.allocator.caching import CachingAllocator

ENDLESS = 1 << 44
"""The address space of a segment where the device's memory is not known."""


def obtain(cache: CachingAllocator, pool: Pool, size: int) -> Block | None:
    """A mapped block of at least `size` bytes, out of its pool; None where the memory does not suffice. Pages that were
    mapped before it ran out stay mapped and free."""
    block = _find_space(pool, size)
    if block is None:
        block = _new_segment(cache, pool)
        if block.size < size:
            return None
    if not block.mapped and not _map(cache, block, min(block.size, size)):
        return None
    while block.size < size:
        following = block.next
        assert following is not None and not following.mapped
        if not _map(cache, following, min(size - block.size, following.size)):
            return None
        block = following  # which the free block before it has been merged into
    pool.remove(block)
    return block


def _find_space(pool: Pool, size: int) -> Block | None:
    """The block at the lowest address from which free and unmapped blocks in a row have room for `size` bytes; unmapped
    ones are where the search begins."""
    for unmapped in pool.unmapped:
        before = unmapped.prev
        first = before if before is not None and before.free else unmapped
        room, block = 0, first
        while room < size and (block.free or not block.mapped):
            room += block.size
            if block.next is None:
                break
            block = block.next
        if room >= size:
            return first
    return None


def _new_segment(cache: CachingAllocator, pool: Pool) -> Block:
    """The unmapped block of a new segment: 9/8 of the device's memory, in whole pages."""
    page = SMALL_SEGMENT if pool.small else cache.settings.large_segment_size
    memory = cache.device_memory
    space = ENDLESS if memory is None else memory + memory // 8
    space = (space + page - 1) // page * page
    segment = Segment(cache.place(space), space, page, pool)
    block = Block(segment, segment.address, space, cache.segment_rank(), mapped=False)
    _insert_unmapped(block)
    return block


def _map(cache: CachingAllocator, block: Block, size: int) -> bool:
    """Put memory behind the first `size` bytes of an unmapped block, in whole pages; False where there is none."""
    segment, pool = block.segment, block.pool
    mapped = (size + segment.page - 1) // segment.page * segment.page
    if not cache.driver_gives(mapped):
        return False
    if not block.split:
        cache.settle(block)
    pool.unmapped.remove(block)
    address = block.address
    if mapped < block.size:
        _insert_unmapped(_cut(cache, block, address + mapped, block.size - mapped, before=False))
        block.size = mapped
    block.mapped = True
    _merge(block)
    pool.insert(block)
    cache.reserve("segment_map", address, mapped, pool.stream)
    return True


def whole_pages(block: Block) -> tuple[int, int]:
    """The addresses between which a block covers whole pages; nothing is between them where start >= stop."""
    base, page = block.segment.address, block.segment.page
    start = (block.address - base + page - 1) // page
    return base + start * page, base + (block.address + block.size - base) // page * page


def unmap(cache: CachingAllocator, block: Block) -> None:
    """Take the memory from the whole pages of a free block; what is left of it at both ends stays mapped and free."""
    pool = block.pool
    start, stop = whole_pages(block)
    if start >= stop:
        return
    pool.remove(block)
    end = block.address + block.size
    if start > block.address:
        pool.insert(_cut(cache, block, block.address, start - block.address, before=True))
    if end > stop:
        pool.insert(_cut(cache, block, stop, end - stop, before=False))
    block.address, block.size = start, stop - start
    block.mapped = False
    _merge(block)
    cache.give_back("segment_unmap", start, stop - start, pool.stream)
    if block.split:
        _insert_unmapped(block)  # otherwise the whole segment is unmapped, and gives its address space back


def _cut(cache: CachingAllocator, block: Block, address: int, size: int, before: bool) -> Block:
    """A new block beside `block`, in the state that `block` has; of `block` only the neighbour changes."""
    rank = cache.next_rank() if cache.ranks_blocks else block.rank
    piece = Block(block.segment, address, size, rank, mapped=block.mapped)
    if before:
        piece.prev, piece.next = block.prev, block
        if block.prev is not None:
            block.prev.next = piece
        block.prev = piece
    else:
        piece.prev, piece.next = block, block.next
        if block.next is not None:
            block.next.prev = piece
        block.next = piece
    return piece


def _insert_unmapped(block: Block) -> None:
    unmapped = block.pool.unmapped
    unmapped.append(block)
    unmapped.sort(key=lambda other: other.address)


def _merge(block: Block) -> None:
    """Merge a block that is in no pool with neighbours in its own state: free and mapped, or unmapped."""
    for neighbour in (block.prev, block.next):
        if neighbour is None or neighbour.mapped != block.mapped or (neighbour.mapped and not neighbour.free):
            continue
        if neighbour.mapped:
            block.pool.remove(neighbour)
        else:
            block.pool.unmapped.remove(neighbour)
        block.size += neighbour.size
        if neighbour is block.prev:
            block.address = neighbour.address
            block.prev = neighbour.prev
            if block.prev is not None:
                block.prev.next = block
        else:
            block.next = neighbour.next
            if block.next is not None:
                block.next.prev = block
