"""The trace: well formed, and its counters are the timeline at every moment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.estimate import COMPONENTS
from memplan.exporting.perfetto import trace_of, trace_text
from memplan.exporting.placed import PlacedTimeline, place

from .configurations import CONFIGURATIONS, model_of, placed_as

Event = dict[str, Any]

KEYS = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "C": {"name", "pid", "ts", "args"},
    "i": {"name", "cat", "s", "pid", "tid", "ts", "args"},
    "b": {"name", "cat", "id", "pid", "tid", "ts", "args"},
    "e": {"name", "cat", "id", "pid", "tid", "ts"},
}
"""Of the Trace Event Format, by `ph`."""


def counters(events: list[Event], length: int) -> dict[str, list[int]]:
    """Each counter at every moment: it holds until its next event."""
    found: dict[str, dict[int, int]] = {}
    for event in events:
        if event["ph"] == "C":
            values = found.setdefault(event["name"], {})
            assert event["ts"] not in values and set(event["args"]) == {"bytes"}
            values[event["ts"]] = event["args"]["bytes"]
    lines: dict[str, list[int]] = {}
    for name, values in found.items():
        line = [values[0]]
        for time in range(1, length):
            line.append(values.get(time, line[-1]))
        lines[name] = line
    return lines


def components_at(over: PlacedTimeline, event: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for number in over.timeline.alive(event):
        name = over.timeline.tensors[number].component
        found[name] = found.get(name, 0) + over.blocks[number]
    return found


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_counters_are_the_timeline(name: str, every_step: bool) -> None:
    over = placed_as(name, every_step)
    lines = counters(trace_of(over)["traceEvents"], len(over.timeline.events) + 1)
    assert lines.pop("allocated") == over.allocated()
    assert lines.pop("reserved", None) == over.reserved()
    assert set(lines) == {each.component for each in over.timeline.tensors} <= set(COMPONENTS)
    assert [sum(sizes) for sizes in zip(*lines.values(), strict=True)] == over.allocated()
    for _, start, stop in over.timeline.spans:
        for time in (start, stop):
            there = {component: line[time] for component, line in lines.items() if line[time]}
            assert there == components_at(over, time - 1)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_events_are_of_the_format(name: str) -> None:
    over = placed_as(name, every_step=True)
    document = json.loads(trace_text(over, title="a run", most_tensors=10**9))
    assert document == trace_of(over, "a run", 10**9)
    end = len(over.timeline.events)
    begun: dict[tuple[str, int], Event] = {}
    ended = 0
    for event in document["traceEvents"]:
        assert set(event) == {"ph", *KEYS[event["ph"]]}
        assert event["ph"] == "M" or 0 <= event["ts"] <= end
        if event["ph"] == "b":
            assert begun.setdefault((event["cat"], event["id"]), event) is event
        elif event["ph"] == "e":
            begin = begun[event["cat"], event["id"]]
            assert begin["name"] == event["name"] and begin["ts"] < event["ts"]
            ended += 1
    assert ended == len(begun) == len(over.timeline.tensors)
    for (component, number), begin in begun.items():
        tensor = over.timeline.tensors[number]
        assert (begin["name"], component, begin["ts"]) == (tensor.title, tensor.component, tensor.born + 1)
        assert begin["args"]["bytes"] == over.blocks[number]
        assert begin["args"]["requested_bytes"] == tensor.size
        assert begin["args"]["address"] == hex(over.addresses[number])
    names = [each["args"]["name"] for each in document["traceEvents"] if each["name"].endswith("_name")]
    assert names == ["a run", "phases", "steps"]


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_phases_and_steps_follow_each_other(name: str, every_step: bool) -> None:
    over = placed_as(name, every_step)
    slices = [event for event in trace_of(over)["traceEvents"] if event["ph"] == "X"]
    phases = [event for event in slices if event["cat"] == "phase"]
    spans = [(start, stop) for _, start, stop in over.timeline.spans if start < stop]
    assert [(event["ts"], event["ts"] + event["dur"]) for event in phases] == spans
    steps = [event for event in slices if event["cat"] == "step"]
    if not every_step:
        assert steps == []
        return
    assert [event["name"] for event in steps] == [f"step {number + 1}" for number in range(over.steps)]
    assert [event["ts"] for event in steps] == list(over.starts)
    assert steps[-1]["ts"] + steps[-1]["dur"] == len(over.timeline.events)


def test_tokens_that_are_not_traced_are_said_to_be_left_out() -> None:
    run = InferenceRun(prompt_length=16, new_tokens=200, attention="naive")
    over = place(model_of("gpt2"), run, load_device("cpu"))
    assert "skipped" in [name for name, _ in over.timeline.phases]
    names = [event["name"] for event in trace_of(over)["traceEvents"] if event["ph"] == "X"]
    assert "skipped" not in names and {"prefill", "decode", "decode, tokens left out"} <= set(names)


def test_the_peak_is_marked() -> None:
    over = placed_as("training, naive, card")
    (mark,) = (event for event in trace_of(over)["traceEvents"] if event["ph"] == "i")
    line = over.allocated()
    assert mark["args"]["allocated_bytes"] == max(line) == line[mark["ts"]]
    assert mark["ts"] == line.index(max(line))


def test_few_tensors_are_the_largest_that_come_or_go() -> None:
    over = placed_as("training, naive, card")
    document = trace_of(over, most_tensors=20)
    shown = [event["id"] for event in document["traceEvents"] if event["ph"] == "b"]
    assert len(shown) == 20 == document["otherData"]["tensors_shown"] < document["otherData"]["tensors"]
    tensors = over.timeline.tensors
    moving = [number for number, each in enumerate(tensors) if each.born >= 0 or each.died is not None]
    assert set(shown) <= set(moving)
    least = min(over.blocks[number] for number in shown)
    assert all(over.blocks[number] <= least for number in moving if number not in shown)
    assert [event for event in trace_of(over, most_tensors=0)["traceEvents"] if event["ph"] in "be"] == []


def test_the_same_run_is_the_same_text() -> None:
    over = placed_as("encoder-decoder, card")
    assert trace_text(over) == trace_text(over)
    head, *lines = trace_text(over).splitlines()
    assert head.startswith('{"displayTimeUnit":"ms","otherData":{"memplan_version":')
    assert lines[-1] == "]}" and all(json.loads(line.rstrip(",")) for line in lines[:-1])
