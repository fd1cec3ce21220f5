"""Prediction beside measurement, figure by figure. A difference of 0 is said, and any other stands out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from memplan.profiled import Profile, Side
from memplan.report.page.markup import Markup, exact, size, tag, together
from memplan.report.verification import percent
from memplan.report.words import spaced
from memplan.traced import TraceVerification
from memplan.verify import TIERS, PhaseVerification, Residual, Verification, estimated_tiers

WORST = 8
"""How many figures that differ are named above the tables."""


def residuals_section(profile: Profile) -> Markup:
    """Every side, one below the other."""
    columns = [tag("div", tag("h3", side.name), _side(side), class_="column") for side in profile.sides]
    return tag("div", together(columns), class_="columns roomy")


def figures_of(verification: Verification | TraceVerification) -> dict[str, Residual]:
    """Every figure by its name: tiers, phases, components."""
    figures = {}
    if isinstance(verification, Verification):
        figures = {f"{tier} tier": residual for tier, residual in verification.tiers.items()}
    for phase in verification.phases:
        figures |= {spaced(name): residual for name, residual in phase.figures.items()}
    return figures


def _side(side: Side) -> Markup:
    verification = side.verification
    if verification is None:
        why = f"Not measured: {side.failure}." if side.failure else "Not measured: this side is predicted only."
        return together((tag("p", why, class_="verdict none"), _tiers(side)))
    return together(
        (
            _summary(verification),
            _phases(verification.phases),
            _tiers(side),
            tag("details", tag("summary", "Every component of every phase"), _components(verification.phases)),
        )
    )


def _summary(verification: Verification | TraceVerification) -> Markup:
    figures = figures_of(verification)
    off = {name: residual for name, residual in figures.items() if residual.difference}
    kernel = ""
    if isinstance(verification, Verification) and not verification.right_kernel:
        ran = ", ".join(verification.record["sdpa_kernels"]) or "none"
        wanted = ", ".join(verification.expected_kernels) or "none"
        kernel = f" PyTorch ran the attention kernel {ran}, not {wanted}."
    if not off:
        text = f"0 bytes of difference: all {len(figures):,} figures agree to the byte.{kernel}"
        return tag("p", text, class_="verdict bad" if kernel else "verdict good")
    worst = sorted(off.items(), key=lambda item: -abs(item[1].difference))
    within = ", all within the tolerance" if verification.holds else ""
    text = f"{len(off):,} of {len(figures):,} figures differ{within}."
    listed = [
        tag("li", f"{name}: ", exact(residual.difference, sign=True), f" bytes ({percent(residual.error)})")
        for name, residual in worst[:WORST]
    ]
    if len(worst) > WORST:
        listed.append(tag("li", f"and {len(worst) - WORST:,} smaller ones, in the tables below"))
    kind = "verdict warn" if verification.holds else "verdict bad"
    return together((tag("p", text + kernel, class_=kind), tag("ul", together(listed), class_="worst")))


def _phases(phases: tuple[PhaseVerification, ...]) -> Markup:
    """A row for the peak of each phase, and one for its end."""
    rows = []
    for phase in phases:
        moments: list[tuple[str, Residual | None]] = [("peak", phase.peak), ("alive at its end", phase.end)]
        moments.append(("reserved", phase.reserved))
        known = [(name, residual) for name, residual in moments if residual is not None]
        for place, (name, residual) in enumerate(known):
            first = tag("th", spaced(phase.name), scope="rowgroup", rowspan=len(known)) if not place else ""
            rows.append(tag("tr", first, tag("th", name, scope="row"), _figure(residual)))
    head = ["phase", "bytes", "predicted", "measured", "residual", "share"]
    return _table("Predicted and measured bytes of every phase", head, rows)


def _figure(residual: Residual) -> Markup:
    kind = "differs" if residual.difference else "same"
    return together(
        (
            tag("td", exact(residual.estimated)),
            tag("td", exact(residual.measured)),
            tag("td", exact(residual.difference, sign=True), class_=kind),
            tag("td", percent(residual.error), class_=kind),
        )
    )


def _tiers(side: Side) -> Markup:
    """The three tiers of a card with their intervals; on the CPU there is one, and the phases say it all."""
    tiers = estimated_tiers(side.estimate)  # type: ignore[arg-type]
    bounds = {name: getattr(side.estimate.interval, f"{name}_bytes") for name in TIERS}
    if len(tiers) == 1:
        if side.verification is not None:
            return Markup("")
        return tag("p", f"Interval of the peak: {side.estimate.interval.basis}.", class_="note")
    measured: Mapping[str, Residual] = {}
    if isinstance(side.verification, Verification):
        measured = side.verification.tiers
    rows = []
    for name, estimated in tiers.items():
        cells = [tag("th", name, scope="row"), tag("td", size(estimated)), tag("td", *_bounds(bounds[name]))]
        residual = measured.get(name)
        if residual is None:
            cells.append(tag("td", "not measured", colspan=3, class_="muted"))
        else:
            kind = "differs" if residual.difference else "same"
            cells.append(tag("td", size(residual.measured)))
            cells.append(tag("td", exact(residual.difference, sign=True), class_=kind))
            cells.append(tag("td", percent(residual.error), class_=kind))
        rows.append(tag("tr", together(cells)))
    head = ["tier", "predicted", "interval", "measured", "residual", "share"]
    basis = tag("p", f"Interval: {side.estimate.interval.basis}.", class_="note")
    return together((_table("The peak in every tier", head, rows), basis))


def _bounds(bounds: tuple[int, int] | None) -> Iterator[str]:
    if bounds is None:
        yield "not known"
    elif bounds[0] == bounds[1]:
        yield "exact"
    else:
        yield size(bounds[0])
        yield " to "
        yield size(bounds[1])


def _components(phases: tuple[PhaseVerification, ...]) -> Markup:
    names: dict[str, None] = {}
    for phase in phases:
        for figures in (phase.at_peak, phase.at_end):
            names |= {name: None for name, figure in figures.items() if figure.estimated or figure.measured}
    if not names:
        return tag("p", "The record holds no components.", class_="note")
    rows = []
    for phase in phases:
        for moment, figures in (("peak", phase.at_peak), ("end", phase.at_end)):
            for name in names:
                residual = figures.get(name)
                if residual is not None and (residual.estimated or residual.measured):
                    where = f"{spaced(phase.name)}, at its {moment}"
                    rows.append(tag("tr", tag("td", where), tag("th", spaced(name), scope="row"), _figure(residual)))
    head = ["moment", "component", "predicted", "measured", "residual", "share"]
    return _table("Predicted and measured bytes by component", head, rows)


def _table(title: str, head: list[str], rows: list[Markup]) -> Markup:
    return tag(
        "div",
        tag(
            "table",
            tag("caption", title, class_="hidden"),
            tag("thead", tag("tr", together(tag("th", name, scope="col") for name in head))),
            tag("tbody", together(rows)),
            class_="figures",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=title,
    )
