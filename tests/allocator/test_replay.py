"""Snapshots written by hand: the segment events in them follow from the rules, worked out in the comments (in MiB). The
replay must find the same ones, at the same addresses; and must find what is wrong in a wrong one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memplan.allocator import Settings, parse_settings
from memplan.allocator.snapshot import Comparison, replay_snapshot
from memplan.errors import MeasurementError, NotModelledError
from memplan.units import KIB, MIB

from .builder import A, B, C, D, Trace

DEFAULT = Settings()


def same(trace: Trace, settings: Settings = DEFAULT, **limits: int) -> Comparison:
    """The replay, which found nothing wrong."""
    result = replay_snapshot(trace.snapshot(), settings, **limits)
    assert result.difference is None
    assert result.same
    assert result.misplaced == 0
    assert result.reserved_predicted == result.reserved_recorded
    assert result.peak_predicted == result.peak_recorded
    assert result.events == len([entry for entry in trace.entries if entry["action"] != "snapshot"])
    assert result.segment_events == sum(entry["action"].startswith("segment") for entry in trace.entries)
    return result


def test_small_requests_are_packed() -> None:
    trace = Trace()
    trace.segment(A, 2 * MIB)
    trace.alloc(A, 1000)  # 1024
    trace.alloc(A + 1024, 1)  # 512
    trace.alloc(A + 1536, MIB)
    # 2,097,152 - 1,536 - 1,048,576 = 1,047,040 are left: too little for another 1,048,576.
    trace.segment(B, 2 * MIB)
    trace.alloc(B, MIB)
    trace.alloc(A + 1536 + MIB, 1_047_040)
    trace.add("snapshot", 0, 1)
    trace.holds(A, [(1024, 1000), (512, 1), (MIB, MIB), (1_047_040, 1_047_040)], large=False)
    trace.holds(B, [(MIB, MIB), (MIB, 0)], large=False)
    result = same(trace)
    assert result.reserved_predicted == 4 * MIB
    assert result.segment_events == 2


def test_segments_of_20_split_and_merged() -> None:
    trace = Trace()
    trace.segment(A, 20 * MIB)
    for number in range(3):
        trace.alloc(A + number * 5 * MIB, 5 * MIB)  # 5 are left at 15
    trace.free(A, 5 * MIB)
    trace.free(A + 5 * MIB, 5 * MIB)  # merged: 10 at 0
    # 9.5 do not fit 5, but 10: 0.5 is left, which is not split off.
    trace.alloc(A, 9 * MIB + 512 * KIB)
    # 6 fit nowhere: another 20.
    trace.segment(B, 20 * MIB)
    trace.alloc(B, 6 * MIB)
    trace.alloc(A + 15 * MIB, 4 * MIB + 1)  # 5 - 4.0005 is not more than 1: no split either
    trace.free(A + 10 * MIB, 5 * MIB)  # alone between the two
    trace.free(A + 15 * MIB, 4 * MIB + 1)  # with its slack: 10 at 10
    trace.alloc(A + 10 * MIB, 8 * MIB)  # smaller than the 14 in B: 10 - 8 = 2 are split off
    trace.alloc(A + 18 * MIB, 2 * MIB)
    trace.holds(A, [(10 * MIB, 9 * MIB + 512 * KIB), (8 * MIB, 8 * MIB), (2 * MIB, 2 * MIB)])
    trace.holds(B, [(6 * MIB, 6 * MIB), (14 * MIB, 0)])
    assert same(trace).reserved_predicted == 40 * MIB


def test_10_mib_and_more_are_rounded_to_2() -> None:
    trace = Trace()
    trace.segment(A, 10 * MIB)
    trace.alloc(A, 10 * MIB)
    trace.segment(B, 12 * MIB)
    trace.alloc(B, 10 * MIB + 1)  # 10 MiB + 512: 2 MiB - 512 are split off
    trace.alloc(B + 10 * MIB + 512, MIB + 1)  # 1 MiB + 512; the rest of 1 MiB - 1024 is slack
    trace.segment(C, 14 * MIB)
    trace.alloc(C, 13 * MIB)
    trace.holds(A, [(10 * MIB, 10 * MIB)])
    trace.holds(B, [(10 * MIB + 512, 10 * MIB + 1), (2 * MIB - 512, MIB + 1)])
    trace.holds(C, [(14 * MIB, 13 * MIB)])
    assert same(trace).peak_predicted == 36 * MIB


def test_best_fit_takes_the_smallest_then_the_oldest() -> None:
    trace = Trace()
    for address, size in ((B, 40), (C, 30), (A, 30)):
        trace.segment(address, size * MIB)
        trace.alloc(address, size * MIB)
    for address, size in ((A, 30), (B, 40), (C, 30)):
        trace.free(address, size * MIB)
    # Of the two 30, C is the older segment and A the lower address.
    trace.alloc(C, 29 * MIB)
    trace.alloc(A, 29 * MIB)
    trace.alloc(B, 29 * MIB)
    trace.holds(A, [(30 * MIB, 29 * MIB)])
    trace.holds(B, [(29 * MIB, 29 * MIB), (11 * MIB, 0)])
    trace.holds(C, [(30 * MIB, 29 * MIB)])
    same(trace)
    same(trace, parse_settings("", torch=(2, 12)))
    # Up to 2.11 the addresses decide. The segments are the same, the places are not.
    older = replay_snapshot(trace.snapshot(), parse_settings("", torch=(2, 11)))
    assert older.same
    assert older.misplaced == 2


def test_no_block_of_max_split_size_is_split() -> None:
    trace = Trace()
    trace.segment(A, 120 * MIB)
    trace.alloc(A, 120 * MIB)
    trace.free(A, 120 * MIB)
    trace.segment(B, 50 * MIB)  # 50 may not have the oversize 120
    trace.alloc(B, 50 * MIB)
    trace.segment(C, 100 * MIB)  # 120 is not less than 100 + 20
    trace.alloc(C, 100 * MIB)
    trace.alloc(A, 101 * MIB)  # 120 is less than 101 + 20, and not split
    trace.holds(A, [(120 * MIB, 101 * MIB)])
    trace.holds(B, [(50 * MIB, 50 * MIB)])
    trace.holds(C, [(100 * MIB, 100 * MIB)])
    same(trace, Settings(max_split_size=100 * MIB))
    wrong = replay_snapshot(trace.snapshot(), DEFAULT)
    assert wrong.difference is not None
    assert "segment_alloc of 52,428,800 bytes" in wrong.difference
    assert "was recorded, and nothing predicted" in wrong.difference


def test_rounding_divisions() -> None:
    trace = Trace()
    trace.segment(A, 40 * MIB)  # 33 lie between 32 and 64: a quarter of the way is 8
    trace.alloc(A, 33 * MIB)
    trace.segment(B, 2 * MIB)
    trace.alloc(B, 5000)  # 4096 + 1024
    trace.alloc(B + 5120, 1)
    trace.holds(A, [(40 * MIB, 33 * MIB)])
    trace.holds(B, [(5120, 5000), (512, 1), (2 * MIB - 5632, 0)], large=False)
    same(trace, parse_settings("roundup_power2_divisions:4"))
    # Without the setting a segment of 34 would do.
    wrong = replay_snapshot(trace.snapshot(), DEFAULT)
    assert wrong.difference is not None
    assert "segment_alloc of 35,651,584 bytes" in wrong.difference
    # The simulation goes on: 34 + 2 against 40 + 2.
    assert (wrong.reserved_predicted, wrong.reserved_recorded) == (36 * MIB, 42 * MIB)


def test_garbage_is_collected() -> None:
    # Of 1,000 MiB half is allowed, and above 0.6 of that, 300, garbage is collected.
    settings = Settings(garbage_collection_threshold=0.6, memory_fraction=0.5)
    trace = Trace()
    for address, size in ((A, 60), (B, 50), (C, 40), (D, 100)):  # searches 1 to 4 of the large pool
        trace.segment(address, size * MIB)
        trace.alloc(address, size * MIB)
    trace.free(A, 60 * MIB)  # at 4
    trace.free(C, 40 * MIB)
    for _ in range(2):
        trace.alloc(C, 40 * MIB)  # searches 5 and 6
        trace.free(C, 40 * MIB)  # the last time at 6
    trace.segment(D + 200 * MIB, 100 * MIB)  # search 7; 250 are not too many
    trace.alloc(D + 200 * MIB, 100 * MIB)
    # Search 8: 350 are 50 too many. Ages: 8 - 4 = 4 and 8 - 6 = 2, average 3: only the 60 are that old, and suffice.
    trace.release(A, 60 * MIB)
    trace.segment(A, 90 * MIB)
    trace.alloc(A, 90 * MIB)
    trace.holds(A, [(90 * MIB, 90 * MIB)])
    trace.holds(B, [(50 * MIB, 50 * MIB)])
    trace.holds(C, [(40 * MIB, 0)])
    trace.holds(D, [(100 * MIB, 100 * MIB)])
    trace.holds(D + 200 * MIB, [(100 * MIB, 100 * MIB)])
    assert same(trace, settings, device_memory=1000 * MIB).peak_predicted == 380 * MIB
    # Without collection nobody would have given the 60 back.
    wrong = replay_snapshot(trace.snapshot(), DEFAULT)
    assert wrong.difference is not None
    assert "segment_free" in wrong.difference


def retried() -> Trace:
    """60 cached and 20 in use of 100; 70 do not fit beside them."""
    trace = Trace()
    trace.segment(A, 20 * MIB)
    trace.alloc(A, 5 * MIB)
    trace.segment(B, 60 * MIB)
    trace.alloc(B, 60 * MIB)
    trace.segment(C, 2 * MIB)
    trace.alloc(C, 100)
    trace.free(B, 60 * MIB)
    trace.free(C, 100)
    # The large pool is given back first; A is split.
    trace.release(B, 60 * MIB)
    trace.release(C, 2 * MIB)
    trace.segment(D, 70 * MIB)
    trace.alloc(D, 70 * MIB)
    return trace


def test_everything_is_given_back_and_tried_again_at_capacity() -> None:
    trace = retried()
    trace.holds(A, [(5 * MIB, 5 * MIB), (15 * MIB, 0)])
    trace.holds(D, [(70 * MIB, 70 * MIB)])
    # That the driver refused is predicted from its capacity, or told by the trace.
    assert same(trace, capacity=100 * MIB).peak_predicted == 90 * MIB
    same(trace)
    # With 160 MiB there was no reason to give anything back.
    wrong = replay_snapshot(trace.snapshot(), DEFAULT, capacity=160 * MIB)
    assert wrong.difference is None or "segment_free" in wrong.difference


def test_out_of_memory() -> None:
    trace = retried()
    trace.free(D, 70 * MIB)
    # 90 beside 20: D is given back, and that is not enough.
    trace.release(D, 70 * MIB)
    trace.add("oom", 10 * MIB, 90 * MIB)
    trace.segment(B, 80 * MIB)
    trace.alloc(B, 80 * MIB)
    trace.holds(A, [(5 * MIB, 5 * MIB), (15 * MIB, 0)])
    trace.holds(B, [(80 * MIB, 80 * MIB)])
    same(trace, capacity=100 * MIB)
    same(trace)
    wrong = replay_snapshot(trace.snapshot(), DEFAULT, capacity=200 * MIB)
    assert wrong.difference is not None


def test_oversize_blocks_are_given_back_before_the_rest() -> None:
    settings = Settings(max_split_size=30 * MIB)
    trace = Trace()
    for address, size in ((A, 30), (B, 50), (C, 40)):
        trace.segment(address, size * MIB)
        trace.alloc(address, size * MIB)
    for address, size in ((A, 30), (B, 50), (C, 40)):
        trace.free(address, size * MIB)
    # 80 on top of 120 are too many for 130. None of the oversize blocks has 80; 50 + 40 do.
    trace.release(B, 50 * MIB)
    trace.release(C, 40 * MIB)
    trace.segment(D, 80 * MIB)
    trace.alloc(D, 80 * MIB)
    trace.holds(A, [(30 * MIB, 0)])
    trace.holds(D, [(80 * MIB, 80 * MIB)])
    same(trace, settings, capacity=130 * MIB)
    same(trace, settings)


def test_expandable_segments() -> None:
    settings = Settings(expandable_segments=True)
    trace = Trace()
    trace.map(A, 20 * MIB)
    trace.alloc(A, 5 * MIB)
    # 15 are left; 18 need 3 more, a page.
    trace.map(A + 20 * MIB, 20 * MIB)
    trace.alloc(A + 5 * MIB, 18 * MIB)
    trace.map(B, 2 * MIB)  # the small pool has a segment of its own
    trace.alloc(B, MIB)
    trace.alloc(B + MIB, 700 * KIB)
    trace.map(B + 2 * MIB, 2 * MIB)  # 324 KiB are left
    trace.alloc(B + MIB + 700 * KIB, 700 * KIB)
    trace.free(A + 5 * MIB, 18 * MIB)  # 5 to 40 are free
    # empty_cache(): of 5 to 40 the page 20 to 40 is whole.
    trace.unmap(A + 20 * MIB, 20 * MIB)
    # 30 begin where free space begins: 15 are mapped, 15 missing.
    trace.map(A + 20 * MIB, 20 * MIB)
    trace.alloc(A + 5 * MIB, 30 * MIB)
    trace.holds(A, [(5 * MIB, 5 * MIB), (30 * MIB, 30 * MIB), (5 * MIB, 0)], expandable=True)
    trace.holds(
        B,
        [(MIB, MIB), (700 * KIB, 700 * KIB), (700 * KIB, 700 * KIB), (3 * MIB - 1400 * KIB, 0)],
        large=False,
        expandable=True,
    )
    assert same(trace, settings).reserved_predicted == 44 * MIB
    wrong = replay_snapshot(trace.snapshot(), DEFAULT)
    assert wrong.difference is not None
    assert "segment_alloc of 20,971,520 bytes" in wrong.difference


def test_expandable_segments_at_capacity() -> None:
    settings = Settings(expandable_segments=True)
    trace = Trace()
    for number in range(4):
        trace.map(A + number * 20 * MIB, 20 * MIB)
        trace.alloc(A + number * 20 * MIB, 20 * MIB)
    trace.free(A, 20 * MIB)
    trace.free(A + 40 * MIB, 20 * MIB)
    # 50 fit no gap; at the end three pages are needed, and of 100 only one is left. Both gaps are unmapped first.
    trace.unmap(A, 20 * MIB)
    trace.unmap(A + 40 * MIB, 20 * MIB)
    trace.map(A + 80 * MIB, 60 * MIB)
    trace.alloc(A + 80 * MIB, 50 * MIB)
    trace.holds(A + 20 * MIB, [(20 * MIB, 20 * MIB)], expandable=True)
    trace.holds(A + 60 * MIB, [(20 * MIB, 20 * MIB), (50 * MIB, 50 * MIB), (10 * MIB, 0)], expandable=True)
    same(trace, settings, capacity=100 * MIB, device_memory=1000 * MIB)
    same(trace, settings)


def test_streams_do_not_share() -> None:
    trace = Trace()
    trace.segment(A, 2 * MIB)
    trace.alloc(A, 512)
    trace.free(A, 512)
    trace.segment(B, 2 * MIB, stream=7)
    trace.alloc(B, 512, stream=7)
    trace.alloc(A, 512)
    # empty_cache() after all is freed: by stream where the sizes are equal.
    trace.free(B, 512, stream=7)
    trace.free(A, 512)
    trace.release(A, 2 * MIB)
    trace.release(B, 2 * MIB, stream=7)
    result = same(trace)
    assert result.reserved_predicted == 0
    assert result.peak_predicted == 4 * MIB


def test_a_block_that_other_streams_use_is_not_free_before_they_are_done() -> None:
    trace = Trace()
    trace.segment(A, 30 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.add("free_requested", A, 30 * MIB)
    trace.segment(B, 30 * MIB)
    trace.alloc(B, 30 * MIB)
    trace.add("free_completed", A, 30 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.holds(A, [(30 * MIB, 30 * MIB)])
    trace.holds(B, [(30 * MIB, 30 * MIB)])
    same(trace)


def test_waiting_for_other_streams_in_the_middle_of_an_allocation() -> None:
    # 60 is oversize, and given back first; then the allocator waits for the stream that uses 40 still, and gives back
    # the 40 too.
    settings = Settings(max_split_size=50 * MIB)
    trace = Trace()
    trace.segment(A, 60 * MIB)
    trace.alloc(A, 60 * MIB)
    trace.segment(B, 40 * MIB)
    trace.alloc(B, 40 * MIB)
    trace.free(A, 60 * MIB)
    trace.add("free_requested", B, 40 * MIB)
    trace.release(A, 60 * MIB)
    trace.add("free_completed", B, 40 * MIB)
    trace.release(B, 40 * MIB)
    trace.segment(C, 90 * MIB)
    trace.alloc(C, 90 * MIB)
    trace.holds(C, [(90 * MIB, 90 * MIB)])
    same(trace, settings, capacity=110 * MIB)
    same(trace, settings)


def test_an_emptied_cache_is_told_by_what_it_gave_back() -> None:
    trace = Trace()
    trace.segment(A, 30 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.segment(B, 20 * MIB)
    trace.alloc(B, 5 * MIB)
    trace.free(A, 30 * MIB)
    trace.release(A, 30 * MIB)  # empty_cache() before an allocation that needs nothing
    trace.alloc(B + 5 * MIB, 5 * MIB)
    trace.free(B, 5 * MIB)
    trace.free(B + 5 * MIB, 5 * MIB)
    trace.release(B, 20 * MIB)  # and at the end
    assert same(trace).reserved_predicted == 0


# ---- the state before the trace


def test_a_trace_that_begins_later_begins_with_the_segments_of_then() -> None:
    trace = Trace()
    trace.free(A, 1000)  # from before: 1024 of the small segment, in front
    trace.alloc(A, 600)  # 1024 again; 512 are left of it? no: the block is 1024 and so is the request
    trace.free(B + 12 * MIB, 12 * MIB)  # 12 of 24 that were in use before
    trace.alloc(B + 12 * MIB, 11 * MIB)
    trace.release(C, 30 * MIB)  # empty_cache(): cached since before
    trace.segment(D, 14 * MIB)
    trace.alloc(D, 14 * MIB)
    trace.holds(A, [(1024, 600), (512, 100), (2 * MIB - 1536, 0)], large=False)
    trace.holds(B, [(12 * MIB, 12 * MIB), (12 * MIB, 11 * MIB)])
    trace.holds(D, [(14 * MIB, 14 * MIB)])
    result = same(trace)
    assert result.peak_recorded == 56 * MIB
    assert result.reserved_recorded == 40 * MIB


def test_slack_of_a_block_from_before_is_found() -> None:
    # 11.5 in a segment of 12 that was in use before: the half MiB behind it can only be slack.
    trace = Trace()
    trace.free(A, 11 * MIB + 512 * KIB)
    trace.alloc(A, 12 * MIB)
    trace.holds(A, [(12 * MIB, 12 * MIB)])
    same(trace)


def test_a_block_whose_size_nobody_knows_is_refused() -> None:
    # 5 of 20 in use before: 15 behind it were free, or some of them its slack.
    trace = Trace()
    trace.free(A, 5 * MIB)
    trace.holds(A, [(20 * MIB, 0)])
    with pytest.raises(MeasurementError, match="does not say how large") as raised:
        replay_snapshot(trace.snapshot(), DEFAULT)
    assert raised.value.hint is not None
    # Oversize blocks are never split: it had the whole segment.
    trace = Trace()
    trace.free(A, 50 * MIB + 1)
    trace.alloc(A, 51 * MIB)
    trace.holds(A, [(52 * MIB, 51 * MIB)])
    same(trace, Settings(max_split_size=40 * MIB))


def test_expandable_segments_from_before_are_refused() -> None:
    trace = Trace()
    trace.free(A, 5 * MIB)
    trace.holds(A, [(20 * MIB, 0)], expandable=True)
    with pytest.raises(NotModelledError, match="expandable"):
        replay_snapshot(trace.snapshot(), Settings(expandable_segments=True))
    trace = Trace()
    trace.free(A, 20 * MIB)
    trace.unmap(A, 20 * MIB)
    with pytest.raises(NotModelledError, match="expandable"):
        replay_snapshot(trace.snapshot(), Settings(expandable_segments=True))


def test_an_oversize_block_that_shrinks_when_its_pages_go() -> None:
    # 40 are mapped, 30 in use and 10 free; then 20 more for 30 at 30. The first 30 are freed: oversize for 1. Nothing
    # else is free, and of 64 no page is left: page 0 goes, and comes back at once as the lowest free space. A search
    # would have found the 10 from 20 to 30.
    settings = Settings(expandable_segments=True, max_split_size=25 * MIB)
    trace = Trace()
    trace.map(A, 40 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.map(A + 40 * MIB, 20 * MIB)
    trace.alloc(A + 30 * MIB, 30 * MIB)
    trace.free(A, 30 * MIB)
    trace.unmap(A, 20 * MIB)
    trace.map(A, 20 * MIB)
    trace.alloc(A, MIB + 1)
    trace.holds(A, [(MIB + 512, MIB + 1), (29 * MIB - 512, 0), (30 * MIB, 30 * MIB)], expandable=True)
    same(trace, settings, capacity=64 * MIB, device_memory=1000 * MIB)
    same(trace, settings)
    # After empty_cache() it does search.
    trace = Trace()
    trace.map(A, 40 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.map(A + 40 * MIB, 20 * MIB)
    trace.alloc(A + 30 * MIB, 30 * MIB)
    trace.free(A, 30 * MIB)
    trace.unmap(A, 20 * MIB)
    trace.alloc(A + 20 * MIB, MIB + 1)
    trace.holds(A + 20 * MIB, [(MIB + 512, MIB + 1), (9 * MIB - 512, 0), (30 * MIB, 30 * MIB)], expandable=True)
    same(trace, settings, capacity=640 * MIB, device_memory=1000 * MIB)
    same(trace, settings)


def test_garbage_from_before_is_refused() -> None:
    trace = Trace()
    trace.alloc(A, 30 * MIB)
    trace.holds(A, [(30 * MIB, 30 * MIB)])
    same(trace)
    with pytest.raises(NotModelledError, match="age of garbage"):
        replay_snapshot(
            trace.snapshot(),
            Settings(garbage_collection_threshold=0.5, memory_fraction=0.5),
            device_memory=1000 * MIB,
        )


def test_a_deferred_free_from_before() -> None:
    trace = Trace()
    trace.segment(B, 30 * MIB)
    trace.alloc(B, 30 * MIB)  # A is waited for: free_requested came before the trace
    trace.add("free_completed", A, 30 * MIB)
    trace.alloc(A, 30 * MIB)
    trace.holds(A, [(30 * MIB, 30 * MIB)])
    trace.holds(B, [(30 * MIB, 30 * MIB)])
    same(trace)


# ---- what is refused


def _simple() -> Trace:
    trace = Trace()
    trace.segment(A, 2 * MIB)
    trace.alloc(A, 512)
    trace.holds(A, [(512, 512), (2 * MIB - 512, 0)], large=False)
    return trace


def _no_action(trace: Trace) -> None:
    del trace.entries[0]["action"]


def _unknown_action(trace: Trace) -> None:
    trace.entries[0]["action"] = "segment_move"


def _text_for_a_size(trace: Trace) -> None:
    trace.entries[1]["size"] = "512"


def _no_bytes(trace: Trace) -> None:
    trace.entries[1]["size"] = 0


def _gap_between_blocks(trace: Trace) -> None:
    trace.segments[0]["blocks"][0]["size"] = 1024


def _alloc_without_trace_in_the_segments(trace: Trace) -> None:
    trace.alloc(A + 512, 512)


def _segment_of_another_size(trace: Trace) -> None:
    trace.entries[0]["size"] = 4 * MIB


def _nothing_happened(trace: Trace) -> None:
    trace.entries.clear()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_no_action, "entry 0 of the trace has no action"),
        (_unknown_action, "unknown action 'segment_move'"),
        (_text_for_a_size, "entry 1 of the trace has no size"),
        (_no_bytes, "a size of 0"),
        (_gap_between_blocks, "do not tile"),
        (_alloc_without_trace_in_the_segments, "contradict"),
        (_segment_of_another_size, "contradict"),
        (_nothing_happened, "is empty"),
    ],
)
def test_damaged_snapshots_are_refused(damage: Callable[[Trace], None], fault: str) -> None:
    trace = _simple()
    same(trace)
    damage(trace)
    with pytest.raises(MeasurementError, match=fault):
        replay_snapshot(trace.snapshot(), DEFAULT)


def test_other_devices_are_left_out() -> None:
    trace = _simple()
    other = _simple()
    for segment in other.segments:
        segment["device"] = 1
    snapshot = {"segments": trace.segments + other.segments, "device_traces": [trace.entries, other.entries]}
    assert all(replay_snapshot(snapshot, DEFAULT, device).same for device in (0, 1))
    with pytest.raises(MeasurementError, match="no trace of device 2"):
        replay_snapshot(snapshot, DEFAULT, device=2)


def test_other_pools_are_refused() -> None:
    trace = _simple()
    trace.entries[1]["pool_id"] = (0, 1)
    with pytest.raises(NotModelledError, match="memory pool"):
        replay_snapshot(trace.snapshot(), DEFAULT)
    trace = _simple()
    trace.segments[0]["segment_pool_id"] = (3, 0)
    with pytest.raises(NotModelledError, match="memory pool"):
        replay_snapshot(trace.snapshot(), DEFAULT)
