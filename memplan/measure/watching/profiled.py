"""Steps on the CPU seen by PyTorch's profiler, which tells every allocation: two in a row, the second one in full.

The profiler sees what is born and what dies while it looks, in the thread that started it. What was there before is
added from the tensors that are known to be the run's (memplan/measure/watching/claims.py); the first of the two steps
makes sure that all else the second one meets has been seen being born.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import profile

from memplan.errors import MeasurementError
from memplan.measure.attribution import MeasuredPhase, attribute
from memplan.measure.probes import MemoryEvent, Region, events_of, mark
from memplan.measure.run import KERNELS, PHASES
from memplan.measure.watching.claims import Claim
from memplan.measure.watching.marks import Mark, folded

MARK = "memplan.watch."

_LEVEL = "KINETO_LOG_LEVEL"


@contextmanager
def _quiet() -> Iterator[None]:
    """The library below the profiler reads what it should log when it is used first. Left to itself it prints a line
    for every start and stop (libkineto/src/Logger.cpp, severity USDT, which is 5)."""
    if _LEVEL in os.environ:
        yield
        return
    os.environ[_LEVEL] = "6"
    try:
        yield
    finally:
        del os.environ[_LEVEL]


class Block(NamedTuple):
    """Memory that is alive at a moment: its bytes, its component, the operation that allocated it and the phase in
    which that was ("" before the step)."""

    size: int
    component: str
    operation: str
    born: str


class Seen(NamedTuple):
    """A step as the profiler saw it. `at_peak` is what is alive where the most is, and `carried` what of that the step
    before has left and this one frees. `left_bytes` is by how much more is alive at its end than at that of the step
    before, and `left` are the blocks that were born in it, outlive it and belong to nobody who is known."""

    phases: dict[str, MeasuredPhase]
    peak_phase: str
    at_peak: tuple[Block, ...]
    carried: tuple[Block, ...]
    sdpa_kernels: tuple[str, ...]
    left_bytes: int
    left: tuple[Block, ...]


class ProfiledSteps:
    """The profiler, from `start` to `stop`. Marks may be set between them."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._profiler: Any = profile(use_kineto=True, profile_memory=True)

    def start(self) -> None:
        """Look from here on. Raises MeasurementError where another profiler does already: this one would end it."""
        if torch._C._autograd._profiler_enabled():
            raise MeasurementError("another profiler is running")
        with _quiet():
            self._profiler.__enter__()

    def mark(self, name: str, explicit: bool = False) -> None:
        """A phase begins here, or a step ends (`end`)."""
        mark(f"{MARK}{name}")
        self.marks.append(Mark(name, explicit))

    def stop(self) -> None:
        """Look no more."""
        self._profiler.__exit__(None, None, None)

    def forget(self) -> None:
        """Keep nothing of what was seen."""
        self._profiler = None
        self.marks = []

    def seen(self, claims: Iterable[Claim], before: Iterable[Claim], given: Iterable[Claim], last: str) -> Seen:
        """The last step, once the profiler has been stopped: from the last mark `begin` to the last one called `last`
        behind it. `claims` are what is known of what is alive there, `before` what was known of what was alive where
        the step began, and `given` what the model was called with."""
        events, regions = self._read()
        times = [region.start for region in regions if region.name.startswith(MARK)]
        marks = list(zip(times, self.marks, strict=True))
        names = [mark.name for mark in self.marks]
        start = _last(names, "begin", len(names))
        stop = _last(names, last, len(names))
        end = marks[stop][0]
        step = [*folded(marks[start:stop]), (end, "end")]
        owners: dict[int, str] = {}
        events = _with_claimed([event for event in events if event.time <= end], claims, owners)
        for address in _outliving(events, step[0][0]):
            owners.setdefault(address, "inputs")
        phases = attribute(events, step, owners)
        gradients = {each.address for each in before if each.component == "gradients"}
        inputs = {each.address for each in given}
        lives = [_known(each, step, gradients, inputs) for each in _lives(events, step, owners)]
        _relabel(phases, lives, step, events)
        highest = max((name for name in phases if name in PHASES), key=lambda name: phases[name].peak)
        at_peak = list(_alive(lives, _time_of_peak(events, step, highest)))
        earlier = marks[_last(names, last, start)][0] if last in names[:start] else None
        return Seen(
            phases=phases,
            peak_phase=highest,
            at_peak=tuple(each.block for each in at_peak),
            carried=tuple(each.block for each in at_peak if each.carried(step[0][0])),
            sdpa_kernels=tuple(sorted({KERNELS[region.name] for region in regions if region.name in KERNELS})),
            left_bytes=0 if earlier is None else sum(event.size for event in events if event.time > earlier),
            left=tuple(each.block for each in lives if each.left),
        )

    def _read(self) -> tuple[list[MemoryEvent], list[Region]]:
        """Every memory event and every region, each in order of time."""
        return events_of(self._profiler.kineto_results)


_PLAIN = ("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resize_", "aten::set_", "aten::_to_copy")
"""Operations that allocate for another one, which says more."""


class _Life(NamedTuple):
    """A block, when it was born and when it died (None: not in the step). `left` is one that the step has made, leaves
    behind, and that nobody claims."""

    block: Block
    address: int
    born: int
    died: int | None
    left: bool

    def carried(self, start: int) -> bool:
        """Whether it was there when the step began, and is not when it ends."""
        return self.born < start and self.died is not None


def _last(names: Sequence[str], name: str, before: int) -> int:
    return max(index for index, each in enumerate(names[:before]) if each == name)


def _with_claimed(events: list[MemoryEvent], claims: Iterable[Claim], owners: dict[int, str]) -> list[MemoryEvent]:
    """The events, behind the births of what is claimed and was there before the profiler looked. `owners` gets the
    component of every address that is claimed."""
    alive: dict[int, int] = {}
    for event in events:
        if event.size > 0:
            alive[event.address] = event.size
        else:
            alive.pop(event.address, None)
    first = events[0].time - 1 if events else 0
    there: dict[int, MemoryEvent] = {}
    for address, size, component in claims:
        owners[address] = component
        if address not in alive and size:
            there[address] = MemoryEvent(first, size, address, ())
    return [*there.values(), *_seen_born(events)]


def _seen_born(events: Iterable[MemoryEvent]) -> Iterator[MemoryEvent]:
    """The events less the deaths of what was not seen being born. The profiler tells of them where an earlier look has
    seen that (c10/core/CPUAllocator.cpp, ProfiledCPUMemoryReporter keeps its table)."""
    alive: set[int] = set()
    for event in events:
        if event.size > 0:
            alive.add(event.address)
        elif event.address in alive:
            alive.discard(event.address)
        else:
            continue
        yield event


def _outliving(events: Sequence[MemoryEvent], start: int) -> set[int]:
    """Addresses of what exists when the step begins and still does when it ends."""
    addresses: set[int] = set()
    for event in events:
        if event.size < 0:
            addresses.discard(event.address)
        elif event.time < start:
            addresses.add(event.address)
    return addresses


def _lives(
    events: Sequence[MemoryEvent], step: Sequence[tuple[int, str]], owners: Mapping[int, str]
) -> Iterator[_Life]:
    """Every allocation that is alive at some time of the step."""
    times = [time for time, _ in step]
    born: dict[int, MemoryEvent] = {}

    def life(event: MemoryEvent, died: int | None) -> _Life:
        index = bisect_right(times, event.time) - 1
        names = [each.name for each in reversed(event.regions) if each.name.startswith("aten::")]
        operation = next((name for name in names if name not in _PLAIN), names[0] if names else "")
        component = owners.get(event.address, "") if died is None else ""
        block = Block(event.size, component, operation, step[index][1] if index >= 0 else "")
        return _Life(block, event.address, event.time, died, index >= 0 and died is None and not component)

    for event in events:
        if event.size > 0:
            born[event.address] = event
        elif event.address in born:
            birth = born.pop(event.address)
            if event.time >= times[0]:
                yield life(birth, event.time)
    for birth in born.values():
        yield life(birth, None)


def _time_of_peak(events: Sequence[MemoryEvent], step: Sequence[tuple[int, str]], phase: str) -> int:
    """When the most is alive in a phase."""
    times = [time for time, _ in step]
    total, most, when, current = 0, -1, times[0], -1
    for event in events:
        index = bisect_right(times, event.time) - 1
        for begun in range(current + 1, index + 1):  # with what is alive already
            if step[begun][1] == phase and total > most:
                most, when = total, times[begun]
        current = index
        total += event.size
        if index >= 0 and step[index][1] == phase and total > most:
            most, when = total, event.time
    return when


def _alive(lives: Iterable[_Life], when: int) -> Iterator[_Life]:
    return (each for each in lives if each.born <= when and (each.died is None or each.died > when))


def _known(life: _Life, step: Sequence[tuple[int, str]], gradients: Collection[int], inputs: Collection[int]) -> _Life:
    """The same with what is known of a block that does not outlive the step: a gradient of the step before, or an input
    of an earlier micro-batch. Both are known by the addresses where such have been."""
    if life.died is None:
        return life
    component = ""
    if life.address in gradients and life.born < step[0][0]:
        component = "gradients"
    elif life.address in inputs and any(life.born < time < life.died for time, name in step if name == "forward"):
        component = "inputs"
    return life._replace(block=life.block._replace(component=component)) if component else life


def _relabel(
    phases: Mapping[str, MeasuredPhase],
    lives: Sequence[_Life],
    step: Sequence[tuple[int, str]],
    events: Sequence[MemoryEvent],
) -> None:
    """What is known of blocks that do not outlive the step, in which `attribute` sees temporaries."""
    known = [each for each in lives if each.died is not None and each.block.component]
    for name, phase in phases.items():
        stops = [stop for (_, each), (stop, _) in pairwise(step) if each == name] or [step[-1][0]]
        moments = ((phase.at_peak, _time_of_peak(events, step, name)), (phase.at_end, stops[-1]))
        for components, when in moments:
            for each in _alive(known, when):
                component, size = each.block.component, each.block.size
                components["temporaries"] -= size
                components[component] = components.get(component, 0) + size
