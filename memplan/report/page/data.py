"""A profile as JSON, version 1: what the page embeds and what `--output json` prints. memplan/schemas/profile.json says
what stands where.

The timeline is told in columns: texts once each in tables, and for every tensor the numbers of its texts. `born` and
`died` are numbers of events, -1 for what the run finds, null for what outlives it; of `events`, n is the birth of
tensor n and ~n (-n - 1) its death.
"""

from __future__ import annotations

import json
from typing import Any

from memplan import __version__
from memplan.estimate import line_of
from memplan.ledger import Allocation
from memplan.profiled import Course, Curve, Profile, Side, Times
from memplan.report.machine import SCHEMA_VERSION, estimate_to_dict
from memplan.report.tracing import traced_to_json
from memplan.report.verification import figure_to_dict
from memplan.timeline import Timeline
from memplan.traced import TraceEstimate
from memplan.verify import PhaseVerification, Verification

TOP = 20
"""How many of the biggest tensors at the peak the estimate lists."""


def profile_to_json(profile: Profile) -> str:
    """The document on one line, and a line feed."""
    return json.dumps(profile_to_dict(profile), separators=(",", ":")) + "\n"


def profile_to_dict(profile: Profile) -> dict[str, Any]:
    """The document of version 1. Keys may be added; those that are here stay. No times of day, no paths."""
    return {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "kind": "profile",
        "sides": [_side(side) for side in profile.sides],
        "curves": [_curve(curve) for curve in profile.curves],
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "estimate": _estimate(side),
        "timeline": timeline_to_dict(side.timeline),
        "course": None if side.course is None else _course(side.course),
        "residuals": _residuals(side),
        "times": None if side.times is None else _times(side.times),
        "environment": _plain(side.environment),
        "failure": side.failure,
    }


def _estimate(side: Side) -> dict[str, Any]:
    if not isinstance(side.estimate, TraceEstimate):
        return estimate_to_dict(side.estimate, top=TOP)
    document: dict[str, Any] = json.loads(traced_to_json(side.estimate, top=TOP))
    return document


class _Table:
    """Values, each once, by number."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


def timeline_to_dict(timeline: Timeline) -> dict[str, Any]:
    """A timeline in columns, with its peak."""
    names = ("modules", "operations", "components", "shapes", "dtypes", "formulas", "reasons")
    tables = {name: _Table() for name in names}
    columns: dict[str, list[int | None]] = {
        name: [] for name in ("module", "operation", "component", "shape", "dtype", "formula", "reason")
    }
    known: dict[int, tuple[int, ...]] = {}  # what the copies of a layer have in common
    for tensor in timeline.tensors:
        numbers = known.get(id(tensor.allocation))
        if numbers is None:
            values = _common(tensor.allocation)
            numbers = known[id(tensor.allocation)] = tuple(tables[name](value) for name, value in values.items())
        columns["module"].append(tables["modules"](tensor.module))
        for name, each in zip(_COMMON, numbers, strict=True):
            columns[name].append(each)
    line = timeline.allocated()
    peak = timeline.peak()
    event = timeline.events[peak] if peak >= 0 else -1
    return {
        "phases": [[name, start] for name, start in timeline.phases],
        **{name: list(table.numbers) for name, table in tables.items()},
        "tensors": {
            **columns,
            "size_bytes": [tensor.size for tensor in timeline.tensors],
            "born": [tensor.born for tensor in timeline.tensors],
            "died": [tensor.died for tensor in timeline.tensors],
        },
        "events": list(timeline.events),
        "peak": {
            "event": peak,
            "allocated_bytes": line[peak + 1],
            "tensor": event if event >= 0 else None,
        },
    }


_COMMON = ("operation", "component", "shape", "dtype", "formula", "reason")


def _common(allocation: Allocation) -> dict[str, Any]:
    line = line_of(allocation, 1)
    return {
        "operations": allocation.operation,
        "components": allocation.component,
        "shapes": tuple(int(length) for length in allocation.shape),
        "dtypes": allocation.dtype,
        "formulas": line.formula,
        "reasons": line.reason,
    }


def _course(course: Course) -> dict[str, Any]:
    return {
        "phases": [[name, start] for name, start in course.phases],
        "nanoseconds": list(course.nanoseconds),
        "allocated_bytes": list(course.allocated_bytes),
    }


def _residuals(side: Side) -> dict[str, Any] | None:
    verification = side.verification
    if verification is None:
        return None
    verdict = "exact" if verification.exact else "within_tolerance" if verification.holds else "differs"
    tiers = verification.tiers if isinstance(verification, Verification) else {"allocated": verification.peak}
    kernels = verification.record["sdpa_kernels"] if isinstance(verification, Verification) else None
    return {
        "verdict": verdict,
        "sdpa_kernels": kernels,
        "tiers": {name: figure_to_dict(residual) for name, residual in tiers.items()},
        "phases": [_phase(phase) for phase in verification.phases],
    }


def _phase(phase: PhaseVerification) -> dict[str, Any]:
    return {
        "name": phase.name,
        "peak": figure_to_dict(phase.peak),
        "end": None if phase.end is None else figure_to_dict(phase.end),
        "reserved": None if phase.reserved is None else figure_to_dict(phase.reserved),
        "at_peak": {name: figure_to_dict(residual) for name, residual in phase.at_peak.items()},
        "at_end": {name: figure_to_dict(residual) for name, residual in phase.at_end.items()},
    }


def _times(times: Times) -> dict[str, Any]:
    return {
        "phases": [
            {
                "name": phase.name,
                "seconds": list(phase.seconds),
                "median_seconds": phase.median if phase.seconds else None,
                "flops": phase.flops,
                "flops_per_second": phase.flops_per_second if phase.seconds else None,
            }
            for phase in times.phases
        ],
        "tokens": times.tokens,
        "conditions": times.conditions,
        "seconds": times.seconds,
        "tokens_per_second": times.tokens_per_second,
        "flops": times.flops,
        "peak_flops_per_second": times.peak_flops_per_second,
        "share_of_peak": times.share_of_peak,
        "checked_seconds": list(times.checked_seconds),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "attention": curve.attention,
        "length_name": curve.length_name,
        "points": [
            {"length": point.length, "estimated_bytes": point.estimated, "measured_bytes": point.measured}
            for point in curve.points
        ],
    }


def _plain(environment: dict[str, Any]) -> dict[str, Any]:
    """What JSON can say; anything else as text."""
    plain: dict[str, Any] = json.loads(json.dumps(environment, default=str))
    return plain


def embedded(document: Any) -> str:
    """JSON that may stand inside a script element of HTML, whatever the names in it are."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
