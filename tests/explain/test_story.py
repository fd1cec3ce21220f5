"""What a trace tells is what the allocator did: sizes, peaks and free bytes, also where the trace begins late."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.allocator import OutOfMemory, Settings
from memplan.explain.recording import record_of
from memplan.explain.rules import settings_of
from memplan.explain.story import Story
from memplan.units import MIB

from .simulated import Recorder, frame

SIZES = st.one_of(
    st.integers(1, 4 * MIB),
    st.integers(1, 60 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB, 10 * MIB + 512, 20 * MIB, 21 * MIB - 512]),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), SIZES, st.sampled_from([0, 0, 0, 7])),
        st.tuples(st.just("drop"), st.integers(0, 999), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=80,
)
CONFIGURATIONS = st.builds(
    Settings,
    expandable_segments=st.booleans(),
    max_split_size=st.sampled_from((None, None, 25 * MIB)),
    roundup_power2_divisions=st.sampled_from(((), (), (4,) * 16)),
)


def named(configuration: Settings) -> dict[str, Any]:
    """The settings as PyTorch's snapshot names them."""
    divisions = configuration.roundup_power2_divisions or (0,) * 16
    return {
        "PYTORCH_CUDA_ALLOC_CONF": "",
        "expandable_segments": configuration.expandable_segments,
        "max_split_size": configuration.max_split_size or -1,
        "garbage_collection_threshold": 0.0,
        "roundup_power2_divisions": {str(1 << place): number for place, number in enumerate(divisions)},
    }


def told(snapshot: dict[str, Any]) -> Story:
    recording = record_of(snapshot)
    return Story(recording, settings_of(recording))


def run(recorder: Recorder, operations: list[tuple[str, int, int]]) -> list[tuple[int, int, int]]:
    """Run them; behind every line of the trace: bytes allocated, asked for and reserved."""
    states: list[tuple[int, int, int]] = []
    live: list[Any] = []
    for action, number, stream in operations:
        if action == "take":
            try:
                live.append(recorder.take(number, stream))
            except OutOfMemory:
                recorder.note("oom", 1000, recorder.settings.round_size(number), stream)
        elif action == "drop" and live:
            recorder.drop(live.pop(number % len(live)))
        elif action == "empty":
            recorder.empty_cache()
        state = (recorder.allocated, recorder.requested, recorder.reserved)
        states += [state] * (len(recorder.entries) - len(states))
    return states


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(CONFIGURATIONS, st.sampled_from((None, 100 * MIB)), OPERATIONS)
def test_a_whole_trace_tells_everything(
    configuration: Settings, capacity: int | None, operations: list[tuple[str, int, int]]
) -> None:
    recorder = Recorder(configuration, capacity)
    states = run(recorder, operations)
    if not recorder.entries:
        return
    story = told({**recorder.snapshot(), "allocator_settings": named(configuration)})
    assert story.strange == story.repaired == story.differing == 0
    assert story.settings == configuration
    assert story.before == []
    assert (story.end.allocated, story.end.requested, story.end.reserved) == states[-1]
    assert story.peak.allocated == max(allocated for allocated, _, _ in states) == recorder.peak_allocated
    assert story.peak_reserved == recorder.peak_reserved
    assert len(story.shortages) == sum(entry["action"] == "oom" for entry in recorder.entries)
    for moment in (story.peak, story.end):
        parts = moment.allocated + moment.pending + moment.split + moment.free_segments
        assert moment.reserved == parts == sum(reserved for reserved, _ in moment.places.values())
        assert moment.largest_free <= moment.fragmented
    at_peak = story.alive(story.peak.event)
    assert sum(life.size for life in at_peak) == story.peak.allocated
    assert sum(life.requested for life in at_peak) == story.peak.requested


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(CONFIGURATIONS, OPERATIONS, st.integers(1, 60))
def test_a_trace_that_begins_late_tells_what_was_there(
    configuration: Settings, operations: list[tuple[str, int, int]], keep: int
) -> None:
    recorder = Recorder(configuration)
    states = run(recorder, operations)
    if not recorder.entries:
        return
    keep = min(keep, len(states))
    story = told({**recorder.snapshot(keep), "allocator_settings": named(configuration)})
    assert story.strange == 0
    assert story.differing == 0
    assert (story.end.allocated, story.end.requested, story.end.reserved) == states[-1]
    # A block of the large pool that is freed later may hide up to 1 MiB that could not be split off.
    unsure = sum(life.address not in story.beginning.sizes for life in story.before)
    largest = max(allocated for allocated, _, _ in [*states[-keep - 1 :], states[-1]])
    slack = MIB * unsure
    assert largest - slack <= story.peak.allocated <= largest + slack
    if configuration.expandable_segments:
        assert story.peak.allocated == largest


def test_a_free_that_waits_for_another_stream_is_no_longer_allocated() -> None:
    recorder = Recorder()
    block = recorder.take(3 * MIB)
    recorder.note("free_requested", block.address, 3 * MIB, 0)
    recorder.take(MIB)
    snapshot = recorder.snapshot()
    snapshot["segments"][0]["blocks"][0]["state"] = "active_pending_free"
    story = told(snapshot)
    assert story.strange == story.differing == 0
    assert story.end.pending == 3 * MIB and story.end.allocated == MIB
    assert story.peak.allocated == 3 * MIB and story.peak.pending == 0


def test_an_out_of_memory_event_holds_what_was_free() -> None:
    recorder = Recorder(capacity=64 * MIB)
    blocks = [recorder.take(20 * MIB) for _ in range(3)]
    recorder.drop(blocks[1])
    recorder.frames = [frame("forward", 77)]
    with pytest.raises(OutOfMemory):
        recorder.take(40 * MIB)
    recorder.note("oom", 4 * MIB, 40 * MIB, 0)
    (shortage,) = told(recorder.snapshot()).shortages
    assert shortage.requested == 40 * MIB and shortage.driver_free == 4 * MIB
    assert shortage.moment is not None
    assert shortage.moment.allocated == 40 * MIB
    assert shortage.moment.reserved == 40 * MIB  # the free segment went back before it gave up


def test_a_trace_that_contradicts_the_segments_says_so() -> None:
    recorder = Recorder()
    recorder.take(MIB)
    snapshot = recorder.snapshot()
    snapshot["device_traces"][0].append({**snapshot["device_traces"][0][-1], "addr": 5})
    story = told(snapshot)
    assert story.strange > 0


def test_pages_that_were_mapped_together_and_unmapped_in_part() -> None:
    recorder = Recorder(Settings(expandable_segments=True))
    run(recorder, [("take", 20 * MIB + 1, 0), ("drop", 0, 0), ("take", MIB + 1, 0), ("empty", 0, 0)])
    assert [entry["action"] for entry in recorder.entries].count("segment_unmap") == 1
    for keep in range(1, len(recorder.entries) + 1):
        story = told(recorder.snapshot(keep))
        assert story.strange == story.differing == 0
        assert story.end.reserved == 20 * MIB
