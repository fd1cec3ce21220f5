"""From a stream of memory events to bytes by phase and component. The counterpart of memplan/ledger.py, for real runs.

A component is what can be seen from outside: parameters, gradients, optimizer state, inputs and buffers by the address
of their storage at the end of the step; a key-value cache by the region that makes it; activations by having been
allocated in a forward pass (or a recomputed one) and outliving it; temporaries are the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memplan.measure.probes import MemoryEvent, Region

LAYER = "memplan.layer"
"""Name of the region round each layer's forward pass: inside the backward phase it is a recomputation."""

CACHE = "memplan.cache"
"""Name of the region round whatever makes a key-value cache or a part of one: what outlives it is the cache's."""


@dataclass(slots=True, eq=False)
class _Block:
    """One allocation of the run."""

    size: int
    born: int
    regions: tuple[Region, ...]
    died: int | None = None
    component: str = ""


@dataclass(slots=True)
class MeasuredPhase:
    """One phase: bytes and components at its peak (the first of equals) and at its end."""

    name: str
    peak: int = -1
    end: int = 0
    at_peak: dict[str, int] = field(default_factory=dict)
    at_end: dict[str, int] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """As a measurement record holds it, in bytes."""
        return {
            "name": self.name,
            "peak_allocated_bytes": self.peak,
            "end_allocated_bytes": self.end,
            "at_peak": self.at_peak,
            "at_end": self.at_end,
        }


def attribute(
    events: Sequence[MemoryEvent],
    marks: Sequence[tuple[int, str]],
    owners: Mapping[int, str],
    cached: Sequence[tuple[int, Collection[int]]] = (),
) -> dict[str, MeasuredPhase]:
    """Phases by name. `marks` are the times at which the step's phases begin, in order; events before the first one
    set the scene. `owners` maps the address of each storage alive at the end to its component. `cached` are times and
    the addresses of what a key-value cache holds there.

    A phase that comes again (gradient accumulation) has the highest of its peaks and its last end.
    """
    blocks = _blocks(events)
    caches = _held(blocks, cached)
    times = [time for time, _ in marks]
    backward = [time for time, name in marks if name == "backward"]
    births = [event.time for event in events if event.size > 0]
    alive: dict[int, _Block] = {}
    for block, address in blocks.values():
        if (block.born, address) in caches:
            block.component = "kv_cache"
        elif block.died is None and address in owners:
            block.component = owners[address]
        else:
            block.component = _by_lifetime(block, times, marks, backward, births)
    phases: dict[str, MeasuredPhase] = {}
    current, total = -1, 0
    components: dict[str, int] = {}
    for event in events:
        index = bisect_right(times, event.time) - 1
        while current < index:
            _end(phases, marks, current, total, components)
            current += 1
            _begin(phases, marks[current][1], total, components)
        if event.size > 0:
            block = blocks[event.time, event.address][0]
            alive[event.address] = block
        else:
            freed = alive.pop(event.address, None)
            if freed is None:
                continue  # allocated before recording began
            block = freed
        total += event.size
        components[block.component] = components.get(block.component, 0) + event.size
        if current >= 0:
            phase = phases[marks[current][1]]
            if total > phase.peak:
                phase.peak, phase.at_peak = total, dict(components)
    while current < len(marks) - 1:
        _end(phases, marks, current, total, components)
        current += 1
        _begin(phases, marks[current][1], total, components)
    _end(phases, marks, current, total, components)
    return phases


def _blocks(events: Sequence[MemoryEvent]) -> dict[tuple[int, int], tuple[_Block, int]]:
    """Every allocation with its lifetime, by (time of birth, address)."""
    blocks: dict[tuple[int, int], tuple[_Block, int]] = {}
    alive: dict[int, _Block] = {}
    for event in events:
        if event.size > 0:
            block = _Block(event.size, event.time, event.regions)
            blocks[event.time, event.address] = (block, event.address)
            alive[event.address] = block
        elif event.address in alive:
            alive.pop(event.address).died = event.time
    return blocks


def _held(
    blocks: Mapping[tuple[int, int], tuple[_Block, int]], cached: Sequence[tuple[int, Collection[int]]]
) -> set[tuple[int, int]]:
    """The keys of those blocks that lie at one of the addresses at its time."""
    found: set[tuple[int, int]] = set()
    times = [time for time, _ in cached]
    for block, address in blocks.values():
        first = bisect_right(times, block.born)
        while first < len(times) and (block.died is None or times[first] < block.died):
            if address in cached[first][1]:
                found.add((block.born, address))
                break
            first += 1
    return found


def _by_lifetime(
    block: _Block,
    times: Sequence[int],
    marks: Sequence[tuple[int, str]],
    backward: Sequence[int],
    births: Sequence[int],
) -> str:
    cache = next((region for region in block.regions if region.name == CACHE), None)
    if cache is not None and (block.died is None or block.died >= cache.stop):
        return "kv_cache"
    index = bisect_right(times, block.born) - 1
    phase = marks[index][1] if index >= 0 else ""
    ends: int | None = None
    if phase in ("forward", "loss"):
        ends = next((time for time in backward if time > block.born), None)
    elif phase == "backward":
        layer = next((region for region in block.regions if region.name == LAYER), None)
        if layer is not None:
            # A recomputation stops early, by an exception; what its frames held is freed when that is caught, which is
            # after the region's end and before anything else is allocated.
            following = bisect_right(births, layer.stop)
            ends = births[following] if following < len(births) else layer.stop
    if ends is None:
        return "temporaries"
    return "activations" if block.died is None or block.died >= ends else "temporaries"


def _begin(phases: dict[str, MeasuredPhase], name: str, total: int, components: dict[str, int]) -> None:
    phase = phases.setdefault(name, MeasuredPhase(name))
    if total > phase.peak:
        phase.peak, phase.at_peak = total, dict(components)


def _end(
    phases: dict[str, MeasuredPhase],
    marks: Sequence[tuple[int, str]],
    current: int,
    total: int,
    components: dict[str, int],
) -> None:
    if current >= 0:
        phase = phases[marks[current][1]]
        phase.end, phase.at_end = total, dict(components)
