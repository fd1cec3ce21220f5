"""PyTorch's profiler as a witness: every allocation and free of a block of code, and what it happened in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._profiler import _EventType  # underscore interfaces of the profiler stay behind this module
from torch.profiler import ProfilerActivity, profile


@dataclass(slots=True, eq=False)
class Region:
    """One `record_function` region or operation. Times are nanoseconds of the profiler's clock."""

    name: str
    start: int
    stop: int


@dataclass(slots=True)
class MemoryEvent:
    """One allocation (size > 0) or free (size < 0), in bytes, with the regions round it, outermost first."""

    time: int
    size: int
    address: int
    regions: tuple[Region, ...]


def record_memory(function: Callable[[], None]) -> tuple[list[MemoryEvent], list[Region]]:
    """Run `function` and return its CPU memory events and its regions, each in order of time.

    The profiler sees the thread that runs `function`; what other threads of a parallel kernel allocate it does not.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    return events_of(profiler.profiler.kineto_results if profiler.profiler is not None else None)


def events_of(results: Any) -> tuple[list[MemoryEvent], list[Region]]:
    """Every CPU memory event and every region of a profiler's results (None: it has seen nothing), in order of time."""
    events: list[MemoryEvent] = []
    regions: list[Region] = []
    stack: list[tuple[Any, tuple[Region, ...]]] = []
    if results is not None:
        stack.extend((root, ()) for root in results.experimental_event_tree())
    while stack:
        node, path = stack.pop()
        if node.tag == _EventType.Allocation:
            fields = node.extra_fields
            if fields.device.type == "cpu":
                events.append(MemoryEvent(node.start_time_ns, fields.alloc_size, fields.ptr, path))
            continue
        region = Region(node.name, node.start_time_ns, node.end_time_ns)
        regions.append(region)
        below = (*path, region)
        stack.extend((child, below) for child in node.children)
    events.sort(key=lambda event: event.time)
    regions.sort(key=lambda region: region.start)
    return events, regions


def mark(name: str) -> None:
    """Leave a mark in the profile."""
    with torch.profiler.record_function(name):
        pass
