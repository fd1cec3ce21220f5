"""Lines over a number, drawn with characters: both axes logarithmic, so that a power is a straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log10

from memplan.units import human

MARKS = "ox+*#@%&"
HEIGHT = 16


def plot(lines: Mapping[str, Sequence[tuple[float, int]]], limit: int, width: int, x_name: str) -> list[str]:
    """The lines (name -> points of x and bytes) as text, with a rule at `limit` bytes where it is not 0."""
    points = [point for line in lines.values() for point in line if point[0] > 0 and point[1] > 0]
    if not points:
        return []
    left = 12
    columns = max(min(width, 110) - left - 2, 20)
    xs = [log10(x) for x, _ in points]
    ys = [log10(y) for _, y in points] + ([log10(limit)] if limit else [])
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    high_x = high_x if high_x > low_x else low_x + 1
    high_y = high_y if high_y > low_y else low_y + 1
    canvas = [[" "] * columns for _ in range(HEIGHT)]

    def column(x: float) -> int:
        return round((log10(x) - low_x) / (high_x - low_x) * (columns - 1))

    def row(y: float) -> int:
        return HEIGHT - 1 - round((log10(y) - low_y) / (high_y - low_y) * (HEIGHT - 1))

    if limit:
        canvas[row(limit)] = ["-"] * columns
    for number, line in enumerate(lines.values()):
        mark = MARKS[number % len(MARKS)]
        known = sorted((x, y) for x, y in line if x > 0 and y > 0)
        for (x, y), (next_x, next_y) in pairwise(known):
            first, last = column(x), column(next_x)
            for place in range(first + 1, last):
                share = (place - first) / (last - first)
                height = 10 ** (log10(y) + share * (log10(next_y) - log10(y)))
                if canvas[row(height)][place] in " -":
                    canvas[row(height)][place] = "."
        for x, y in known:
            canvas[row(y)][column(x)] = mark
    labels = {0: human(round(10**high_y)), HEIGHT - 1: human(round(10**low_y))}
    if limit:
        labels[row(limit)] = human(limit)
    drawn = [f"{labels.get(number, '').rjust(left)} |{''.join(cells).rstrip()}" for number, cells in enumerate(canvas)]
    drawn.append(" " * (left + 1) + "+" + "-" * columns)
    ends = f"{10**low_x:,.0f}", f"{10**high_x:,.0f}"
    middle = x_name.center(columns - len(ends[0]) - len(ends[1]))
    drawn.append(" " * (left + 2) + ends[0] + middle + ends[1])
    names = [f"{MARKS[number % len(MARKS)]} {name}" for number, name in enumerate(lines)]
    drawn.append(" " * (left + 2) + "   ".join(names) + (f"   - {human(limit)}, the device" if limit else ""))
    return drawn
