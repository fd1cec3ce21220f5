"""How the peak grows with the length: a curve for each kind of attention, what was measured, what the card has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log2

from memplan.profiled import Curve
from memplan.report.page.drawing import number, ticks
from memplan.report.page.labels import GAP, LINE, width_of, wrapped
from memplan.report.page.markup import Markup, tag, together
from memplan.report.words import exact, spaced
from memplan.units import human

HEIGHT = 380
WIDE, NARROW = 920, 360
TOP, BOTTOM, LEFT = 24, 52, 68

MARKS = ("M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z", "M-4-4H4V4H-4Z", "M0-5L5 4H-5Z", "M0-5L5 0L0 5L-5 0Z")
"""Shapes of the points, by curve: a disc, a square, a triangle, a diamond."""

NAMES = 0.3
"""The share of the width that names may take; longer ones are broken."""

BOLD = 1.12
"""How much wider bold text is."""

MOST_ABOVE = 3
"""A card with more than so many times the highest point is not drawn: it would press the curves flat."""

DASHES = (None, "7 4", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Scale:
    """From lengths and bytes to pixels."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def length_chart(curves: Sequence[Curve], limit: int | None, limit_name: str, width: int, logarithmic: bool) -> Markup:
    """The chart as an SVG of a given width; both axes linear, or both logarithmic."""
    names = [curve.attention for curve in curves]
    highest = max(point.estimated for curve in curves for point in curve.points)
    shown = limit is not None and limit <= MOST_ABOVE * highest
    broken = [wrapped(name, max(width * NAMES / BOLD, 60)) for name in ([*names, limit_name] if shown else names)]
    right = max(width_of(line) for lines in broken for line in lines) * BOLD + 18
    scale = _scale(curves, limit if shown else None, width - right, logarithmic)
    parts = [_axes(scale, curves[0].length_name, width, right)]
    ends = [scale.y(curve.points[-1].estimated) for curve in curves]
    kinds = [f"curve-name curve-{place % len(MARKS)}" for place in range(len(curves))]
    if shown and limit is not None:
        y = number(scale.y(limit))
        said = tag("title", f"{limit_name} has {exact(limit)}")
        parts.append(tag("path", said, d=f"M{LEFT} {y}H{number(width - right)}", class_="limit"))
        ends.append(scale.y(limit))
        kinds.append("curve-name limit-name")
    parts += [_curve(curve, place, scale) for place, curve in enumerate(curves)]
    x = number(width - right + 10)
    for lines, kind, middle in zip(broken, kinds, _apart(ends, [len(lines) for lines in broken]), strict=True):
        for row, line in enumerate(lines):
            y = number(middle + (row - (len(lines) - 1) / 2) * LINE)
            parts.append(tag("text", line, x=x, y=y, class_=kind, dominant_baseline="central"))
    title = "The peak by length: " + ", ".join(curve.attention for curve in curves)
    return tag(
        "svg",
        tag("title", title),
        together(parts),
        class_="length-chart",
        viewBox=f"0 0 {width} {HEIGHT}",
        role="img",
        aria_label=title,
    )


def _scale(curves: Sequence[Curve], limit: int | None, end: float, logarithmic: bool) -> Scale:
    points = [point for curve in curves for point in curve.points]
    lengths = sorted({point.length for point in points})
    sizes = [point.estimated for point in points] + [point.measured for point in points if point.measured]
    if limit is not None:
        sizes.append(limit)
    plot, height = end - LEFT, HEIGHT - TOP - BOTTOM
    if logarithmic:
        low_x, high_x = log2(lengths[0]), log2(lengths[-1])
        span_x = high_x - low_x or 1.0
        low, high = floor(log2(max(min(sizes), 1))), ceil(log2(max(*sizes, 2)))
        high = max(high, low + 1)
        step = max((high - low) // 6, 1)
        return Scale(
            lambda x: LEFT + (log2(x) - low_x) / span_x * plot,
            lambda y: TOP + height - (log2(max(y, 1)) - low) / (high - low) * height,
            tuple((length, f"{length:,}") for length in lengths),
            tuple((float(2**power), _round(2**power)) for power in range(low, high + 1, step)),
        )
    top = max(*sizes, 1) * 1.04
    most = lengths[-1]
    return Scale(
        lambda x: LEFT + x / most * plot,
        lambda y: TOP + height - y / top * height,
        tuple((length, f"{length:,}") for length in lengths),
        tuple(ticks(0, int(top))),
    )


def _round(size: int) -> str:
    """A power of two without the decimals that it has not."""
    return human(size).replace(".00", "")


def _axes(scale: Scale, length_name: str, width: int, right: float) -> Markup:
    parts = []
    end, axis = number(width - right), HEIGHT - BOTTOM
    for size, text in scale.y_ticks:
        y = number(scale.y(size))
        parts.append(tag("path", d=f"M{LEFT} {y}H{end}", class_="grid"))
        parts.append(tag("text", text, x=LEFT - 8, y=y, class_="tick", text_anchor="end", dominant_baseline="central"))
    parts.append(tag("path", d=f"M{LEFT} {axis}H{end}", class_="axis"))
    taken = -float(GAP)
    for length, text in _told(scale, width):
        x, half = scale.x(length), width_of(text) / 2
        parts.append(tag("path", d=f"M{number(x)} {axis}v5", class_="axis"))
        if x - half >= taken + GAP:
            parts.append(tag("text", text, x=number(x), y=axis + 19, class_="tick", text_anchor="middle"))
            taken = x + half
    middle = number((LEFT + width - right) / 2)
    parts.append(
        tag("text", f"{spaced(length_name)}, tokens", x=middle, y=HEIGHT - 10, class_="tick", text_anchor="middle")
    )
    return tag("g", together(parts), class_="scale")


def _told(scale: Scale, width: int) -> list[tuple[float, str]]:
    """Lengths by the axis, from the longest down where there is little room, so that that one is named."""
    kept: list[tuple[float, str]] = []
    for length, text in reversed(scale.x_ticks):
        x, half = scale.x(length), width_of(text) / 2
        if not kept or x + half + GAP <= scale.x(kept[-1][0]) - width_of(kept[-1][1]) / 2:
            kept.append((length, text))
    return kept[::-1]


def _curve(curve: Curve, place: int, scale: Scale) -> Markup:
    kind = place % len(MARKS)
    path = "L".join(f"{number(scale.x(point.length))} {number(scale.y(point.estimated))}" for point in curve.points)
    parts = [tag("path", d=f"M{path}", class_="curve", stroke_dasharray=DASHES[kind])]
    for point in curve.points:
        said = f"{curve.attention}, {point.length:,} tokens: predicted {exact(point.estimated)}"
        at = point.estimated
        if point.measured is not None:
            difference = point.estimated - point.measured
            off = f"{exact(point.measured)}, difference {difference:+,}" if difference else "the same to the byte"
            said += f", measured {off}"
            at = point.measured
        parts.append(
            tag(
                "path",
                tag("title", said),
                d=MARKS[kind],
                transform=f"translate({number(scale.x(point.length))} {number(scale.y(at))})",
                class_="point" if point.measured is None else "point seen",
            )
        )
    return tag("g", together(parts), class_=f"curve-{kind}")


def _apart(ends: Sequence[float], lines: Sequence[int]) -> list[float]:
    """The middles of names at the ends of curves, of so many lines, moved so that none lies on another."""
    order = sorted(range(len(ends)), key=lambda place: ends[place])
    placed = list(ends)
    for before, after in pairwise(order):
        room = (lines[before] + lines[after]) / 2 * LINE + 1
        placed[after] = max(placed[after], placed[before] + room)
    last = order[-1]
    too_low = max(0.0, placed[last] + lines[last] / 2 * LINE - (HEIGHT - BOTTOM))
    return [y - too_low for y in placed]


def crossing(curve: Curve, limit: int) -> tuple[int, int, int] | None:
    """Where a curve crosses `limit`: the lengths of the points on both sides, and about where between them, by a
    straight line. None where it does not, or is above from the beginning."""
    for before, after in pairwise(curve.points):
        if before.estimated <= limit < after.estimated:
            part = (limit - before.estimated) / (after.estimated - before.estimated)
            return before.length, after.length, floor(before.length + part * (after.length - before.length))
    return None
