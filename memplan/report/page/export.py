"""The main charts as one plain SVG: no script, no style sheet of the page, nothing that a viewer could lack."""

from __future__ import annotations

import re

from memplan.profiled import Profile
from memplan.report.page.document import resource
from memplan.report.page.drawing import number
from memplan.report.page.frame import LEFT, WIDTH, frame_of
from memplan.report.page.head import job_in_words
from memplan.report.page.labels import GAP, LINE, width_of, wrapped
from memplan.report.page.length_chart import HEIGHT as LENGTH_HEIGHT
from memplan.report.page.length_chart import length_chart
from memplan.report.page.markup import Markup, tag, together
from memplan.report.page.palette import STACKED, paint, patterns
from memplan.report.page.series import stack_of
from memplan.report.page.spans import axes_of
from memplan.report.page.timeline_chart import timeline_chart
from memplan.report.words import spaced

MARGIN = 16


def render_svg(profile: Profile) -> str:
    """The timelines of all sides below each other, and the peak by length where there are curves."""
    stacks = [stack_of(side.timeline) for side in profile.sides]
    axis = axes_of(profile)[0]
    frame = frame_of(profile, stacks, axis)
    parts: list[Markup] = []
    y = 0
    model, runs = job_in_words(profile)
    for place, text in enumerate([model, *runs]):
        for each in wrapped(text, WIDTH):
            y += LINE + 3
            parts.append(tag("text", each, x=LEFT, y=y, class_="first" if not place else "phase"))
    names = [name for name in STACKED if any(name in stack.components for stack in stacks)]
    y += LINE
    measured = any(side.course is not None for side in profile.sides)
    drawn, y = _legend(names, measured, y)
    parts.append(drawn)
    for side, stack, spread in zip(profile.sides, stacks, axis.spreads, strict=True):
        y += 2 * LINE
        parts.append(tag("text", side.name, x=LEFT, y=y, class_="first"))
        chart = timeline_chart(side, stack, axis, spread, frame)
        parts.append(_placed(chart, y, frame.height))
        y += frame.height
    curves = [curve for curve in profile.curves if curve.points]
    if curves:
        fit = next((fit for side in profile.sides if (fit := getattr(side.estimate, "fit", None)) is not None), None)
        y += 2 * LINE
        parts.append(tag("text", "The peak by length", x=LEFT, y=y, class_="first"))
        limit, name = (fit.capacity_bytes, fit.device) if fit is not None else (None, "")
        parts.append(_placed(length_chart(curves, limit, name, WIDTH, False), y, LENGTH_HEIGHT))
        y += LENGTH_HEIGHT
    width, height = WIDTH + 2 * MARGIN, y + 2 * MARGIN
    drawing = tag(
        "svg",
        tag("title", model),
        tag("style", Markup(_style())),
        patterns(),
        tag("rect", width=width, height=height, fill="#ffffff"),
        tag("g", together(parts), transform=f"translate({MARGIN} {MARGIN})"),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing}\n'


def _placed(chart: Markup, y: int, height: int) -> Markup:
    """A chart as part of the drawing."""
    return Markup(chart.replace("<svg ", f'<svg x="0" y="{y}" width="{WIDTH}" height="{height}" ', 1))


def _legend(names: list[str], measured: bool, y: int) -> tuple[Markup, int]:
    """Squares with their names, in as many lines as it takes; and where the last of them is."""
    x = float(LEFT)
    parts = []
    for name in [*names, *(["measured"] if measured else [])]:
        text = spaced(name)
        width = 20 + width_of(text)
        if x + width > WIDTH:
            x, y = float(LEFT), y + LINE + 3
        if name == "measured":
            parts.append(tag("path", d=f"M{number(x)} {y}h14", class_="measured"))
        else:
            parts.append(tag("rect", x=number(x), y=y - 7, width=14, height=14, fill=paint(name)))
        parts.append(tag("text", text, x=number(x + 20), y=y, dominant_baseline="central"))
        x += width + 2 * GAP
    return together(parts), y


def _style() -> str:
    """The charts' own style with the light colours written in: not every viewer knows variables."""
    light = resource("style.css").split("}", 1)[0]
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", light))
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found.group(1)], resource("chart.css"))
