"""The allocator's rules, each on a case worked by hand. Sizes are MiB where nothing else is said."""

from __future__ import annotations

import pytest

from memplan.allocator import Block, CachingAllocator, OutOfMemory, Settings
from memplan.errors import ConfigurationError
from memplan.units import GIB, KIB, MIB


class Recording(CachingAllocator):
    """An allocator that notes what it takes from the driver (+) and gives back (-), in MiB."""

    def __init__(
        self, settings: Settings | None = None, capacity: int | None = None, device_memory: int | None = None
    ) -> None:
        self.changes: list[float] = []
        super().__init__(settings, capacity, device_memory)

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        self.changes.append((size if action in ("segment_alloc", "segment_map") else -size) / MIB)


def test_small_requests_share_segments_of_2_mib() -> None:
    cache = Recording()
    first, second = cache.allocate(1000), cache.allocate(1)
    assert (first.size, second.size) == (1024, 512)
    assert second.address == first.address + 1024
    # 2 MiB - 1536 leave room for 1 MiB, the largest small request, but not for two.
    third, fourth = cache.allocate(MIB), cache.allocate(MIB)
    assert third.segment is first.segment
    assert fourth.segment is not first.segment
    assert cache.changes == [2, 2]
    assert (cache.requested, cache.allocated, cache.reserved) == (1001 + 2 * MIB, 1536 + 2 * MIB, 4 * MIB)


def test_requests_between_1_and_10_mib_share_segments_of_20() -> None:
    cache = Recording()
    first = cache.allocate(MIB + 1)  # rounded up it is no small one any more
    second = cache.allocate(10 * MIB - 1)  # 10 MiB when rounded, and that has a segment of its own
    assert first.size == MIB + 512
    assert second.size == 10 * MIB
    # 20 MiB - (1 MiB + 512) hold the second one all the same.
    assert second.segment is first.segment
    assert cache.changes == [20]
    # 9 MiB - 512 are left.
    cache.allocate(9 * MIB)
    assert cache.changes == [20, 20]


@pytest.mark.parametrize(
    ("size", "segment"),
    [(10 * MIB - 512, 20), (10 * MIB, 10), (10 * MIB + 1, 12), (12 * MIB, 12), (13 * MIB, 14), (GIB + 1, 1026)],
)
def test_requests_of_10_mib_and_more_are_rounded_to_2(size: int, segment: int) -> None:
    cache = Recording()
    cache.allocate(size)
    assert cache.changes == [segment]


def test_slack_up_to_1_mib_is_not_split_off_and_counts_as_allocated() -> None:
    cache = Recording()
    # 11.5 in a segment of 12: half a MiB is left.
    block = cache.allocate(11 * MIB + 512 * KIB)
    assert (block.size, block.requested) == (12 * MIB, 11 * MIB + 512 * KIB)
    # 11 in 12: exactly 1 MiB is left, not more.
    assert cache.allocate(11 * MIB).size == 12 * MIB
    # 11 MiB - 512 in 12: 1 MiB + 512 are split off, too little for any other large request of more than that.
    assert cache.allocate(11 * MIB - 512).size == 11 * MIB - 512
    assert cache.changes == [12, 12, 12]
    assert cache.allocated == 35 * MIB - 512
    assert cache.allocate(MIB + 512).size == MIB + 512
    assert cache.changes == [12, 12, 12]


def test_freed_neighbours_merge() -> None:
    cache = Recording()
    blocks = [cache.allocate(5 * MIB) for _ in range(3)]  # 5 are left of 20
    start = blocks[0].address
    cache.free(blocks[0])
    cache.free(blocks[1])
    # 10 and 5 are free: 7 fit in front.
    assert cache.allocate(7 * MIB).address == start
    cache.free(blocks[2])  # between 3 and 5: 13 in a row
    assert cache.allocate(13 * MIB).size == 13 * MIB
    assert cache.changes == [20]
    assert cache.allocated == 20 * MIB


def test_the_smallest_block_that_fits_is_taken() -> None:
    cache = Recording()
    blocks = {size: cache.allocate(size * MIB) for size in (40, 30, 32)}
    for block in blocks.values():
        cache.free(block)
    # 29 in 30: 1 MiB is left, not more. 31 in 32 likewise.
    assert cache.allocate(29 * MIB) is blocks[30]
    assert cache.allocate(31 * MIB) is blocks[32]
    assert cache.allocate(29 * MIB).segment is blocks[40].segment
    assert cache.changes == [40, 30, 32]
    assert cache.allocated == (30 + 32 + 29) * MIB


class Placed(Recording):
    """Segments get the addresses of a list."""

    def __init__(self, settings: Settings, addresses: list[int]) -> None:
        self.addresses = addresses
        super().__init__(settings)

    def place(self, size: int) -> int:
        return self.addresses.pop(0)


@pytest.mark.parametrize(("ties", "winner"), [("address", 1), ("segment", 0), ("serial", 0)])
def test_equal_segments_by_address_or_by_age(ties: str, winner: int) -> None:
    cache = Placed(Settings(ties=ties), [2 * GIB, GIB])
    blocks = [cache.allocate(30 * MIB) for _ in range(2)]
    for block in blocks:
        cache.free(block)
    assert cache.allocate(30 * MIB) is blocks[winner]


@pytest.mark.parametrize(("ties", "offset"), [("address", 0), ("segment", 0), ("serial", 15)])
def test_equal_blocks_of_one_segment(ties: str, offset: int) -> None:
    # Three blocks of 5 are split off the front of 20; in 2.12 each is younger than the remainder at the end.
    cache = Recording(Settings(ties=ties))
    blocks = [cache.allocate(5 * MIB) for _ in range(3)]
    start = blocks[0].address
    cache.free(blocks[0])
    assert cache.allocate(5 * MIB).address == start + offset * MIB


def test_serial_order_survives_merging() -> None:
    # In 2.12 a freed block that swallows its neighbours keeps its own number.
    cache = Recording(Settings(ties="serial"))
    first = [cache.allocate(size * MIB) for size in (3, 2, 5, 5)]  # numbers 2 to 5; the remainder of 5 has 1
    second = cache.allocate(20 * MIB)  # number 6, a segment of its own
    cache.free(first[0])
    cache.free(first[1])  # number 3 now has 5 MiB in front
    cache.free(first[3])  # number 5 merges with the remainder: 10 MiB
    assert cache.allocate(5 * MIB) is first[1]
    assert second.rank > first[3].rank


def test_blocks_of_max_split_size_are_not_split() -> None:
    cache = Recording(Settings(max_split_size=100 * MIB))
    large = cache.allocate(120 * MIB)
    cache.free(large)
    cache.allocate(50 * MIB)  # may not have the 120: they are oversize, the request is not
    assert cache.changes == [120, 50]
    cache.allocate(100 * MIB)  # oversize too, but 120 is not less than 100 + 20
    assert cache.changes == [120, 50, 100]
    assert cache.allocate(101 * MIB) is large
    assert large.size == 120 * MIB
    assert cache.changes == [120, 50, 100]


def test_non_split_rounding_is_a_setting() -> None:
    cache = Recording(Settings(max_split_size=100 * MIB, max_non_split_rounding=60 * MIB))
    large = cache.allocate(150 * MIB)
    cache.free(large)
    assert cache.allocate(100 * MIB) is large
    cache.free(large)
    cache.allocate(99 * MIB)
    assert cache.changes == [150, 100]


def test_a_new_oversize_segment_is_not_split_but_one_below_is() -> None:
    cache = Recording(Settings(max_split_size=21 * MIB))
    assert cache.allocate(21 * MIB + 512).size == 22 * MIB  # the rest of almost 1 MiB would stay anyway
    assert cache.allocate(30 * MIB + 512).size == 32 * MIB  # almost 2 MiB of slack
    assert cache.allocate(20 * MIB + 512).size == 20 * MIB + 512  # 2 MiB - 512 are split off


def test_rounding_divisions_decide_about_the_segment() -> None:
    cache = Recording(Settings(roundup_power2_divisions=(4,) * 16))
    block = cache.allocate(33 * MIB)
    assert (block.size, block.requested) == (40 * MIB, 33 * MIB)
    # 900 KiB round to 1 MiB: still small. 1 MiB + 1 rounds to 1.25 MiB.
    assert cache.allocate(900 * KIB).size == MIB
    assert cache.allocate(MIB + 1).size == MIB + 256 * KIB
    assert cache.changes == [40, 2, 20]


def test_another_large_segment_size() -> None:
    cache = Recording(Settings(large_segment_size=64 * MIB))
    cache.allocate(2 * MIB)
    cache.allocate(9 * MIB)
    cache.allocate(54 * MIB)  # 53 are left
    assert cache.changes == [64, 54]


def test_streams_do_not_share() -> None:
    cache = Recording()
    cache.free(cache.allocate(100, stream=0))
    cache.allocate(100, stream=7)
    cache.allocate(100, stream=0)
    assert cache.changes == [2, 2]


def test_nothing_goes_back_before_the_cache_is_emptied() -> None:
    cache = Recording()
    blocks = [cache.allocate(size) for size in (100, 3 * MIB, 50 * MIB, 30 * MIB)]
    kept = cache.allocate(200)
    for block in blocks:
        cache.free(block)
    assert cache.reserved == 102 * MIB
    # The large pool first, smallest block first; the small segment holds `kept`.
    cache.empty_cache()
    assert cache.changes == [2, 20, 50, 30, -20, -30, -50]
    cache.free(kept)
    cache.empty_cache()
    assert cache.reserved == cache.allocated == cache.requested == 0
    assert (cache.peak_reserved, cache.peak_allocated) == (102 * MIB, 83 * MIB + 1024)


def test_peaks_start_again_where_they_are_told_to() -> None:
    cache = Recording()
    first, second = cache.allocate(30 * MIB), cache.allocate(40 * MIB)
    cache.free(second)
    cache.reset_peaks()
    assert (cache.peak_allocated, cache.peak_reserved) == (30 * MIB, 70 * MIB)
    cache.allocate(10 * MIB)
    assert (cache.peak_allocated, cache.peak_reserved) == (40 * MIB, 70 * MIB)
    cache.free(first)
    assert cache.peak_allocated == 40 * MIB


def test_at_capacity_everything_cached_is_given_back_and_tried_again() -> None:
    cache = Recording(capacity=100 * MIB)
    cache.free(cache.allocate(60 * MIB))
    cache.free(cache.allocate(100))
    cache.allocate(70 * MIB)
    assert cache.changes == [60, 2, -60, -2, 70]


def test_segments_in_use_are_not_given_back() -> None:
    cache = Recording(capacity=100 * MIB)
    kept = cache.allocate(5 * MIB)  # 20
    cache.free(cache.allocate(60 * MIB))
    cache.allocate(70 * MIB)
    assert cache.changes == [20, 60, -60, 70]
    assert not kept.free


def test_out_of_memory_says_how_it_stands() -> None:
    cache = Recording(capacity=100 * MIB)
    cache.allocate(60 * MIB)
    cache.free(cache.allocate(30 * MIB))
    with pytest.raises(OutOfMemory, match=r"40\.00 MiB on top of 60\.00 MiB allocated, 60\.00 MiB of 100") as raised:
        cache.allocate(40 * MIB + 1)
    error = raised.value
    assert (error.requested, error.allocated, error.reserved, error.capacity) == (
        40 * MIB + 1, 60 * MIB, 60 * MIB, 100 * MIB,
    )  # fmt: skip
    # Nothing else has changed: what fits is still given.
    cache.allocate(40 * MIB)
    assert cache.changes == [60, 30, -30, 40]


def test_one_oversize_block_is_given_back_where_that_suffices() -> None:
    cache = Recording(Settings(max_split_size=30 * MIB), capacity=130 * MIB)
    for block in [cache.allocate(40 * MIB), cache.allocate(80 * MIB)]:
        cache.free(block)
    # 80 is not less than 55 + 20, so a segment of 56 is needed: 120 + 56 > 130. The 80 alone go.
    cache.allocate(55 * MIB)
    assert cache.changes == [40, 80, -80, 56]


def test_oversize_blocks_are_given_back_largest_first_until_they_suffice() -> None:
    cache = Recording(Settings(max_split_size=30 * MIB), capacity=130 * MIB)
    for block in [cache.allocate(size * MIB) for size in (30, 50, 40)]:
        cache.free(block)
    # None has 80; 50 + 40 suffice.
    cache.allocate(80 * MIB)
    assert cache.changes == [30, 50, 40, -50, -40, 80]


def test_where_oversize_blocks_do_not_suffice_everything_goes() -> None:
    cache = Recording(Settings(max_split_size=30 * MIB), capacity=130 * MIB)
    for block in [cache.allocate(size * MIB) for size in (50, 40, 20)]:
        cache.free(block)
    # 50 + 40 < 95: they are gone all the same, and then the rest.
    cache.allocate(95 * MIB)
    assert cache.changes == [50, 40, 20, -50, -40, -20, 96]


def test_a_memory_fraction_is_a_limit() -> None:
    cache = Recording(Settings(memory_fraction=0.5), device_memory=100 * MIB)
    cache.free(cache.allocate(30 * MIB))
    cache.allocate(40 * MIB)
    assert cache.changes == [30, -30, 40]
    with pytest.raises(OutOfMemory) as raised:
        cache.allocate(12 * MIB)
    assert raised.value.capacity == 50 * MIB
    cache.set_memory_fraction(1.0)
    cache.allocate(12 * MIB)
    with pytest.raises(ConfigurationError):
        cache.set_memory_fraction(1.1)
    with pytest.raises(ConfigurationError, match="device's memory"):
        CachingAllocator(Settings(memory_fraction=0.5))


COLLECTING = Settings(garbage_collection_threshold=0.6, memory_fraction=0.5)
"""Of 1,000 MiB, 500 are allowed, and above 300 garbage is collected."""


def test_garbage_of_average_age_is_collected() -> None:
    cache = Recording(COLLECTING, device_memory=1000 * MIB)
    blocks = [cache.allocate(size * MIB) for size in (100, 120, 140)]  # searches 1 to 3
    cache.free(blocks[0])
    cache.free(blocks[1])
    # Search 4 finds no 200. Reserved are 360, 60 too many. Both free blocks are 1 search old, the average: both go.
    cache.allocate(200 * MIB)
    assert cache.changes == [100, 120, 140, -100, -120, 200]


def test_garbage_older_than_average_is_collected_first() -> None:
    cache = Recording(COLLECTING, device_memory=1000 * MIB)
    blocks = [cache.allocate(size * MIB) for size in (60, 50, 40, 100)]  # searches 1 to 4
    cache.free(blocks[0])  # at 4
    cache.free(blocks[2])
    for _ in range(2):
        assert cache.allocate(40 * MIB) is blocks[2]  # searches 5 and 6
        cache.free(blocks[2])  # the last time at 6
    cache.allocate(100 * MIB)  # search 7; 250 reserved are not too many
    # Search 8: 350 are reserved, 50 too many. Ages 8 - 4 = 4 and 8 - 6 = 2, average 3: the 60 go, and suffice.
    cache.allocate(90 * MIB)
    assert cache.changes == [60, 50, 40, 100, 100, -60, 90]


def test_garbage_is_collected_in_rounds_until_it_suffices() -> None:
    cache = Recording(COLLECTING, device_memory=1000 * MIB)
    blocks = [cache.allocate(size * MIB) for size in (60, 50, 40, 100)]  # searches 1 to 4
    cache.free(blocks[0])  # at 4
    cache.free(blocks[2])
    assert cache.allocate(40 * MIB) is blocks[2]  # search 5
    cache.free(blocks[2])  # at 5
    cache.allocate(130 * MIB)  # search 6; 250 reserved are not too many
    # Search 7: 380 are reserved, 80 too many. Ages 3 and 2, average 2.5: the 60 go. That is not enough: of the 40 left,
    # the average is their own age, and they go too.
    cache.allocate(110 * MIB)
    assert cache.changes == [60, 50, 40, 100, 130, -60, -40, 110]


def test_split_segments_are_no_garbage() -> None:
    cache = Recording(COLLECTING, device_memory=1000 * MIB)
    blocks = [cache.allocate(size * MIB) for size in (150, 5, 170)]
    cache.free(blocks[0])
    part = cache.allocate(20 * MIB)  # of the 150
    cache.allocate(140 * MIB)  # 130 are left; reserved 340, and nothing whole is free
    assert cache.changes == [150, 20, 170, 140]
    assert not part.free


def test_without_a_fraction_no_garbage_is_collected() -> None:
    cache = Recording(Settings(garbage_collection_threshold=0.1), capacity=1000 * MIB)
    cache.free(cache.allocate(500 * MIB))
    cache.allocate(501 * MIB - MIB)  # the very block
    cache.allocate(498 * MIB)
    assert cache.changes == [500, 498]


def test_deferred_frees_are_taken_until_they_are_finished() -> None:
    cache = Recording()
    block = cache.allocate(30 * MIB)
    cache.defer_free(block)
    assert (cache.allocated, cache.active, cache.requested) == (0, 30 * MIB, 30 * MIB)
    other = cache.allocate(30 * MIB)
    assert other is not block
    cache.finish_free(block)
    assert (cache.allocated, cache.active, cache.requested) == (30 * MIB, 30 * MIB, 30 * MIB)
    assert cache.allocate(30 * MIB) is block
    cache.defer_free(block)
    cache.empty_cache()  # waits for all streams
    assert cache.changes == [30, 30, -30]
    assert cache.active == cache.allocated == 30 * MIB


def test_wrong_use_is_refused() -> None:
    cache = CachingAllocator()
    with pytest.raises(ValueError, match="0 bytes"):
        cache.allocate(0)
    block: Block = cache.allocate(10)
    cache.free(block)
    with pytest.raises(ValueError, match="twice"):
        cache.free(block)
    kept = cache.allocate(10)
    cache.defer_free(kept)
    with pytest.raises(ValueError, match="twice"):
        cache.defer_free(kept)
