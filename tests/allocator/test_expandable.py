"""Expandable segments on cases worked by hand: one growing segment a stream and pool. Sizes in MiB."""

from __future__ import annotations

import pytest

from memplan.allocator import CachingAllocator, OutOfMemory, Settings
from memplan.units import KIB, MIB

Change = tuple[str, float, float]


class Mapping(CachingAllocator):
    """Notes what is mapped (+) and unmapped (-): where in the segment and how much, in MiB."""

    def __init__(self, capacity: int | None = None, device_memory: int | None = None, **settings: int) -> None:
        self.changes: list[Change] = []
        self.bases: list[int] = []
        expandable = Settings(expandable_segments=True, **settings)  # type: ignore[arg-type]
        super().__init__(expandable, capacity, device_memory)

    def place(self, size: int) -> int:
        self.bases.append(super().place(size))
        return self.bases[-1]

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        base = max(base for base in self.bases if base <= address)
        sign = {"segment_map": "+", "segment_unmap": "-"}[action]
        self.changes.append((sign, (address - base) / MIB, size / MIB))


def test_a_segment_grows_by_pages_of_20_mib() -> None:
    cache = Mapping()
    first = cache.allocate(5 * MIB)
    second = cache.allocate(18 * MIB)
    # 15 of the first page are left; the segment grows behind them by what is missing, 3, in whole pages.
    assert second.address == first.address + 5 * MIB
    assert cache.changes == [("+", 0, 20), ("+", 20, 20)]
    # 17 are left. 57 are missing 40: two pages.
    cache.allocate(57 * MIB)
    assert cache.changes[2:] == [("+", 40, 40)]
    assert cache.reserved == cache.allocated == 80 * MIB


def test_small_requests_grow_a_segment_of_their_own_by_2_mib() -> None:
    cache = Mapping()
    cache.allocate(MIB)
    cache.allocate(600 * KIB)
    cache.allocate(600 * KIB)  # 424 KiB are left, the next page joins them
    cache.allocate(5 * MIB)
    assert cache.changes == [("+", 0, 2), ("+", 2, 2), ("+", 0, 20)]
    assert len(cache.bases) == 2


def test_there_is_no_slack() -> None:
    cache = Mapping()
    block = cache.allocate(11 * MIB + 512 * KIB)
    assert block.size == 11 * MIB + 512 * KIB
    assert cache.allocate(8 * MIB + 256 * KIB).size == 8 * MIB + 256 * KIB
    # A quarter of a MiB is left of the page; a request of 2 takes it and 2 - 0.25 of a new page.
    cache.allocate(2 * MIB)
    assert cache.changes == [("+", 0, 20), ("+", 20, 20)]


def test_no_slack_even_above_max_split_size() -> None:
    cache = Mapping(max_split_size=50 * MIB)
    assert cache.allocate(61 * MIB).size == 61 * MIB
    assert cache.changes == [("+", 0, 80)]


def test_a_block_that_can_grow_is_not_the_best_fit() -> None:
    cache = Mapping()
    blocks = [cache.allocate(10 * MIB) for _ in range(3)]  # 10 are left of 40, and can grow
    cache.free(blocks[1])
    # Both have 10; the one in the middle cannot grow. So it is for 8 too.
    assert cache.allocate(8 * MIB).address == blocks[0].address + 10 * MIB
    # 2 (cannot grow) and 10 (can): 2 fit the first, though both are large enough.
    assert cache.allocate(2 * MIB).address == blocks[0].address + 18 * MIB
    # A larger one that cannot grow is better than a smaller one that can: free 20 at the front against 10 at the end.
    cache = Mapping()
    blocks = [cache.allocate(15 * MIB) for _ in range(3)]  # 15 are left of 60
    cache.free(blocks[0])
    cache.free(blocks[1])  # 30
    assert cache.allocate(12 * MIB).address == blocks[2].address - 30 * MIB
    assert cache.changes == [("+", 0, 20), ("+", 20, 20), ("+", 40, 20)]


def test_whole_free_pages_are_unmapped() -> None:
    cache = Mapping()
    blocks = [cache.allocate(10 * MIB) for _ in range(6)]  # three pages
    for block in blocks[1:5]:
        cache.free(block)  # 10 to 50: of the pages, only the middle one is free as a whole
    cache.empty_cache()
    assert cache.changes == [("+", 0, 20), ("+", 20, 20), ("+", 40, 20), ("-", 20, 20)]
    assert cache.reserved == 40 * MIB
    # What is left of the others is still free: 10 to 20 and 40 to 50. No free block has 15; the lowest place for it
    # is 10 to 25, of which 5 are missing: their page is mapped again, and all is one free block as before.
    block = cache.allocate(15 * MIB)
    assert block.address == cache.bases[0] + 10 * MIB
    assert cache.changes[4:] == [("+", 20, 20)]
    rest = block.next
    assert rest is not None
    assert rest.free
    assert rest.size == 25 * MIB


def test_gaps_are_filled_where_they_suffice() -> None:
    cache = Mapping()
    blocks = [cache.allocate(20 * MIB) for _ in range(3)]
    cache.free(blocks[1])
    cache.empty_cache()
    cache.allocate(25 * MIB)  # the gap of 20 is followed by a block in use: at the end then
    cache.allocate(20 * MIB)  # into the gap
    assert cache.changes[3:] == [("-", 20, 20), ("+", 60, 40), ("+", 20, 20)]


def test_a_row_of_free_and_unmapped_blocks_is_filled_piece_by_piece() -> None:
    cache = Mapping()
    blocks = [cache.allocate(10 * MIB) for _ in range(10)]  # 100, five pages
    for number in (0, 1, 2, 4, 5, 7, 8):
        cache.free(blocks[number])
    cache.empty_cache()  # 0 to 30, 40 to 60 and 70 to 90 are free: pages 0 and 2, that of the smaller block first
    assert cache.changes[5:] == [("-", 40, 20), ("-", 0, 20)]
    cache.free(blocks[3])  # 20 to 40 are mapped and free, unmapped ones on both sides, 60 to 70 in use
    # 55 find room from 0 on: 20 unmapped, 20 free, 15 of the 20 unmapped.
    assert cache.allocate(55 * MIB).address == cache.bases[0]
    assert cache.changes[7:] == [("+", 0, 20), ("+", 40, 20)]


def test_an_empty_segment_is_given_up() -> None:
    cache = Mapping()
    block = cache.allocate(30 * MIB)
    small = cache.allocate(100)
    cache.free(block)
    cache.free(small)
    cache.empty_cache()
    assert cache.changes == [("+", 0, 40), ("+", 0, 2), ("-", 0, 40), ("-", 0, 2)]
    assert cache.reserved == 0
    cache.allocate(30 * MIB)
    assert len(cache.bases) == 3


def test_at_capacity_free_pages_move() -> None:
    cache = Mapping(capacity=100 * MIB, device_memory=1000 * MIB)
    blocks = [cache.allocate(20 * MIB) for _ in range(4)]
    cache.free(blocks[0])
    cache.free(blocks[2])
    # 50 need three pages at the end, and one is left: 0 to 20 and 40 to 60 are unmapped, then three pages are.
    block = cache.allocate(50 * MIB)
    assert block.address == cache.bases[0] + 80 * MIB
    assert cache.changes[4:] == [("-", 0, 20), ("-", 40, 20), ("+", 80, 60)]
    with pytest.raises(OutOfMemory):
        cache.allocate(11 * MIB)
    cache.allocate(10 * MIB)


def test_pages_mapped_before_memory_ran_out_stay() -> None:
    cache = Mapping(capacity=100 * MIB, device_memory=1000 * MIB)
    blocks = [cache.allocate(20 * MIB) for _ in range(4)]  # 80
    cache.free(blocks[1])
    cache.empty_cache()  # 20 to 40 are unmapped: 60 are reserved
    cache.free(blocks[2])  # 40 to 60
    # 50 find room nowhere before the end: 20 unmapped and 20 free are followed by a block in use. At the end three
    # pages are one too many; then 40 to 60 are unmapped, and they are not.
    assert cache.allocate(50 * MIB).address == cache.bases[0] + 80 * MIB
    assert cache.changes[4:] == [("-", 20, 20), ("-", 40, 20), ("+", 80, 60)]
    # 40 in the gap of 20 to 60: no memory is left at all.
    with pytest.raises(OutOfMemory):
        cache.allocate(40 * MIB)
    assert cache.reserved == 100 * MIB


def test_another_page_size() -> None:
    cache = Mapping(large_segment_size=64 * MIB)
    cache.allocate(65 * MIB)
    cache.allocate(100)
    assert cache.changes == [("+", 0, 128), ("+", 0, 2)]


def test_the_address_space_is_nine_eighths_of_the_device() -> None:
    cache = Mapping(capacity=160 * MIB)
    first, second = cache.allocate(70 * MIB), cache.allocate(10 * MIB)
    assert second.segment.size == 180 * MIB
    cache.free(first)
    cache.empty_cache()  # 0 to 60; 20 stay reserved
    # 120 find no room: 70 before the block in use, 100 behind it. So a second segment begins, and memory suffices.
    assert cache.allocate(120 * MIB).segment is not second.segment
    assert cache.changes == [("+", 0, 80), ("-", 0, 60), ("+", 0, 120)]
    assert len(cache.bases) == 2


@pytest.mark.parametrize("ties", ["address", "segment", "serial"])
def test_streams_have_segments_of_their_own(ties: str) -> None:
    cache = CachingAllocator(Settings(expandable_segments=True, ties=ties))
    blocks = [cache.allocate(5 * MIB, stream) for stream in (0, 7, 0, 7)]
    assert blocks[0].segment is blocks[2].segment is not blocks[1].segment is blocks[3].segment
    assert cache.reserved == 40 * MIB
    for block in blocks:
        cache.free(block)
    cache.empty_cache()
    assert cache.reserved == 0
