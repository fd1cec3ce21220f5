"""A grid of settings as a table with a plot, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.report.layout import Page, Row
from memplan.report.plot import plot
from memplan.units import human

if TYPE_CHECKING:
    from memplan.sweep.axes import Axis, Value
    from memplan.sweep.grid import Crossing, Point

SCHEMA_VERSION = 1

_STYLES = {"fits": "", "": "", "tight": "yellow", "does_not_fit": "red"}
_SIGNS = {"fits": "", "": "", "tight": " ?", "does_not_fit": " !"}


def render_sweep(
    axes: Sequence[Axis],
    points: Sequence[Point],
    crossings: Sequence[Crossing],
    *,
    width: int = 80,
    colour: bool = False,
) -> str:
    """Rows along the first axis, a column for each combination of the others; `!` does not fit, `?` is tight."""
    page = Page(width, colour)
    rest = list(dict.fromkeys(point.settings[1:] for point in points))
    by_place = {(point.settings[0][1], point.settings[1:]): point for point in points}
    header = [axes[0].key, *(words(settings) or "needs" for settings in rest)]
    rows = []
    for value in axes[0].values:
        cells = [f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)]
        for settings in rest:
            point = by_place[value, settings]
            cells.append(f"{human(point.need)}{_SIGNS[point.verdict]}" if point.need is not None else "-")
        rows.append(Row(cells))
    page.table(header, rows)
    if axes[0].numeric and len(axes[0].values) > 1:
        lines = {
            words(settings) or "needs": [
                (float(value), by_place[value, settings].need or 0) for value in axes[0].values
            ]
            for settings in rest
        }
        page.skip()
        page.lines += plot(lines, _limit(points), width, axes[0].key)
    if crossings:
        page.skip()
    for crossing in crossings:
        name = words(crossing.settings) or axes[0].key
        if crossing.beyond:
            page.paragraph(f"{name}: ", f"all of it fits, up to {axes[0].key} = {crossing.largest:,}", "green")
        elif crossing.largest:
            page.paragraph(f"{name}: ", f"the device ends behind {axes[0].key} = {crossing.largest:,}", "yellow")
        else:
            page.paragraph(f"{name}: ", "nothing fits", "red")
    for error in dict.fromkeys(point.error for point in points if point.error):
        page.paragraph("-: ", error, "dim")
    return page.text()


def words(settings: Sequence[tuple[str, Value]]) -> str:
    """`naive, h100-80gb`; a number with its name."""
    return ", ".join(str(value) if isinstance(value, str) else f"{key} {value}" for key, value in settings)


def _limit(points: Sequence[Point]) -> int:
    """The capacity, where all points have the same one."""
    sizes = {point.estimate.fit.capacity_bytes for point in points if point.estimate and point.estimate.fit}
    return sizes.pop() if len(sizes) == 1 else 0


def sweep_to_csv(axes: Sequence[Axis], points: Sequence[Point]) -> str:
    """A line for each point: the settings, bytes in each tier and by component at the peak, the verdict."""
    from memplan.estimate import COMPONENTS

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    tiers = ("allocated_bytes", "reserved_bytes", "device_bytes")
    writer.writerow(
        [*(axis.key for axis in axes), *tiers, "upper_bytes", "peak_phase", *COMPONENTS, "verdict", "error"]
    )
    for point in points:
        found = point.estimate
        sizes: list[object] = [""] * (len(tiers) + 2 + len(COMPONENTS))
        if found is not None:
            bounds = found.interval.device_bytes or found.interval.allocated_bytes
            sizes = [*(getattr(found.tiers, tier) for tier in tiers), bounds[1] if bounds else None, found.peak.name]
            sizes += [found.at_peak[name] for name in COMPONENTS]
        cells = ["" if size is None else size for size in sizes]
        writer.writerow([*(value for _, value in point.settings), *cells, point.verdict, point.error])
    return text.getvalue()


def sweep_to_json(axes: Sequence[Axis], points: Sequence[Point], crossings: Sequence[Crossing]) -> str:
    """The document of version 1: integer bytes."""
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "axes": [{"key": axis.key, "values": list(axis.values)} for axis in axes],
        "points": [_point(point) for point in points],
        "crossings": [
            {"settings": dict(each.settings), "largest": each.largest, "all_fit": each.beyond} for each in crossings
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _point(point: Point) -> dict[str, Any]:
    found = point.estimate
    return {
        "settings": dict(point.settings),
        "allocated_bytes": found.tiers.allocated_bytes if found else None,
        "reserved_bytes": found.tiers.reserved_bytes if found else None,
        "device_bytes": found.tiers.device_bytes if found else None,
        "peak_phase": found.peak.name if found else None,
        "at_peak": dict(found.at_peak) if found else None,
        "verdict": point.verdict or None,
        "error": point.error or None,
    }
