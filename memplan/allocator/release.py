"""How cached memory goes back to the driver: garbage collection, oversize blocks, and everything.

Mirrors garbage_collect_cached_blocks, release_available_cached_blocks and release_cached_blocks of
c10/cuda/CUDACachingAllocator.cpp.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from memplan.allocator.blocks import SIZE_BITS, Block, Pool

if TYPE_CHECKING:
    from memplan.allocator.caching import CachingAllocator


def free_blocks(pools: dict[int, Pool]) -> list[Block]:
    """The free blocks of all streams in the order of PyTorch's pool: by stream, then as each stream orders them."""
    return [block for stream in sorted(pools) for block in pools[stream].sorted_blocks()]


def collect_garbage(cache: CachingAllocator) -> None:
    """Free the large segments that were unused for longer than average, until `reserved` is below the threshold.

    Ages are counted in searches of the large pool since the block was freed.
    """
    assert cache.allowed is not None
    threshold = int(cache.settings.garbage_collection_threshold * cache.allowed)
    if cache.reserved <= threshold:
        return
    target = cache.reserved - threshold
    whole = [block for block in free_blocks(cache.large) if not block.split and not block.segment.page]
    total_age = sum(cache.searches - block.age for block in whole)
    reclaimed, freed = 0, True
    while reclaimed < target and freed and whole:
        average = total_age / len(whole)
        kept: list[Block] = []
        freed = False
        for block in whole:
            # The average is that of the round's beginning: a round does not stop at the target.
            if cache.searches - block.age >= average:
                freed = True
                reclaimed += block.size
                total_age -= cache.searches - block.age
                release_block(cache, block)
            else:
                kept.append(block)
        whole = kept


def release_oversize(cache: CachingAllocator, pool: Pool, size: int) -> bool:
    """Free the smallest oversize block of the stream that is large enough, or several from the largest one down; False
    where that does not yield the size."""
    limit = cache.settings.max_split_size
    assert limit is not None
    wanted = max(size, limit)
    at = bisect_left(pool.keys, wanted << SIZE_BITS)
    blocks = pool.sorted_blocks()
    if at < len(blocks) and not blocks[at].segment.page:
        release_block(cache, blocks[at])
        return True
    released = 0
    for block in reversed(blocks[:at]):
        if released >= wanted or block.size < limit:
            break
        if not block.segment.page:
            released += block.size
            release_block(cache, block)
    return released >= wanted


def release_all(cache: CachingAllocator) -> None:
    """Free every segment and every page of an expandable segment that no block is using."""
    for pools in (cache.large, cache.small):
        pages: list[Block] = []
        for block in free_blocks(pools):
            if block.segment.page:
                pages.append(block)
            elif not block.split:
                release_block(cache, block)
        if pages:
            from memplan.allocator.expandable import unmap

            for block in pages:
                unmap(cache, block)


def releasable(cache: CachingAllocator) -> list[tuple[str, int, int]]:
    """What `release_all` would give back now: action, address and bytes, in its order."""
    found: list[tuple[str, int, int]] = []
    for pools in (cache.large, cache.small):
        pages: list[tuple[str, int, int]] = []
        for block in free_blocks(pools):
            if block.segment.page:
                from memplan.allocator.expandable import whole_pages

                start, stop = whole_pages(block)
                if start < stop:
                    pages.append(("segment_unmap", start, stop - start))
            elif not block.split:
                found.append(("segment_free", block.address, block.size))
        found += pages
    return found


def release_block(cache: CachingAllocator, block: Block) -> None:
    """cudaFree of a whole segment."""
    pool = block.pool
    pool.remove(block)
    cache.give_back("segment_free", block.address, block.size, pool.stream)
