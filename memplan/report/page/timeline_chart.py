"""Bytes over time: what was predicted as a stack of areas, what was measured as a line over it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from memplan.profiled import Side
from memplan.report.page.drawing import DENSITY, area, columns, levels, line, number, ticks
from memplan.report.page.frame import LEFT, PLOT_HEIGHT, Frame, peak_text, phase_middles
from memplan.report.page.labels import LINE, inside, packed, width_of
from memplan.report.page.markup import Markup, tag, together
from memplan.report.page.palette import paint
from memplan.report.page.series import Stack
from memplan.report.page.spans import Axis, Spread
from memplan.report.words import exact, spaced


def timeline_chart(
    side: Side, stack: Stack, axis: Axis, spread: Spread, frame: Frame, reserved: Sequence[int] | None = None
) -> Markup:
    """The chart of one side as an SVG; over it the bytes that the allocator holds in every cell, where they are
    known."""
    drawn = columns(spread.predicted, stack.totals, 0.0, axis.length, frame.plot)
    edges = list(accumulate(stack.levels, lambda below, level: [a + b for a, b in zip(below, level, strict=True)]))
    bands = [levels(drawn, edge, 0, frame.high, PLOT_HEIGHT) for edge in edges]
    areas = [
        tag("path", d=area(band, LEFT, frame.bottom), fill=paint(name), class_="area", data_component=name)
        for name, band in zip(stack.components, bands, strict=True)
    ]
    parts = [
        _grid(frame),
        tag("g", together(reversed(areas)), class_="areas"),
        tag("path", d=line(bands[-1], LEFT, frame.bottom), class_="outline") if bands else "",
        _dividers(spread, axis, frame),
        _reserved(reserved, axis, spread, frame),
        _measured(side, axis, spread, frame),
        _limit(frame),
        _band_names(stack, bands, frame),
        _phases(spread, axis, frame),
        _peak(side, stack, axis, spread, frame),
    ]
    text = f"{side.name}: memory over time. Predicted peak {exact(stack.totals[stack.peak])}."
    return tag(
        "svg", tag("title", text), together(parts),
        class_="timeline", viewBox=f"0 0 {frame.width} {frame.height}", role="img", aria_label=text,
    )  # fmt: skip


def _grid(frame: Frame) -> Markup:
    """Lines across the plot, with what they stand for."""
    parts = []
    for size, text in ticks(0, frame.high):
        y = number(frame.bottom - size / frame.high * PLOT_HEIGHT)
        parts.append(tag("path", d=f"M{LEFT} {y}H{LEFT + frame.plot}", class_="grid"))
        parts.append(tag("text", text, x=LEFT - 8, y=y, class_="tick", text_anchor="end", dominant_baseline="central"))
    return tag("g", together(parts), class_="scale")


def _dividers(spread: Spread, axis: Axis, frame: Frame) -> Markup:
    edges = sorted({segment.left for segment in spread.predicted[1:]})
    parts = [
        tag("path", d=f"M{number(LEFT + edge / axis.length * frame.plot)} {frame.top}V{frame.bottom}")
        for edge in edges
        if 0 < edge < axis.length
    ]
    return tag("g", together(parts), class_="dividers")


def _measured(side: Side, axis: Axis, spread: Spread, frame: Frame) -> Markup:
    if side.course is None or not spread.measured:
        return Markup("")
    drawn = columns(spread.measured, side.course.allocated_bytes, 0.0, axis.length, frame.plot)
    ups = levels(drawn, side.course.allocated_bytes, 0, frame.high, PLOT_HEIGHT)
    path = line(ups, LEFT, frame.bottom)
    return together((tag("path", d=path, class_="halo"), tag("path", d=path, class_="measured")))


def _reserved(reserved: Sequence[int] | None, axis: Axis, spread: Spread, frame: Frame) -> Markup:
    if reserved is None:
        return Markup("")
    drawn = columns(spread.predicted, reserved, 0.0, axis.length, frame.plot)
    ups = levels(drawn, reserved, 0, frame.high, PLOT_HEIGHT)
    return tag("path", d=line(ups, LEFT, frame.bottom), class_="reserved")


def _limit(frame: Frame) -> Markup:
    if frame.limit is None:
        return Markup("")
    y = number(frame.bottom - frame.limit / frame.high * PLOT_HEIGHT)
    return tag(
        "g",
        tag("path", d=f"M{LEFT} {y}H{LEFT + frame.plot}", class_="limit"),
        tag("text", frame.limit_text, x=LEFT + 8, y=float(y) + 15, class_="on-plot"),
        class_="limit-of-card",
    )


def _band_names(stack: Stack, bands: Sequence[list[float | None]], frame: Frame) -> Markup:
    below: list[float | None] = [0.0] * (frame.plot * DENSITY)
    parts = []
    for name, band in zip(stack.components, bands, strict=True):
        place = inside(spaced(name), below, band)
        if place is not None:
            x, up = number(LEFT + place[0]), number(frame.bottom - place[1])
            parts.append(
                tag(
                    "text", spaced(name), x=x, y=up, class_="on-plot", text_anchor="middle", dominant_baseline="central"
                )
            )
        below = band
    return tag("g", together(parts), class_="bands")


def _phases(spread: Spread, axis: Axis, frame: Frame) -> Markup:
    """The axis, and the names of the phases below it, each with a stroke to its place."""
    strokes = [tag("path", d=f"M{LEFT} {frame.bottom}H{LEFT + frame.plot}", class_="axis")]
    names = []
    wanted = phase_middles(spread, axis.length, frame.plot)
    for (_, x), label in zip(wanted, packed(wanted, LEFT, LEFT + frame.plot), strict=True):
        if label is None:
            continue
        y = frame.bottom + 16 + label.row * LINE
        if label.row:
            strokes.append(tag("path", d=f"M{number(x)} {frame.bottom}V{y - 10}", class_="leader"))
        names.append(tag("text", label.text, x=number(label.x), y=y, class_="phase", text_anchor="middle"))
    # A stroke that passes a name goes behind it.
    return tag("g", together(strokes), together(names), class_="phases")


def _peak(side: Side, stack: Stack, axis: Axis, spread: Spread, frame: Frame) -> Markup:
    """A dot on the peak, and above the plot what makes it."""
    cell = stack.peak
    x = LEFT + middle_of(spread, cell) / axis.length * frame.plot
    y = frame.bottom - stack.totals[cell] / frame.high * PLOT_HEIGHT
    lines = peak_text(side, stack, frame.plot)
    half = max(map(width_of, lines)) / 2
    middle = min(max(x, LEFT + half), LEFT + frame.plot - half)
    first = frame.top - 8 - (len(lines) - 1) * LINE
    text = [
        tag(
            "text",
            each,
            x=number(middle),
            y=first + row * LINE,
            text_anchor="middle",
            class_="peak" if row else "peak first",
        )
        for row, each in enumerate(lines)
    ]
    return tag(
        "g",
        together(text),
        tag("path", d=f"M{number(x)} {frame.top - 3}V{number(y)}", class_="leader"),
        tag("circle", cx=number(x), cy=number(y), r=4, class_="dot"),
        class_="peak-mark",
    )


def middle_of(spread: Spread, cell: int) -> float:
    """Where on the axis the middle of a predicted cell is."""
    for segment in spread.predicted:
        if cell < segment.stop:
            return segment.left + (cell - segment.first + 0.5) * (segment.right - segment.left) / (
                segment.stop - segment.first
            )
    return 0.0
