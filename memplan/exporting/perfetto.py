"""A placed timeline as a trace for ui.perfetto.dev and chrome://tracing: memory as counters, phases as slices.

The format is Chrome's Trace Event Format, as JSON. Time is counted in events of the timeline, one a microsecond: what
stands at time t holds when t events have happened, so that event number n takes effect at n + 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from memplan import __version__
from memplan.estimate import COMPONENTS, line_of
from memplan.exporting.placed import PlacedTimeline
from memplan.exporting.snapshot import phase_in_words
from memplan.ledger import Allocation

PROCESS = 1
PHASES, STEPS = 1, 2
"""Threads that hold the slices."""

MOST_TENSORS = 1000
"""Each tensor has a row of its own, and a reader has to find them."""

Event = dict[str, Any]


def trace_text(placed: PlacedTimeline, title: str = "memplan", most_tensors: int = MOST_TENSORS) -> str:
    """The file: the JSON of `trace_of`, one event a line. The same timeline gives the same text."""
    document = trace_of(placed, title, most_tensors)
    encode = json.JSONEncoder(separators=(",", ":")).encode
    lines = ",\n".join(map(encode, document.pop("traceEvents")))
    head = encode(document)
    return f'{head[:-1]},"traceEvents":[\n{lines}\n]}}\n'


def trace_of(placed: PlacedTimeline, title: str = "memplan", most_tensors: int = MOST_TENSORS) -> dict[str, Any]:
    """The trace as a document. Sizes are bytes that count as allocated: what was asked for on the CPU, and whole blocks
    on a card.

    Counters are `allocated`, `reserved` where there is a caching allocator, and each component, which add up to
    allocated at any time; a counter has an event where its value changes. The slices are the phases, and the steps
    where several are shown. Every tensor is an asynchronous slice, from its birth to its death or the end, in the
    category of its component; where there are more than `most_tensors`, the largest of those that come or go are, and
    then of those that are always there. `title` names the process.
    """
    shown = _largest(placed, most_tensors)
    return {
        "displayTimeUnit": "ms",
        "otherData": {
            "memplan_version": __version__,
            "clock": "one event of the timeline, a birth or a death, is one microsecond",
            "sizes": "bytes of whole blocks" if placed.on_card else "bytes asked for",
            "steps": placed.steps,
            "tensors": len(placed.timeline.tensors),
            "tensors_shown": len(shown),
        },
        "traceEvents": [
            *_names(placed, title),
            *_slices(placed),
            *_counters(placed),
            _peak(placed),
            *_tensors(placed, shown),
        ],
    }


def _names(placed: PlacedTimeline, title: str) -> Iterator[Event]:
    yield _named("process_name", {"name": title}, 0)
    for number, name in ((PHASES, "phases"), (STEPS, "steps")):
        if number == PHASES or len(placed.starts) > 1:
            yield _named("thread_name", {"name": name}, number)
            yield _named("thread_sort_index", {"sort_index": number}, number)


def _named(what: str, name: Event, thread: int) -> Event:
    return {"ph": "M", "name": what, "pid": PROCESS, "tid": thread, "args": name}


def _slices(placed: PlacedTimeline) -> Iterator[Event]:
    """Phases, those without events left out, and steps. What a process allocates before its first step is no step."""
    for name, start, stop in placed.timeline.spans:
        if start < stop:
            yield _slice(phase_in_words(name), "phase", PHASES, start, stop)
    if len(placed.starts) > 1:
        stops = (*placed.starts[1:], len(placed.timeline.events))
        for number, (start, stop) in enumerate(zip(placed.starts, stops, strict=True)):
            yield _slice(f"step {number + 1}", "step", STEPS, start, stop)


def _slice(name: str, category: str, thread: int, start: int, stop: int) -> Event:
    span = {"ts": start, "dur": stop - start}
    return {"ph": "X", "name": name, "cat": category, "pid": PROCESS, "tid": thread, **span}


def _counters(placed: PlacedTimeline) -> Iterator[Event]:
    """Every counter at the start, and from then on where it changes."""
    timeline, blocks = placed.timeline, placed.blocks
    allocated, reserved = placed.allocated(), placed.reserved()
    present = {tensor.component for tensor in timeline.tensors}
    components = dict.fromkeys((name for name in COMPONENTS if name in present), 0)
    for number, tensor in enumerate(timeline.tensors):
        if tensor.born < 0:
            components[tensor.component] += blocks[number]
    yield _counter("allocated", 0, allocated[0])
    if reserved is not None:
        yield _counter("reserved", 0, reserved[0])
    for name, size in components.items():
        yield _counter(name, 0, size)
    for place, event in enumerate(timeline.events):
        now = place + 1
        number = event if event >= 0 else ~event
        component = timeline.tensors[number].component
        components[component] += blocks[number] if event >= 0 else -blocks[number]
        yield _counter("allocated", now, allocated[now])
        if reserved is not None and reserved[now] != reserved[place]:
            yield _counter("reserved", now, reserved[now])
        yield _counter(component, now, components[component])


def _counter(name: str, time: int, size: int) -> Event:
    return {"ph": "C", "name": name, "pid": PROCESS, "ts": time, "args": {"bytes": size}}


def _peak(placed: PlacedTimeline) -> Event:
    """A mark at the moment when most is allocated, the first of equals."""
    line = placed.allocated()
    most = max(line)
    where = {"ts": line.index(most), "pid": PROCESS, "tid": PHASES}
    return {"ph": "i", "s": "p", "name": "peak", "cat": "peak", **where, "args": {"allocated_bytes": most}}


def _largest(placed: PlacedTimeline, most: int) -> list[int]:
    """The numbers of the tensors that get a slice, in rising order."""

    def rank(number: int) -> tuple[bool, int]:
        tensor = placed.timeline.tensors[number]
        return (tensor.born < 0 and tensor.died is None, -placed.blocks[number])

    return sorted(sorted(range(len(placed.blocks)), key=rank)[: max(most, 0)])


def _tensors(placed: PlacedTimeline, numbers: list[int]) -> Iterator[Event]:
    """Birth and death of each."""
    reasons: dict[Allocation, str] = {}
    end = len(placed.timeline.events)
    for number in numbers:
        tensor = placed.timeline.tensors[number]
        allocation = tensor.allocation
        reason = reasons.get(allocation)
        if reason is None:
            reason = reasons[allocation] = line_of(allocation, 1).reason
        same = {"name": tensor.title, "cat": tensor.component, "id": number, "pid": PROCESS, "tid": PHASES}
        facts = {
            "bytes": placed.blocks[number],
            "requested_bytes": tensor.size,
            "address": f"{placed.addresses[number]:#x}",
            "reason": reason,
        }
        yield {"ph": "b", **same, "ts": tensor.born + 1, "args": facts}
        yield {"ph": "e", **same, "ts": end if tensor.died is None else tensor.died + 1}
