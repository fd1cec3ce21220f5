"""The bytes alive over time, of a real run: what a record keeps as `memory_over_time`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memplan.measure.probes import MemoryEvent


def course(events: Sequence[MemoryEvent], marks: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Ready for JSON. `marks` are the times at which phases begin, in order, the last one the end; what happened before
    the first sets the scene. Sizes are bytes, times nanoseconds from the first mark on.

    `phases` are [name, number of the first event]; `nanoseconds` has a time for each event; `allocated_bytes` has one
    entry more, before the first event and behind each.
    """
    alive: dict[int, int] = {}
    total = 0
    begin, end = marks[0][0], marks[-1][0]
    times: list[int] = []
    line = [0]
    for event in events:
        if event.time >= end:
            break
        if event.size > 0:
            alive[event.address] = event.size
            total += event.size
        elif event.address in alive:
            total -= alive.pop(event.address)
        else:
            continue  # allocated before recording began
        if event.time < begin:
            line = [total]
        else:
            times.append(event.time - begin)
            line.append(total)
    return _course([(time - begin, name) for time, name in marks], times, line)


def course_of_history(history: Mapping[str, Any], first_step: int) -> dict[str, Any]:
    """The same by a card's allocator (memplan/measure/history.py), in bytes as they were asked for. Its events carry no
    times here: each counts as a nanosecond.

    `first_step` is the step at which it begins.
    """
    marks = [(made, phase) for step, phase, made in history["marks"] if step >= first_step]
    alive: dict[int, int] = {}
    total, made = 0, 0
    line = [0]
    times: list[int] = []
    phases: list[tuple[int, str]] = []
    waiting = list(marks)
    for event in history["device_traces"][0]:
        action = event["action"]
        if action == "alloc":
            while waiting and made >= waiting[0][0]:
                phases.append((len(times), waiting.pop(0)[1]))
            made += 1
            alive[event["addr"]] = event["size"]
            total += event["size"]
        elif action == "free_requested" and event["addr"] in alive:
            total -= alive.pop(event["addr"])
        else:
            continue
        if phases:
            times.append(len(times))
            line.append(total)
        else:
            line = [total]
    phases += [(len(times), name) for _, name in waiting]
    return _course(phases, times, line)


def _course(marks: Sequence[tuple[int, str]], times: list[int], line: list[int]) -> dict[str, Any]:
    phases: list[list[Any]] = []
    number = 0
    for time, name in marks:
        while number < len(times) and times[number] < time:
            number += 1
        phases.append([name, number])
    return {"phases": phases, "nanoseconds": times, "allocated_bytes": line}
