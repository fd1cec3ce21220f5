"""Where on the horizontal axis the phases lie, predicted and measured, and how wide they are.

Phases are laid beside each other in one of several ways. Within a phase every event is equally wide, so that a measured
phase with as many events as the predicted one coincides with it, and one with more or fewer is stretched to its width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from memplan.ledger import SKIPPED
from memplan.profiled import Profile, Side
from memplan.report.page.series import measured_cells, predicted_cells
from memplan.report.words import spaced

Cells = tuple[str, int, int]

DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Segment:
    """Cells `first` to `stop` (excluded) of a phase, drawn from `left` to `right`, in the units of the axis."""

    label: str
    first: int
    stop: int
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Spread:
    """One side on an axis: its predicted phases, and the measured ones laid over them. `unmatched` are measured phases
    that the prediction does not have; they are not drawn."""

    predicted: tuple[Segment, ...]
    measured: tuple[Segment, ...]
    unmatched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """A way to lay the phases of all sides. It runs from 0 to `length`; `unit` is "s" where that is seconds."""

    name: str
    title: str
    length: float
    spreads: tuple[Spread, ...]  # by side
    unit: str = ""


def axes_of(profile: Profile) -> tuple[Axis, ...]:
    """Every way there is, the first one being shown at first. Where all sides have the same phases, they lie below each
    other whatever the number of their events; seconds are each side's own."""
    rows = [predicted_cells(side) for side in profile.sides]
    axes = [
        _by_events(profile, rows, "balanced", "balanced", lambda count: sqrt(float(count))),
        _by_events(profile, rows, "events", "by number of events", float),
    ]
    if all(side.times is not None for side in profile.sides):
        axes.append(_by_seconds(profile, rows))
    return tuple(axes)


def _by_events(
    profile: Profile, rows: Sequence[list[Cells]], name: str, title: str, weight: Callable[[int], float]
) -> Axis:
    counts = [[stop - first for _, first, stop in row] for row in rows]
    if len({tuple(phase for phase, _, _ in row) for row in rows}) == 1:
        most = [max(each) for each in zip(*counts, strict=True)]
        counts = [most] * len(rows)
    widths = [[weight(count) for count in row] for row in counts]
    length = max((sum(row) for row in widths), default=0.0)
    # A side with phases of its own is as long as the others.
    widths = [[width * (length / sum(row)) if sum(row) else 0.0 for width in row] for row in widths]
    return _axis(profile, rows, widths, name, title)


def _by_seconds(profile: Profile, rows: Sequence[list[Cells]]) -> Axis:
    """A phase that comes several times is timed as one; each time has the share of its events. What decode leaves out
    is time of decode."""
    widths = []
    for side, row in zip(profile.sides, rows, strict=True):
        assert side.times is not None
        seconds = {phase.name: phase.median for phase in side.times.phases}
        cells: Counter[str] = Counter()
        for phase, first, stop in row:
            cells[_timed(phase)] += stop - first
        widths.append(
            [seconds.get(_timed(phase), 0.0) * (stop - first) / cells[_timed(phase)] for phase, first, stop in row]
        )
    return _axis(profile, rows, widths, "seconds", "by time", "s")


def _axis(
    profile: Profile,
    rows: Sequence[list[Cells]],
    widths: Sequence[Sequence[float]],
    name: str,
    title: str,
    unit: str = "",
) -> Axis:
    spreads = []
    for side, row, line in zip(profile.sides, rows, widths, strict=True):
        segments, left = [], 0.0
        for (phase, first, stop), width in zip(row, line, strict=True):
            label = "steps in between" if phase == SKIPPED else spaced(phase)
            segments.append(Segment(label, first, stop, left, left + width))
            left += width
        spreads.append(_with_measured(side, tuple(segments), [phase for phase, _, _ in row]))
    length = max((spread.predicted[-1].right for spread in spreads if spread.predicted), default=0.0)
    return Axis(name, title, length or 1.0, tuple(spreads), unit)


def _with_measured(side: Side, predicted: tuple[Segment, ...], phases: Sequence[str]) -> Spread:
    """The measured phases in the places of the predicted ones of their name: the first in that of the first. Steps of
    decode of which the prediction leaves some out are one phase on both sides."""
    if side.course is None:
        return Spread(predicted, ())
    places: dict[tuple[str, int], tuple[float, float]] = {}
    for key, run in _runs(phases):
        places[key] = (predicted[run[0]].left, predicted[run[-1]].right)
    cells = measured_cells(side.course)
    measured, unmatched = [], []
    for key, run in _runs([phase for phase, _, _ in cells]):
        first, stop = cells[run[0]][1], cells[run[-1]][2]
        if key in places:
            measured.append(Segment(spaced(key[0]), first, stop, *places[key]))
        else:
            unmatched.append(spaced(key[0]))
    return Spread(predicted, tuple(measured), tuple(unmatched))


def _runs(phases: Sequence[str]) -> Iterator[tuple[tuple[str, int], list[int]]]:
    """Phases with the how-manieth of their name it is, and their numbers; pieces of decode that follow each other are
    one."""
    seen: Counter[str] = Counter()
    number = 0
    while number < len(phases):
        run = [number]
        name = _timed(phases[number])
        while name == DECODE and number + 1 < len(phases) and _timed(phases[number + 1]) == DECODE:
            number += 1
            run.append(number)
        yield (name, seen[name]), run
        seen[name] += 1
        number += 1


def _timed(phase: str) -> str:
    return DECODE if phase == SKIPPED else phase
