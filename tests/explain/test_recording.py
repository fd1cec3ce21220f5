"""Snapshots of other releases, of several devices, and damaged ones: read, or refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.errors import ConfigurationError, MeasurementError, MemplanError
from memplan.explain.explanation import explained
from memplan.explain.opened import open_snapshot
from memplan.explain.recording import devices_of, record_of
from memplan.explain.rules import settings_of, text_of
from memplan.report.explain import render_explanation
from memplan.report.explain_json import explanation_to_json
from memplan.units import MIB

from .simulated import Recorder, frame
from .subject import CARD, MODEL, RUN


def recorded_run() -> Recorder:
    recorder = Recorder()
    recorder.frames = [frame("forward", 5)]
    first = recorder.take(3 * MIB)
    recorder.take(700)
    recorder.drop(first)
    recorder.take(2 * MIB)
    return recorder


def without(snapshot: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Without keys that older releases do not write, wherever they stand."""
    found = copy.deepcopy(snapshot)
    waiting: list[Any] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in keys:
                value.pop(key, None)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


@pytest.mark.parametrize(
    ("where", "key", "said"),
    [
        ("trace", "action", "entry 1 of the trace has no action"),
        ("trace", "size", "entry 1 of the trace has no size"),
        ("trace", "addr", "entry 1 of the trace has no addr"),
        ("trace", "stream", "entry 1 of the trace has no stream"),
        ("segment", "address", "segment 0 has no address"),
        ("segment", "total_size", "segment 0 has no total_size"),
        ("segment", "stream", "segment 0 has no stream"),
        ("segment", "blocks", "segment 0 has no blocks"),
        ("block", "size", "segment 0 has no size"),
        ("block", "state", "segment 0 has no state"),
    ],
)
@pytest.mark.parametrize("value", [None, "text"])
def test_what_is_missing_is_named(where: str, key: str, said: str, value: Any) -> None:
    snapshot = recorded_run().snapshot()
    entry = {
        "trace": snapshot["device_traces"][0][1],
        "segment": snapshot["segments"][0],
        "block": snapshot["segments"][0]["blocks"][0],
    }[where]
    if value is None:
        del entry[key]
    else:
        entry[key] = value if key not in ("action", "state") else 1
    with pytest.raises(MeasurementError, match=said):
        explained(snapshot)


def test_blocks_that_do_not_tile_their_segment_are_refused() -> None:
    snapshot = recorded_run().snapshot()
    snapshot["segments"][0]["blocks"][0]["size"] -= 512
    with pytest.raises(MeasurementError, match="do not tile"):
        explained(snapshot)


def test_a_size_beyond_all_cards_is_refused() -> None:
    snapshot = recorded_run().snapshot()
    snapshot["device_traces"][0][1]["size"] = 1 << 60
    with pytest.raises(MeasurementError, match="entry 1 of the trace has a size of"):
        explained(snapshot)


def test_what_a_newer_release_adds_is_passed_over() -> None:
    snapshot = recorded_run().snapshot()
    expected = explained(snapshot)
    newer = copy.deepcopy(snapshot)
    newer["something"] = {"new": [1]}
    newer["segments"][0]["something"] = 1
    newer["segments"][0]["blocks"][0]["something"] = None
    for entry in newer["device_traces"][0]:
        entry |= {"user_metadata": "", "compile_context": "N/A", "something": []}
    newer["device_traces"][0].insert(2, {"action": "teleported", "addr": 1, "size": 5, "stream": 0})
    newer["device_traces"][0].append({"action": "snapshot", "addr": 0, "size": 9, "stream": 0})
    found = explained(newer)
    assert found.story.peak.allocated == expected.story.peak.allocated
    assert found.story.strange == found.story.differing == 0
    assert found.story.recording.unknown == {"teleported": 1}
    assert any("1 x teleported" in note for note in found.notes)


def test_what_an_older_release_lacks_is_done_without() -> None:
    snapshot = recorded_run().snapshot()
    expected = explained(snapshot)
    older = without(snapshot, "requested_size", "frames", "segment_pool_id", "is_expandable", "device", "address")
    older["segments"] = [
        {**segment, "address": full["address"]}
        for segment, full in zip(older["segments"], snapshot["segments"], strict=True)
    ]
    found = explained(older)
    assert found.story.differing == 0
    assert found.story.end.allocated == expected.story.end.allocated
    assert any("no frames were recorded" in note for note in found.notes)
    (settings_told, text) = settings_of(found.story.recording), text_of(found.story.recording)
    assert text == "" and not settings_told.expandable_segments


def test_the_device_that_holds_most_is_explained() -> None:
    small, large = recorded_run(), Recorder()
    large.take(64 * MIB)
    one, other = small.snapshot(), large.snapshot()
    for segment in other["segments"]:
        segment["device"] = 2
    snapshot = {
        "segments": [*one["segments"], *other["segments"]],
        "device_traces": [one["device_traces"][0], [], other["device_traces"][0]],
    }
    assert devices_of(snapshot) == {0: (small.reserved, len(small.entries)), 2: (64 * MIB, len(large.entries))}
    found = explained(snapshot)
    assert found.device == 2 and found.story.peak.allocated == 64 * MIB
    assert any("device 2 is explained; the snapshot has device 0 too" in note for note in found.notes)
    first = explained(snapshot, device_index=0)
    assert first.device == 0 and first.story.end.allocated == small.allocated
    with pytest.raises(ConfigurationError, match="says nothing of device 1"):
        explained(snapshot, device_index=1)


def test_a_snapshot_of_nothing_says_how_to_record_one() -> None:
    with pytest.raises(MeasurementError, match="no device has a segment or a trace") as caught:
        record_of({"segments": [], "device_traces": [[]]})
    assert "_record_memory_history" in (caught.value.hint or "")


def test_marks_and_ranges_say_the_phase() -> None:
    recorder = recorded_run()
    snapshot = recorder.snapshot()
    for number, entry in enumerate(snapshot["device_traces"][0]):
        entry["time_us"] = 100 + number
    assert explained(snapshot).phase == ""
    assert explained({**snapshot, "marks": [[1, "forward", 0], [1, "loss", 9]]}).phase == "forward"
    ranges = [
        {"device": 0, "name": "Optimizer.step#AdamW.step", "stage": "START", "time_us": 90},
        {"device": 0, "name": "inner", "stage": "START", "time_us": 91},
        {"device": 0, "name": "inner", "stage": "END", "time_us": 92},
        {"device": 0, "name": "Optimizer.step#AdamW.step", "stage": "END", "time_us": 190},
    ]
    found = explained({**snapshot, "external_annotations": ranges})
    assert (found.phase, found.phase_basis) == ("optimizer_step", "PyTorch's own range Optimizer.step#AdamW.step")
    assert explained({**snapshot, "external_annotations": [None, {"stage": 1}, *ranges[:1]]}).phase == "optimizer_step"


# ---- anything may be damaged


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a snapshot."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


SMALL = recorded_run().snapshot()
PLACES = places(SMALL)
STRANGE = st.sampled_from([None, -1, 0, 5, 512, 1 << 47, 1 << 70, "alloc", "inactive", "", [], {}, True, 1.5, (0, 0)])


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(PLACES), STRANGE), min_size=1, max_size=3))
def test_damaged_snapshots_are_refused_or_explained(damages: list[tuple[tuple[Any, ...], Any]]) -> None:
    snapshot = copy.deepcopy(SMALL)
    for path, value in damages:
        holder: Any = snapshot
        try:
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    if not all(isinstance(snapshot[key], list) for key in ("segments", "device_traces")):
        return  # open_snapshot refuses it
    try:
        found = explained(snapshot)
    except MemplanError as error:
        assert str(error)
        return
    assert render_explanation(found)
    assert explanation_to_json(found)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_trace_with_gaps_is_explained_beside_the_plan(data: st.DataObject, recorded: Callable[[str], Path]) -> None:
    """Whatever is missing: no error of memplan's own, and the parts add up."""
    snapshot, _ = open_snapshot(recorded("leaking"))
    trace = snapshot["device_traces"][0]
    start = data.draw(st.integers(0, len(trace) - 1))
    stop = data.draw(st.integers(start, min(start + 400, len(trace))))
    snapshot["device_traces"] = [trace[:start] + trace[stop:]]
    try:
        found = explained(snapshot, request=(MODEL, RUN, CARD))
    except MemplanError as error:
        assert str(error)
        return
    assert found.beside is not None
    assert sum(found.beside.blocks(status) for status in ("planned", "kept", "unplanned")) == sum(
        life.size for life in found.story.alive(found.story.peak.event)
    )
    assert render_explanation(found)
