"""A profile: a run as it was predicted and as it was seen, over time, by tensor and by second. Torch-free.

`memplan profile` measures one, `memplan report` shows it. What was measured comes from records (memplan/profiles.py),
which hold, beside what every record does, `memory_over_time` and `times` where they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from memplan.errors import MeasurementError, MemplanError
from memplan.estimate import Estimate, backend_of, estimate, trace
from memplan.ops.backend import CURRENT, release
from memplan.profiles import Record, outcome_of, request_of
from memplan.sharing import Shared
from memplan.timeline import Timeline, timeline_of
from memplan.traced import TraceEstimate, TraceVerification
from memplan.verify import Verification, verify

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run


@dataclass(frozen=True, slots=True)
class Course:
    """The bytes that were really alive over time. `phases` are names with the number of their first event, in order;
    `nanoseconds` is when each event happened, counted from the beginning, under the profiler, which slows it down;
    `allocated_bytes` has one entry more: before the first event, and behind each."""

    phases: tuple[tuple[str, int], ...]
    nanoseconds: tuple[int, ...]
    allocated_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """How long a phase took in each of the runs that were timed, in seconds, and the floating-point operations of one
    (products and attention; None where they were not counted)."""

    name: str
    seconds: tuple[float, ...]
    flops: int | None

    @property
    def median(self) -> float:
        """The middle one of the times."""
        return median(self.seconds)

    @property
    def flops_per_second(self) -> float | None:
        """By the median; None where nothing was counted or nothing took any time."""
        return self.flops / self.median if self.flops and self.median else None


@dataclass(frozen=True, slots=True)
class Times:
    """Runs timed without a profiler. `tokens` are those of one run: read by a training step, or read and written.
    `conditions` says how it was timed. `checked_seconds` is how long it takes to read the prompt and all that was
    written at once, which is what checking an answer takes, beside decode, which is what writing it takes."""

    phases: tuple[PhaseTime, ...]
    tokens: int
    conditions: str
    peak_flops_per_second: float | None = None  # of the card, in the run's precision, as its maker states it
    checked_seconds: tuple[float, ...] = ()

    @property
    def seconds(self) -> float:
        """Of one run, by the medians of its phases."""
        return sum(phase.median for phase in self.phases)

    @property
    def tokens_per_second(self) -> float:
        """By these."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def flops(self) -> int | None:
        """Of one run; None where they were not counted."""
        counted = [phase.flops for phase in self.phases if phase.flops is not None]
        return sum(counted) if counted else None

    @property
    def share_of_peak(self) -> float | None:
        """The operations of a second as a share of what the card can do; None where one of the two is not known."""
        if not self.peak_flops_per_second or self.flops is None or not self.seconds:
            return None
        return self.flops / self.seconds / self.peak_flops_per_second


@dataclass(frozen=True, slots=True)
class Side:
    """One run: predicted, and measured where it was really run. `verification` lays both beside each other."""

    name: str  # what tells it from the other sides: "naive", "flash"
    estimate: Estimate | TraceEstimate
    timeline: Timeline
    verification: Verification | TraceVerification | None = None
    record: Record | None = None
    course: Course | None = None
    times: Times | None = None
    failure: str = ""  # why there is no measurement, where one was asked for

    @property
    def environment(self) -> dict[str, Any]:
        """What the real run depended on; nothing where there was none."""
        if isinstance(self.verification, TraceVerification):
            return self.verification.environment
        return dict(self.record["environment"]) if self.record is not None else {}


@dataclass(frozen=True, slots=True)
class Point:
    """The peak of the step at one length, in bytes of the allocated tier."""

    length: int  # tokens
    estimated: int
    measured: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """How the peak grows with the length, `length_name` by its field, for one kind of attention."""

    attention: str
    length_name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """Runs of one job that differ in one thing, beside each other."""

    sides: tuple[Side, ...]
    curves: tuple[Curve, ...] = ()


def predicted_side(
    model: Model, run: Run, device: Device, name: str, torch: tuple[int, int] = CURRENT, failure: str = ""
) -> Side:
    """A run that is predicted only. Raises ConfigurationError and NotModelledError as memplan.estimate does."""
    shared = Shared()
    found = estimate(model, run, device, torch, shared=shared)
    ledger = shared.ledger(found.model, found.run, backend_of(device, torch), trace)
    return Side(name, found, timeline_of(ledger), failure=failure)


def measured_side(record: Record, name: str = "") -> Side:
    """A run by its record. One that did not end is predicted only, and says how it ended."""
    model, run, device = request_of(record)
    version = release(record["environment"]["torch"])
    name = name or run.attention
    outcome = outcome_of(record)
    if outcome != "ran":
        return replace(
            predicted_side(model, run, device, name, version, f"the run ended: {outcome.replace('_', ' ')}"),
            record=record,
        )
    verification = verify(model, run, device, record)
    ledger = trace(verification.estimate.model, verification.estimate.run, backend_of(device, version))
    return Side(
        name=name,
        estimate=verification.estimate,
        timeline=timeline_of(ledger),
        verification=verification,
        record=record,
        course=course_of(record),
        times=times_of(record),
    )


def course_of(measured: dict[str, Any]) -> Course | None:
    """`memory_over_time` of a record; None where it has none. Raises MeasurementError where it contradicts itself."""
    over = measured.get("memory_over_time")
    if over is None:
        return None
    try:
        phases = tuple((str(name), int(event)) for name, event in over["phases"])
        course = Course(phases, tuple(over["nanoseconds"]), tuple(over["allocated_bytes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"the record's memory_over_time is damaged: {error}") from error
    starts = [event for _, event in phases]
    last = len(course.nanoseconds)
    if len(course.allocated_bytes) != last + 1 or starts != sorted(starts) or (starts and starts[-1] > last):
        raise MeasurementError("the record's memory_over_time is damaged: its lists do not fit each other")
    return course


def times_of(measured: dict[str, Any]) -> Times | None:
    """`times` of a record; None where it has none. Raises MeasurementError where they are damaged."""
    times = measured.get("times")
    if times is None:
        return None
    try:
        return Times(
            phases=tuple(
                PhaseTime(str(phase["name"]), tuple(float(each) for each in phase["seconds"]), phase["flops"])
                for phase in times["phases"]
            ),
            tokens=int(times["tokens"]),
            conditions=str(times["conditions"]),
            peak_flops_per_second=times["peak_flops_per_second"],
            checked_seconds=tuple(float(each) for each in times["checked_seconds"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError(f"the record's times are damaged: {error}") from error


LENGTH_FIELDS = ("sequence_length", "source_length", "prompt_length")
"""The length that a curve runs over: the first that the run has."""


SHARES = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1, 3 / 2, 2, 3, 4)
"""Of the run's length: where a curve has its points."""


def curves_of(sides: Sequence[Side], measured: Sequence[Record] = ()) -> tuple[Curve, ...]:
    """The peaks of the same runs at shorter and longer sequences, as far as the model goes. `measured` are records of
    the same runs at other lengths.

    Traced modules have no curve: their sizes are their factory's.
    """
    curves = []
    for side in sides:
        found = side.estimate
        if isinstance(found, TraceEstimate):
            continue
        field = next((name for name in LENGTH_FIELDS if getattr(found.run, name, 0)), None)
        if field is None:
            continue
        length = getattr(found.run, field)
        seen = {length: side.verification.peak.peak.measured} if isinstance(side.verification, Verification) else {}
        for record in measured:
            model, run, _ = request_of(record)
            if model == found.model and outcome_of(record) == "ran" and replace(run, **{field: length}) == found.run:
                seen[getattr(run, field)] = max(phase["peak_allocated_bytes"] for phase in record["phases"])
        lengths = {max(round(length * share), 1) for share in SHARES}
        version = release(side.environment["torch"]) if side.environment else CURRENT
        line = []
        for each in sorted(lengths | set(seen)):
            try:
                at = estimate(found.model, replace(found.run, **{field: each}), found.device, version)
            except MemplanError:
                continue  # longer than the model goes, or shorter than this kind of attention takes
            line.append(Point(each, at.peak.peak_allocated_bytes, seen.get(each)))
        curves.append(Curve(side.name, field, tuple(line)))
    return tuple(curves)
