"""The estimator graded on recorded runs: every residual, the sums over them, and whether the tolerances hold.

Torch-free. A run that ran is graded by its bytes; one that ran out of memory by whether that was foreseen; one that was
killed, hung or failed says nothing, and is counted. The intervals are graded too, each without its own record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from memplan.errors import MemplanError
from memplan.graded import Grade, graded
from memplan.ops.backend import release
from memplan.profiles import Problem, Record, is_graded, outcome_of
from memplan.promises import Check, checks
from memplan.residuals import FILE_NAME, Line, features, fingerprint, residuals_to_text
from memplan.verify import TIERS, Residual, held_out_interval


@dataclass(frozen=True, slots=True)
class Summary:
    """The signed errors of one tier (or of one phase of it) over the records that have one value in common. Errors are
    shares of the measurement, of estimate less measurement."""

    tier: str
    group: str  # "", phase, attention, precision, architecture or device
    value: str
    count: int
    exact: int  # at 0 bytes
    mean: float
    worst: float


@dataclass(frozen=True, slots=True)
class Miss:
    """One figure of one record that is not exact."""

    file: str
    figure: str
    residual: Residual


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the measurements of a tier lie within the interval that the other records give."""

    tier: str
    inside: int
    count: int


@dataclass(frozen=True, slots=True)
class Grading:
    """Every record graded, and what follows from all of them."""

    grades: tuple[Grade, ...]
    ungraded: dict[str, int]  # outcome -> runs that say nothing about the estimate
    problems: tuple[tuple[str, str], ...]  # records that could not be read or estimated, and why
    summaries: tuple[Summary, ...]
    misses: tuple[Miss, ...]  # the largest share of the measurement first
    unforeseen: tuple[Grade, ...]  # ran out of memory, and were predicted to fit
    checks: tuple[Check, ...]
    coverage: tuple[Coverage, ...]
    residuals: tuple[Line, ...]  # what the file of residuals should hold

    @property
    def holds(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


def grade(records: Iterable[tuple[Path, Record]], folder: Path, problems: Iterable[Problem] = ()) -> Grading:
    """Grade the estimator on the records that were read below `folder`; `problems` are the files that were none."""
    grades: list[Grade] = []
    ungraded: dict[str, int] = {}
    refused = list(problems)
    for file, record in records:
        outcome = outcome_of(record) if is_graded(record) else "watched"
        if outcome not in ("ran", "out_of_memory"):
            ungraded[outcome] = ungraded.get(outcome, 0) + 1
            continue
        try:
            grades.append(graded(_below(folder, file), record))
        except MemplanError as error:
            refused.append((file, f"cannot grade {file}: {error.message}"))
    lines = [(each, _line(each)) for each in grades if each.verification is not None]
    return Grading(
        grades=tuple(grades),
        ungraded=ungraded,
        problems=tuple((_below(folder, file), why.replace(str(file), _below(folder, file))) for file, why in refused),
        summaries=tuple(_summaries(grades)),
        misses=tuple(_misses(grades)),
        unforeseen=tuple(each for each in grades if each.verification is None and each.said_to_fit),
        checks=tuple(checks(grades)),
        coverage=tuple(_coverage(lines)),
        residuals=tuple(line for _, line in lines),
    )


def with_residuals(grading: Grading, text: str) -> Grading:
    """The same with one more check: that the file of residuals, which says `text`, is what comes out."""
    fresh = text == residuals_to_text(grading.residuals)
    check = Check(f"{FILE_NAME} is up to date", int(fresh), 1, 100)
    return replace(grading, checks=(*grading.checks, check))


def _below(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _line(each: Grade) -> Line:
    """The line of one run in the file of residuals."""
    assert each.verification is not None
    estimate, environment = each.estimate, each.record["environment"]
    torch = release(environment["torch"])
    capability = estimate.device.compute_capability or str(environment.get("compute_capability") or "")
    line = features(estimate.model, estimate.run, estimate.device, torch, each.card, capability)
    for tier in TIERS:
        residual = each.verification.tiers.get(tier)
        line += ["", ""] if residual is None else [str(residual.estimated), str(residual.measured)]
    return [*line, fingerprint(estimate.model, estimate.run)]


_GROUPS: tuple[tuple[str, Callable[[Grade], str]], ...] = (
    ("attention", lambda each: each.estimate.run.attention),
    ("precision", lambda each: each.estimate.run.precision),
    ("architecture", lambda each: each.estimate.model.architecture),
    ("device", lambda each: each.card),
)


def _summaries(grades: Sequence[Grade]) -> list[Summary]:
    """For each tier all records, then by phase (the driver is not asked in each), then by each of _GROUPS."""
    rows: dict[tuple[str, str, str], list[Residual]] = {}
    for tier in TIERS:
        for each in grades:
            if each.verification is not None and tier in each.verification.tiers:
                rows.setdefault((tier, "", "all"), []).append(each.verification.tiers[tier])
        for each in grades:
            for phase in each.verification.phases if each.verification is not None else ():
                peak = {"allocated": phase.peak, "reserved": phase.reserved}.get(tier)
                if peak is not None:
                    rows.setdefault((tier, "phase", phase.name), []).append(peak)
        for group, value_of in _GROUPS:
            for each in sorted(grades, key=value_of):
                if each.verification is not None and tier in each.verification.tiers:
                    rows.setdefault((tier, group, value_of(each)), []).append(each.verification.tiers[tier])
    return [_summary(*key, residuals) for key, residuals in rows.items()]


def _summary(tier: str, group: str, value: str, residuals: Sequence[Residual]) -> Summary:
    errors = [residual.error for residual in residuals]
    return Summary(
        tier=tier,
        group=group,
        value=value,
        count=len(errors),
        exact=sum(residual.difference == 0 for residual in residuals),
        mean=sum(errors) / len(errors),
        worst=max(errors, key=abs),
    )


def _misses(grades: Iterable[Grade]) -> list[Miss]:
    """The tiers that are not exact; on the CPU, where all is to be exact, every other figure as well."""
    misses = []
    for each in grades:
        if each.verification is None:
            continue
        figures = {f"{tier} tier": residual for tier, residual in each.verification.tiers.items()}
        if each.estimate.device.backend == "cpu":
            for phase in each.verification.phases:
                figures |= phase.figures
        misses += [Miss(each.file, name, residual) for name, residual in figures.items() if residual.difference]
    return sorted(misses, key=lambda miss: -abs(miss.residual.error))


def _coverage(lines: Sequence[tuple[Grade, Line]]) -> list[Coverage]:
    """Each record against the interval of its request by all the others."""
    by_backend: dict[str, list[Line]] = {}
    for each, line in lines:
        by_backend.setdefault(each.estimate.device.backend, []).append(line)
    inside = dict.fromkeys(TIERS, 0)
    count = dict.fromkeys(TIERS, 0)
    for each, _ in lines:
        assert each.verification is not None
        interval = held_out_interval(each.estimate, each.record, by_backend[each.estimate.device.backend])
        bounds = (interval.allocated_bytes, interval.reserved_bytes, interval.device_bytes)
        for tier, bound in zip(TIERS, bounds, strict=True):
            if tier in each.verification.tiers and bound is not None:
                count[tier] += 1
                inside[tier] += bound[0] <= each.verification.tiers[tier].measured <= bound[1]
    return [Coverage(tier, inside[tier], count[tier]) for tier in TIERS if count[tier]]
