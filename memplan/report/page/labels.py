"""Where text stands in a chart, so that none lies over another. script/labels.js does the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memplan.report.page.drawing import DENSITY

CHARACTER = 6.6
"""Pixels that a character of text takes at 12 pixels: rather too many."""

GAP = 10
"""Pixels between two texts beside each other."""

LINE = 15
"""Pixels from line to line."""

ROWS = 3
"""Of labels below an axis."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text with its middle at `x`, in row number `row`."""

    text: str
    x: float
    row: int


def width_of(text: str) -> float:
    """Pixels, roughly and rather too many."""
    return len(text) * CHARACTER


def packed(wanted: Sequence[tuple[str, float]], left: float, right: float, rows: int = ROWS) -> list[Label | None]:
    """Texts below their places, from left to right, each in the first row that has room; None for one that finds
    none."""
    ends = [left - GAP] * rows
    found: list[Label | None] = []
    for text, x in wanted:
        half = width_of(text) / 2
        middle = min(max(x, left + half), right - half)
        row = next((row for row, end in enumerate(ends) if middle - half >= end + GAP), None)
        if row is None or middle - half < left:
            found.append(None)
            continue
        ends[row] = middle + half
        found.append(Label(text, middle, row))
    return found


def wrapped(text: str, width: float) -> list[str]:
    """Lines of whole words; a word that is too long for a line is broken."""
    most = max(int(width / CHARACTER), 8)
    lines: list[str] = []
    for word in text.split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= most:
            lines[-1] += " " + word
            continue
        while len(word) > most:
            lines.append(word[:most])
            word = word[most:]
        lines.append(word)
    return lines


BLOCK = 8
"""Columns that are looked at as one."""


def inside(
    text: str, lower: Sequence[float | None], upper: Sequence[float | None], height: float = 15
) -> tuple[float, float] | None:
    """The best place for a text within a band: the middle, in pixels from the left and in the bands' own unit. `lower`
    and `upper` are the band's edges in pixels above the axis, by column; None where there is none. None where it is
    nowhere thick and long enough."""
    lows, highs = _blocks(lower, max), _blocks(upper, min)
    need = -(-int(width_of(text) * DENSITY + 8) // BLOCK)
    best, place = float(height), None
    for first in range(1, len(lows) - need):  # not right at an edge
        low, high = 0.0, float("inf")
        for block in range(first, first + need):
            a, b = lows[block], highs[block]
            if a is None or b is None:
                high = -1.0
                break
            low, high = max(low, a), min(high, b)
        if high - low > best:
            best, place = high - low, ((first + need / 2) * BLOCK / DENSITY, (low + high) / 2)
    return place


def _blocks(values: Sequence[float | None], pick: Callable[[Sequence[float]], float]) -> list[float | None]:
    chosen: list[float | None] = []
    for first in range(0, len(values) - BLOCK + 1, BLOCK):
        part = values[first : first + BLOCK]
        known = [value for value in part if value is not None]
        chosen.append(pick(known) if len(known) == len(part) else None)
    return chosen
