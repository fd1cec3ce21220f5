"""Whose the bytes of a replayed step are: components at the peak and at the end of every phase."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memplan.expansion import Expansion
from memplan.ledger import Allocation


class PhaseReplay:
    """One phase of a replayed step. One that comes again (gradient accumulation) has the highest of its peaks and its
    last end.

    Components count whole blocks and add up to the allocated bytes. `peak_allocation` is the one that makes the peak,
    of layer `peak_layer` of its stack; None where the phase begins with its peak.
    """

    __slots__ = (
        "at_end", "at_peak", "end_allocated", "end_reserved", "name", "peak_allocated", "peak_allocation", "peak_layer",
        "peak_requested", "peak_reserved",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.peak_allocated = -1
        self.end_allocated = 0
        self.peak_requested = 0
        self.peak_reserved = 0
        self.end_reserved = 0
        self.at_peak: dict[str, int] = {}
        self.at_end: dict[str, int] = {}
        self.peak_allocation: Allocation | None = None
        self.peak_layer: int | None = None


class Accounts:
    """The components' bytes as a step goes on. `sizes` are those of the blocks, by ordinal; fewer than the births where
    memory ran out."""

    def __init__(self, step: Expansion, sizes: Sequence[int]) -> None:
        self.step = step
        self.sizes = sizes
        self.names: dict[str, int] = {}
        self.totals: list[int] = []
        self.kinds = [self.kind(allocation) for allocation in step.births]
        self.alive = 0
        self.requested = 0
        self.ordinal = 0  # of the next birth

    def kind(self, allocation: Allocation) -> int:
        """The number of an allocation's component."""
        number = self.names.get(allocation.component)
        if number is None:
            number = self.names[allocation.component] = len(self.totals)
            self.totals.append(0)
        return number

    def book(self, allocations: Iterable[tuple[Allocation, int]], sign: int) -> None:
        """Count allocations, with the sizes of their blocks, that are no births or deaths of the step."""
        for allocation, size in allocations:
            self.totals[self.kind(allocation)] += sign * size
            self.alive += sign * size
            self.requested += sign * allocation.size

    def components(self) -> dict[str, int]:
        """The bytes of every component now."""
        return dict(zip(self.names, self.totals, strict=True))

    def pass_phase(self, phase: PhaseReplay, start: int, stop: int, left: Sequence[tuple[Allocation, int]]) -> None:
        """Go through the events from `start` to `stop`; `left` dies before the first of them."""
        events, sizes, births = self.step.events, self.sizes, self.step.births
        top, top_requested, top_event, top_ordinal = self.alive, self.requested, start, -1
        components = self.components()
        self.book(left, -1)
        alive, requested, ordinal = self.alive, self.requested, self.ordinal
        for at in range(start, stop):
            event = events[at]
            if event >= 0:
                alive -= sizes[event]
                requested -= births[event].size
                continue
            if ordinal == len(sizes):  # refused
                stop = at
                break
            alive += sizes[ordinal]
            requested -= event
            if alive > top:
                top, top_event, top_ordinal = alive, at + 1, ordinal
            if requested > top_requested:
                top_requested = requested
            ordinal += 1
        self.alive, self.requested = alive, requested
        self.add_up(start, top_event)
        if top > phase.peak_allocated:
            phase.peak_allocated = top
            phase.at_peak = components if top_ordinal < 0 else self.components()
            phase.peak_allocation = births[top_ordinal] if top_ordinal >= 0 else None
            phase.peak_layer = self.step.layer(top_ordinal) if top_ordinal >= 0 else None
        self.add_up(top_event, stop)
        phase.end_allocated = alive
        phase.at_end = self.components()
        phase.peak_requested = max(phase.peak_requested, top_requested)

    def add_up(self, start: int, stop: int) -> None:
        """Bring the totals over these events."""
        sizes, kinds, totals, ordinal = self.sizes, self.kinds, self.totals, self.ordinal
        for event in self.step.events[start:stop]:
            if event < 0:
                totals[kinds[ordinal]] += sizes[ordinal]
                ordinal += 1
            else:
                totals[kinds[event]] -= sizes[event]
        self.ordinal = ordinal
