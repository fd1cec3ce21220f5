"""PyTorch's profiler as a witness: every allocation and free of a block of code, with what it happened in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._C._profiler import _EventType  # an underscore interface: kept behind this module
from torch.profiler import ProfilerActivity, profile


@dataclass(slots=True)
class MemoryEvent:
    """One allocation (size > 0) or free (size < 0) on the CPU. `regions` are the enclosing record_function names and
    operations, outermost first."""

    time: int
    size: int
    address: int
    regions: tuple[str, ...]


@dataclass(slots=True)
class Region:
    """One `record_function` region or operation: name and start."""

    time: int
    name: str


def record_memory(function: Callable[[], None]) -> tuple[list[MemoryEvent], list[Region]]:
    """Run `function` and return its memory events and its regions, each in order of time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events: list[MemoryEvent] = []
    regions: list[Region] = []
    stack = [(root, ()) for root in profiler.profiler.kineto_results.experimental_event_tree()]
    while stack:
        node, path = stack.pop()
        if node.tag == _EventType.Allocation:
            fields = node.extra_fields
            if fields.device.type == "cpu":
                events.append(MemoryEvent(node.start_time_ns, fields.alloc_size, fields.ptr, path))
            continue
        regions.append(Region(node.start_time_ns, node.name))
        below = (*path, node.name)
        stack.extend((child, below) for child in node.children)
    events.sort(key=lambda event: event.time)
    regions.sort(key=lambda region: region.time)
    return events, regions


def mark(name: str) -> None:
    """Leave a mark in the profile."""
    with torch.profiler.record_function(name):
        pass
