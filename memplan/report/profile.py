"""A profile as text and as Markdown: every phase predicted, measured and timed, one run after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from memplan.config.inference import InferenceRun
from memplan.report.check.markdown import escaped
from memplan.report.layout import Page, Row
from memplan.report.verification import environment_in_words, percent
from memplan.report.words import exact, model_in_words, run_in_words, spaced
from memplan.traced import TraceEstimate
from memplan.units import human

if TYPE_CHECKING:
    from memplan.profiled import Curve, PhaseTime, Profile, Side, Times
    from memplan.verify import PhaseVerification

HEADER = ("phase", "predicted", "real run", "residual", "seconds", "GFLOP/s")


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of one run: a table by phase, and sentences."""

    name: str
    headline: tuple[str, str]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[tuple[str, str], ...]  # label, text
    holds: bool


def render_profile(profile: Profile, *, width: int = 80, colour: bool = False) -> str:
    """Plain text for a terminal."""
    page = Page(width, colour)
    before: tuple[str, str] | None = None
    for number, words in enumerate(map(in_words, profile.sides)):
        if number:
            page.skip()
        if words.headline != before:
            page.paragraph("", words.headline[0], "bold")
        page.paragraph("", words.headline[1])
        page.skip()
        before = words.headline
        page.table(HEADER, [Row(row) for row in words.rows[:-1]] + [Row(words.rows[-1], "bold", rule=True)])
        page.skip()
        for label, text in words.sentences:
            style = "bold green" if label == "memory" and words.holds else "bold red" if label == "memory" else ""
            page.paragraph(f"{label}: ".ljust(10), text, style)
    if profile.curves:
        page.title(f"The peak over {spaced(profile.curves[0].length_name)}")
        page.table(_over_length(profile.curves), [Row(row) for row in _points(profile.curves)])
    return page.text()


def profile_to_markdown(profile: Profile, *, title: str) -> str:
    """A document for a pull request or a wiki."""
    lines = [f"# {title}"]
    for words in map(in_words, profile.sides):
        lines += ["", f"## {words.name}", "", *(escaped(line) for line in words.headline)]
        lines += ["", *_markdown_table(HEADER, words.rows), ""]
        lines += [f"- **{label}:** {escaped(text)}" for label, text in words.sentences]
    if profile.curves:
        lines += ["", f"## The peak over {spaced(profile.curves[0].length_name)}", ""]
        lines += _markdown_table(_over_length(profile.curves), list(_points(profile.curves)))
    return "\n".join(lines) + "\n"


def in_words(side: Side) -> Words:
    """One run."""
    seen = {phase.name: phase for phase in side.verification.phases} if side.verification is not None else {}
    times = {phase.name: phase for phase in side.times.phases} if side.times is not None else {}
    rows = []
    for phase in side.estimate.phases:
        measured = seen.get(phase.name)
        rows.append(_row(phase.name, phase.peak_allocated_bytes, measured, times.get(phase.name)))
    whole = "run" if isinstance(side.estimate.run, InferenceRun) else "step"
    highest = side.estimate.peak
    peak = _peak(side)
    rows.append(
        (
            f"the {whole}",
            human(highest.peak_allocated_bytes),
            "-" if peak is None else human(peak),
            "-" if peak is None else f"{highest.peak_allocated_bytes - peak:,}",
            "-" if side.times is None else f"{side.times.seconds:.3f}",
            _rate(side.times.flops, side.times.seconds) if side.times is not None else "-",
        )
    )
    return Words(side.name, _headline(side), tuple(rows), tuple(_sentences(side)), _holds(side))


def _headline(side: Side) -> tuple[str, str]:
    found = side.estimate
    if isinstance(found, TraceEstimate):
        module = found.module
        given = [f"{name}={value}" for name, value in module.inputs.items()]
        words = ", ".join([*given, found.run.precision, found.run.optimizer])
        return (
            f"{module.name}: {module.class_name}, {module.parameter_count:,} parameters",
            f"{words}, on {found.device.name}",
        )
    return (
        model_in_words(found.model, found.totals.parameter_count),
        run_in_words(found.model, found.run, found.device),
    )


def _row(
    name: str, predicted: int, measured: PhaseVerification | None, time: PhaseTime | None
) -> tuple[str, str, str, str, str, str]:
    return (
        spaced(name),
        human(predicted),
        "-" if measured is None else human(measured.peak.measured),
        "-" if measured is None else f"{measured.peak.difference:,}",
        "-" if time is None else f"{time.median:.3f}",
        "-" if time is None else _rate(time.flops, time.median),
    )


def _rate(flops: int | None, seconds: float) -> str:
    return f"{flops / seconds / 1e9:,.1f}" if flops and seconds else "-"


def _peak(side: Side) -> int | None:
    """The highest peak of the real run, in whichever phase it has it."""
    if side.verification is None:
        return None
    return max(phase.peak.measured for phase in side.verification.phases)


def _holds(side: Side) -> bool:
    return not side.failure and (side.verification is None or side.verification.holds)


def _sentences(side: Side) -> Iterator[tuple[str, str]]:
    found, peak, measured = side.estimate, side.estimate.peak, _peak(side)
    where = peak.peak_operation if not peak.peak_module else f"{peak.peak_module} ({peak.peak_operation})"
    size = exact(peak.peak_allocated_bytes)
    text = f"the peak is {size} in {spaced(peak.name)}, at {where}"
    if measured is not None:
        difference = peak.peak_allocated_bytes - measured
        text += "; the real run's is the same, to the byte" if not difference else f"; the real run's {exact(measured)}"
        text += f", {percent(difference / max(measured, 1))} off" if difference else ""
    yield "memory", text
    tiers = found.tiers
    if tiers.reserved_bytes is not None and tiers.device_bytes is not None:
        yield "tiers", f"reserved {human(tiers.reserved_bytes)}, seen by the driver {human(tiers.device_bytes)}"
    if not isinstance(found, TraceEstimate) and found.fit is not None:
        yield "fit", f"{spaced(found.fit.verdict)} {found.fit.device}: {found.fit.reason}"
    if side.failure:
        yield "not run", side.failure
    if side.times is not None:
        yield from _time(side, side.times)
    if side.environment:
        yield "real run", environment_in_words(side.environment)


def _time(side: Side, times: Times) -> Iterator[tuple[str, str]]:
    text = f"{times.tokens_per_second:,.1f} tokens a second, " if times.tokens else ""
    text += f"{times.seconds:.3f} s"
    if times.flops is not None:
        unit, size = ("GFLOP", 1e9) if times.flops >= 1e9 else ("MFLOP", 1e6)
        text += f", {times.flops / size:,.1f} {unit}"
    share = times.share_of_peak
    if share is not None:
        text += f", {share * 100:.1f} % of what the card can do"
    yield "speed", f"{text} ({times.conditions})"
    yield from _checking(side, times)


def _checking(side: Side, times: Times) -> Iterator[tuple[str, str]]:
    """Why to check an answer is cheaper than to write it."""
    run = side.estimate.run
    decode = next((phase.median for phase in times.phases if phase.name == "decode"), None)
    if not times.checked_seconds or decode is None or not isinstance(run, InferenceRun):
        return
    written, checked = times.seconds, median(times.checked_seconds)
    each = decode / max(run.new_tokens - 1, 1)
    yield (
        "writing",
        f"{run.new_tokens:,} tokens one by one take {each * 1e3:,.1f} ms each: every weight is read for each of them. "
        f"To read prompt and answer at once, as whoever checks it does, takes {checked:.3f} s; to write it took "
        f"{written:.3f} s, {written / checked:.1f} times as long",
    )


def _over_length(curves: Sequence[Curve]) -> list[str]:
    return ["tokens", *(word for curve in curves for word in (curve.attention, "real run", "residual"))]


def _points(curves: Sequence[Curve]) -> Iterator[list[str]]:
    """A row for each length: what is predicted, what was measured, and the bytes between them."""
    by_length = [{point.length: point for point in curve.points} for curve in curves]
    for length in sorted({length for points in by_length for length in points}):
        cells = [f"{length:,}"]
        for points in by_length:
            point = points.get(length)
            seen = None if point is None else point.measured
            cells.append("-" if point is None else human(point.estimated))
            cells += ["-", "-"] if point is None or seen is None else [human(seen), f"{point.estimated - seen:,}"]
        yield cells


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", "| --- |" + " ---: |" * (len(header) - 1)]
    return lines + [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows]
