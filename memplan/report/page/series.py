"""The bytes alive over a timeline, by component: what the charts draw.

Time is a row of cells. Cell 0 is the state before the first event, cell n + 1 the state behind event number n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.profiled import Course, Side
from memplan.report.page.palette import STACKED
from memplan.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Stack:
    """Bytes by component in every cell. `components` are those that ever hold something, in the order of the stack;
    `levels` are theirs, and `totals` the sums."""

    components: tuple[str, ...]
    levels: tuple[list[int], ...]
    totals: list[int]

    @property
    def peak(self) -> int:
        """The cell with the most bytes, the first of equals."""
        return self.totals.index(max(self.totals))

    def at(self, cell: int) -> dict[str, int]:
        """Bytes by component."""
        return {name: level[cell] for name, level in zip(self.components, self.levels, strict=True)}


def stack_of(timeline: Timeline) -> Stack:
    """The stack of a timeline."""
    components = tuple(name for name in STACKED if any(tensor.component == name for tensor in timeline.tensors))
    rank = {name: number for number, name in enumerate(components)}
    ranks = [rank[tensor.component] for tensor in timeline.tensors]
    now = [0] * len(components)
    for tensor, place in zip(timeline.tensors, ranks, strict=True):
        if tensor.born < 0:
            now[place] += tensor.size
    changes: list[tuple[int, int]] = []
    for event in timeline.events:
        number = event if event >= 0 else ~event
        size = timeline.tensors[number].size
        changes.append((ranks[number], size if event >= 0 else -size))
    levels = []
    for place, before in enumerate(now):
        level = [before]
        for changed, change in changes:
            if changed == place:
                before += change
            level.append(before)
        levels.append(level)
    totals = [sum(each) for each in zip(*levels, strict=True)] if levels else [0] * (len(timeline.events) + 1)
    return Stack(components, tuple(levels), totals)


def cells_of(phases: Sequence[tuple[str, int]], events: int) -> list[tuple[str, int, int]]:
    """Every phase that has any, with its first cell and the one after its last. The state before the first event
    belongs to the first phase."""
    stops = [start for _, start in phases[1:]] + [events]
    cells: list[tuple[str, int, int]] = []
    for (name, start), stop in zip(phases, stops, strict=True):
        first = start + 1 if cells else 0
        if first <= stop:
            cells.append((name, first, stop + 1))
    return cells


def phase_of_cell(side: Side, cell: int) -> str:
    """The phase in which a cell of the predicted timeline lies."""
    return next((name for name, _, stop in predicted_cells(side) if cell < stop), "")


def predicted_cells(side: Side) -> list[tuple[str, int, int]]:
    """Of a side's timeline."""
    return cells_of(side.timeline.phases, len(side.timeline.events))


def measured_cells(course: Course) -> list[tuple[str, int, int]]:
    """Of a course."""
    return cells_of(course.phases, len(course.nanoseconds))
