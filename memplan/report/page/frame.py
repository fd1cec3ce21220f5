"""The frame that the timelines of all sides share: the same scale, the same room round the plots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memplan.profiled import Profile, Side
from memplan.report.page.labels import LINE, packed, wrapped
from memplan.report.page.series import Stack, phase_of_cell
from memplan.report.page.spans import Axis, Spread
from memplan.report.words import spaced
from memplan.units import human

WIDTH = 1000
"""Pixels of a chart, where no script makes it as wide as there is room."""

LEFT, RIGHT = 68, 14
PLOT_HEIGHT = 380


@dataclass(frozen=True, slots=True)
class Frame:
    """All in pixels but `high`, the bytes at the top of the plot, and `limit`, those of the card, where it is drawn.
    `lines` are those of the text above the plot, `rows` those of the labels below it."""

    width: int
    high: int
    lines: int
    rows: int
    limit: int | None = None
    limit_text: str = ""

    @property
    def top(self) -> int:
        """The upper edge of the plot."""
        return 16 + self.lines * LINE

    @property
    def bottom(self) -> int:
        """The axis."""
        return self.top + PLOT_HEIGHT

    @property
    def height(self) -> int:
        """Of the whole chart."""
        return self.bottom + 10 + self.rows * LINE

    @property
    def plot(self) -> int:
        """The width of the plot."""
        return self.width - LEFT - RIGHT


def frame_of(
    profile: Profile, stacks: Sequence[Stack], axis: Axis, width: int = WIDTH, reserved: Iterable[Sequence[int]] = ()
) -> Frame:
    """Room for every side, and for the reserved bytes that are drawn."""
    totals = [total for stack in stacks for total in stack.totals]
    totals += [size for line in reserved for size in line]
    totals += [size for side in profile.sides if side.course for size in side.course.allocated_bytes]
    most = max([*totals, 1])
    fit = next((fit for side in profile.sides if (fit := getattr(side.estimate, "fit", None)) is not None), None)
    limit = fit.capacity_bytes if fit is not None and fit.capacity_bytes <= 2 * most else None
    plot = width - LEFT - RIGHT
    lines = rows = 1
    for side, stack, spread in zip(profile.sides, stacks, axis.spreads, strict=True):
        lines = max(lines, len(peak_text(side, stack, plot)))
        found = packed(phase_middles(spread, axis.length, plot), LEFT, LEFT + plot)
        rows = max([rows, *(label.row + 1 for label in found if label is not None)])
    return Frame(
        width=width,
        high=-(-max(most, limit or 0) * 26 // 25),
        lines=lines,
        rows=rows,
        limit=limit,
        limit_text=f"{human(limit)}: all that {fit.device} has" if fit is not None and limit is not None else "",
    )


def phase_middles(spread: Spread, length: float, plot: int) -> list[tuple[str, float]]:
    """What is written below the axis, and where."""
    return [
        (segment.label, LEFT + (segment.left + segment.right) / 2 / length * plot)
        for segment in spread.predicted
        if segment.right > segment.left
    ]


def peak_text(side: Side, stack: Stack, plot: int) -> list[str]:
    """What is written above the peak, in lines."""
    cell = stack.peak
    first = f"peak {human(stack.totals[cell])} in {spaced(phase_of_cell(side, cell))}"
    return [first, *wrapped(maker(side, cell), plot)]


def maker(side: Side, cell: int) -> str:
    """The tensor that is born or freed when a cell begins."""
    if not cell:
        return "what is there when it begins"
    event = side.timeline.events[cell - 1]
    return side.timeline.tensors[event].title if event >= 0 else f"freed: {side.timeline.tensors[~event].title}"
