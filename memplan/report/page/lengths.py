"""The section on length: the chart in both scales, what it says in words, and its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from memplan.estimate import Fit
from memplan.profiled import Curve, Profile
from memplan.report.page.length_chart import NARROW, WIDE, crossing, length_chart
from memplan.report.page.markup import Markup, exact, size, tag, together
from memplan.report.words import spaced
from memplan.units import human


def lengths_section(profile: Profile) -> Markup:
    """The section; there are curves."""
    curves = [curve for curve in profile.curves if curve.points]
    fit = next((fit for side in profile.sides if (fit := getattr(side.estimate, "fit", None)) is not None), None)
    limit = fit.capacity_bytes if fit is not None else None
    name = fit.device if fit is not None else ""
    charts = []
    for kind, logarithmic in (("linear", False), ("logarithmic", True)):
        wide, narrow = (length_chart(curves, limit, name, width, logarithmic) for width in (WIDE, NARROW))
        charts.append(
            tag("div", tag("div", wide, class_="wide"), tag("div", narrow, class_="narrow"), class_=f"scale-{kind}")
        )
    choice = tag(
        "fieldset",
        tag("legend", "Axes"),
        *(_choice(kind, checked=kind == "linear") for kind in ("linear", "logarithmic")),
        class_="choice",
    )
    sentences = tag("ul", together(tag("li", text) for text in _said(curves, fit)), class_="said")
    figure = tag("div", choice, together(charts), class_="length-figure")
    return together((tag("div", figure, sentences, class_="length"), _numbers(curves)))


def _choice(kind: str, checked: bool) -> Markup:
    box = tag("input", type="radio", name="length-scale", id=f"length-{kind}", value=kind, checked=checked)
    return tag("label", box, " ", kind, for_=f"length-{kind}")


def _said(curves: Sequence[Curve], fit: Fit | None) -> Iterator[Markup]:
    """What the curves mean, in sentences."""
    for first, second in pairwise(curves):
        a, b = first.points[-1], second.points[-1]
        if a.length == b.length and a.estimated and b.estimated:
            more, less = (first, second) if a.estimated >= b.estimated else (second, first)
            high, low = more.points[-1].estimated, less.points[-1].estimated
            yield together(
                (f"At {a.length:,} tokens {more.attention} needs ", size(high), f", {less.attention} ", size(low),
                 f": {high / low:.2f} times as much." if high != low else ": the same."),
            )  # fmt: skip
    points = [point for curve in curves for point in curve.points]
    off = [abs(point.estimated - point.measured) for point in points if point.measured is not None]
    if off:
        points_were = "point was" if len(off) == 1 else "points were"
        measured = f"{len(off):,} {points_were} measured (filled marks)"
        if any(off):
            yield together(
                (f"{measured}; {off.count(0):,} to the byte as predicted, the worst off by ", size(max(off)), ".")
            )
        else:
            yield together((f"{measured}, to the byte as predicted.",))
    if fit is None:
        return
    for curve in curves:
        yield _reach(curve, fit)
    yield together(
        ("The curves are allocated bytes: what the allocator reserves beyond them and the CUDA context need room as ",
         "well, so that the longest sequence that fits is shorter."),
    )  # fmt: skip


def _reach(curve: Curve, fit: Fit) -> Markup:
    found = crossing(curve, fit.capacity_bytes)
    card = f"what {fit.device} has ({human(fit.capacity_bytes)})"
    if found is not None:
        before, after, about = found
        where = f"at about {about:,} tokens, between {before:,} and {after:,}"
        return together((f"{curve.attention} passes {card} {where}.",))
    if curve.points[0].estimated > fit.capacity_bytes:
        return together((f"{curve.attention} is above {card} at every length shown.",))
    return together((f"{curve.attention} stays below {card} up to {curve.points[-1].length:,} tokens.",))


def _numbers(curves: Sequence[Curve]) -> Markup:
    rows = []
    for curve in curves:
        for point in curve.points:
            cells = [tag("th", curve.attention, scope="row"), tag("td", f"{point.length:,}")]
            cells += [tag("td", size(point.estimated)), tag("td", exact(point.estimated))]
            if point.measured is None:
                cells += [tag("td", "not measured", class_="muted"), tag("td", "")]
            else:
                off = point.estimated - point.measured
                cells.append(tag("td", exact(point.measured)))
                cells.append(tag("td", exact(off, sign=True), class_="differs" if off else "same"))
            rows.append(tag("tr", together(cells)))
    head = ["attention", spaced(curves[0].length_name), "predicted peak", "bytes", "measured", "residual"]
    table = tag(
        "table",
        tag("thead", tag("tr", together(tag("th", name, scope="col") for name in head))),
        tag("tbody", together(rows)),
        class_="figures",
    )
    scroll = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label="Peaks by length")
    return tag("details", tag("summary", "The numbers"), scroll)
