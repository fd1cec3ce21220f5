"""The head of the page: the job in a line, and what came out of it, in a sentence for each side."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.profiled import Profile, Side
from memplan.report.page.bars import share
from memplan.report.page.frame import maker
from memplan.report.page.markup import Markup, exact, size, tag, together
from memplan.report.page.series import Stack, phase_of_cell
from memplan.report.verification import percent
from memplan.report.words import model_in_words, run_in_words, spaced
from memplan.traced import TraceEstimate, TraceVerification
from memplan.units import human
from memplan.verify import Residual


def head(profile: Profile, stacks: Sequence[Stack], title: str) -> Markup:
    """The heading, the job, a card for each side, and the sides against each other."""
    model, runs = job_in_words(profile)
    cards = [_card(side, stack) for side, stack in zip(profile.sides, stacks, strict=True)]
    lines = [tag("p", model, class_="job"), *(tag("p", run, class_="job run") for run in runs)]
    against = ""
    if len(profile.sides) > 1 and one_model(profile):
        against = tag("p", *_against(profile.sides), class_="against")
    return together((tag("h1", title), together(lines), tag("div", together(cards), class_="cards"), against))


def job_in_words(profile: Profile) -> tuple[str, list[str]]:
    """The model, and its runs without what tells the sides apart twice."""
    estimate = profile.sides[0].estimate
    if isinstance(estimate, TraceEstimate):
        module, run = estimate.module, estimate.run
        given = [f"{name}={value}" for name, value in module.inputs.items()]
        said = ", ".join([*given, run.precision, f"{run.optimizer} ({run.optimizer_implementation})"])
        model = f"{module.name}: {module.class_name}, {module.parameter_count:,} parameters"
        return model, [f"{said}, on {estimate.device.name}"]
    runs = []
    same = one_model(profile)
    for side in profile.sides:
        found = side.estimate
        assert not isinstance(found, TraceEstimate)
        text = run_in_words(found.model, found.run, found.device)
        if not same:
            text = f"{model_in_words(found.model, found.totals.parameter_count)}; {text}"
        runs.append(f"{side.name}: {text}" if len(profile.sides) > 1 else text)
    if not same:
        return f"{len(profile.sides)} runs of several models", runs
    return model_in_words(estimate.model, estimate.totals.parameter_count), runs


def one_model(profile: Profile) -> bool:
    """Whether all sides are runs of one model."""
    subjects = [getattr(side.estimate, "model", None) for side in profile.sides]
    return all(subject == subjects[0] for subject in subjects)


def peak_residual(side: Side) -> Residual | None:
    """The peak of the run on both sides; None where it was not measured."""
    if side.verification is None:
        return None
    if isinstance(side.verification, TraceVerification):
        return side.verification.peak
    return side.verification.tiers.get("allocated", side.verification.peak.peak)


def _card(side: Side, stack: Stack) -> Markup:
    peak = side.estimate.peak
    residual = peak_residual(side)
    figures = [_figure("predicted peak", size(peak.peak_allocated_bytes), exact(peak.peak_allocated_bytes))]
    if residual is None:
        figures.append(_figure("measured peak", "-", side.failure or "predicted only"))
    else:
        figures.append(_figure("measured peak", size(residual.measured), exact(residual.measured)))
        off = residual.difference
        figures.append(
            _figure("residual", f"{off:+,} bytes" if off else "0 bytes", percent(residual.error) if off else "0 %")
        )
    return tag(
        "article",
        tag("h2", side.name),
        tag("div", together(figures), class_="headline"),
        tag("p", *_verdict(side, stack), class_="sentence"),
        _fit(side),
        class_="card",
    )


def _figure(name: str, value: str, below: str) -> Markup:
    detail = together((below, " bytes")) if isinstance(below, Markup) else below
    return tag(
        "div", tag("span", name, class_="what"), tag("span", value, class_="big"), tag("span", detail, class_="note")
    )


def _verdict(side: Side, stack: Stack) -> list[str]:
    """The sentence that says it all."""
    peak = side.estimate.peak
    where = f", in {spaced(peak.name)}, at {peak_maker(side, stack)}."
    residual = peak_residual(side)
    predicted = together(("Predicted ", tag("strong", human(peak.peak_allocated_bytes))))
    if residual is None:
        why = f" Not measured: {side.failure}." if side.failure else " Not measured."
        return [predicted, where, why]
    if not residual.difference:
        equal = tag("strong", "equal to the byte")
        return [tag("strong", human(residual.measured)), " predicted and measured, ", equal, where]
    apart = abs(residual.difference)
    off = f", {human(apart)} apart ({apart:,} bytes, {percent(residual.error)})"
    return [predicted, ", measured ", tag("strong", human(residual.measured)), off, where]


def peak_maker(side: Side, stack: Stack) -> str:
    """The tensor whose birth makes the peak. The timeline knows which of several layers it is; where the allocator's
    blocks have their peak in another phase, the estimate's word counts."""
    peak, cell = side.estimate.peak, stack.peak
    if phase_of_cell(side, cell) == peak.name:
        return maker(side, cell)
    return f"{peak.peak_module or 'the model itself'} ({peak.peak_operation})"


def _fit(side: Side) -> Markup:
    estimate = side.estimate
    if isinstance(estimate, TraceEstimate) or estimate.fit is None or estimate.tiers.device_bytes is None:
        return Markup("")
    fit, bounds = estimate.fit, estimate.interval.device_bytes
    kinds = {"fits": "good", "tight": "warn", "does_not_fit": "bad"}
    low_high = f", between {human(bounds[0])} and {human(bounds[1])}" if bounds is not None else ""
    text = (
        f"On {estimate.device.description or fit.device} it needs {human(estimate.tiers.device_bytes)} of "
        f"{human(fit.capacity_bytes)}{low_high}: {fit.reason}."
    )
    return tag("p", tag("strong", spaced(fit.verdict), class_=f"badge {kinds[fit.verdict]}"), " ", text, class_="fit")


def _against(sides: Sequence[Side]) -> list[str]:
    """The least against each of the others."""
    least = min(sides, key=lambda side: side.estimate.peak.peak_allocated_bytes)
    low = least.estimate.peak.peak_allocated_bytes
    parts = []
    for side in sides:
        high = side.estimate.peak.peak_allocated_bytes
        if side is least:
            continue
        if high == low:
            parts.append(f"{least.name} and {side.name} have the same peak. ")
        else:
            parts.append(
                f"{least.name} needs {human(high - low)} less than {side.name} at the peak "
                f"({share(high - low, high)}). "
            )
    return parts
