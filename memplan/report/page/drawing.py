"""From bytes over cells to paths of an SVG. script/drawing.js does the same, number by number, when a reader zooms.

A column is half a pixel wide. Where several cells share one, that with the most bytes is drawn: a peak is never lost.
Coordinates have one decimal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import ceil, floor, log10

from memplan.report.page.spans import Segment
from memplan.units import GIB, KIB, MIB, TIB

DENSITY = 2
"""Columns of a pixel."""

NOTHING = -1
"""In a column without a cell."""


def columns(segments: Sequence[Segment], totals: Sequence[int], begin: float, end: float, width: int) -> list[int]:
    """The cell that is drawn in each column, where the axis from `begin` to `end` is `width` pixels wide."""
    count = width * DENSITY
    chosen = [NOTHING] * count
    for segment in segments:
        scale = (segment.right - segment.left) / (segment.stop - segment.first)
        for cell in range(segment.first, segment.stop):
            left = (segment.left + (cell - segment.first) * scale - begin) / (end - begin) * count
            right = (segment.left + (cell + 1 - segment.first) * scale - begin) / (end - begin) * count
            first = floor(left)
            for column in range(max(first, 0), min(max(first + 1, ceil(right)), count)):
                before = chosen[column]
                if before == NOTHING or totals[cell] > totals[before]:
                    chosen[column] = cell
    return chosen


def number(value: float) -> str:
    """A coordinate, one decimal at most."""
    tenths = floor(value * 10 + 0.5)
    whole, rest = divmod(abs(tenths), 10)
    return f"{'-' if tenths < 0 else ''}{whole}{f'.{rest}' if rest else ''}"


def levels(cells: Sequence[int], values: Sequence[int], low: int, high: int, height: int) -> list[float | None]:
    """Pixels above the axis in each column; `low` bytes lie on it, `high` bytes `height` pixels above."""
    span = high - low
    known: dict[int, float | None] = {NOTHING: None}
    found = []
    for cell in cells:
        if cell not in known:
            known[cell] = min(max(values[cell] - low, 0), span) / span * height
        found.append(known[cell])
    return found


def area(ups: Sequence[float | None], left: int, bottom: int) -> str:
    """The path of what lies below these levels, down to the axis at `bottom`."""
    parts: list[str] = []
    for begin, end, up in _steps(ups, left, bottom):
        if up and not begin:
            parts.append(f"V{up}H{end}")
        elif up:
            parts.append(f"M{begin} {bottom}V{up}H{end}")
        elif parts:
            parts.append(f"V{bottom}Z")
    return "".join(parts)


def line(ups: Sequence[float | None], left: int, bottom: int) -> str:
    """The path along these levels."""
    return "".join(
        f"M{begin} {up}H{end}" if begin else f"V{up}H{end}" for begin, end, up in _steps(ups, left, bottom) if up
    )


def _steps(ups: Sequence[float | None], left: int, bottom: int) -> Iterator[tuple[str, str, str]]:
    """Every run of columns with one height: where it begins, "" where another run ends there; where it ends; and its
    vertical coordinate. A gap has none, and comes only behind a run."""
    column, open_ = 0, False
    for up, group in groupby(ups, lambda up: "" if up is None else number(bottom - up)):
        begin = "" if open_ else number(left + column / DENSITY)
        column += sum(1 for _ in group)
        if up or open_:
            yield begin, number(left + column / DENSITY), up
        open_ = bool(up)
    if open_:
        yield "", "", ""


def ticks(low: int, high: int, most: int = 6) -> list[tuple[float, str]]:
    """Round numbers of bytes from `low` to `high`, about `most` of them, with what they are called: 1, 2 or 5 times a
    power of ten of the largest binary unit in `high`."""
    unit, name = next((each for each in _UNITS if high >= each[0]), (1, "B"))
    step = _round_step(max((high - low) / unit / most, 1 / unit))
    places = max(0, -floor(log10(step) + 1e-9))
    first, last = ceil(low / (step * unit)), floor(high / (step * unit))
    return [(each * step * unit, f"{each * step:.{places}f} {name}") for each in range(first, last + 1)]


_UNITS = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))


def _round_step(least: float) -> float:
    for exponent in range(-12, 40):
        for factor in (1, 2, 5):
            step = float(f"{factor}e{exponent}")
            if step >= least * 0.999999:
                return step
    return least
