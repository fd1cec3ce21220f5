"""An estimate as text for a terminal, a pipe or a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from memplan.config.run import TrainingRun
from memplan.report.layout import Page, Row
from memplan.report.words import copies_in_words, exact, model_in_words, run_in_words, sequences_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.estimate import Estimate, LedgerLine
    from memplan.traced import TraceEstimate

_VERDICT_STYLES = {"fits": "bold green", "tight": "bold yellow", "does_not_fit": "bold red"}


def render_estimate(
    estimate: Estimate,
    *,
    width: int = 80,
    colour: bool = False,
    top: int = 5,
    ledger: Sequence[LedgerLine] | None = None,
) -> str:
    """The report of one estimate: components by phase, the peak, totals, the `top` biggest tensors, fit, assumptions.

    With `ledger`, every line of it follows.
    """
    page = Page(width, colour)
    page.paragraph("", model_in_words(estimate.model, estimate.totals.parameter_count), "bold")
    page.paragraph("", run_in_words(estimate.model, estimate.run, estimate.device))
    page.skip()
    components_by_phase(page, estimate)
    page.skip()
    show_peak(page, estimate)
    page.skip()
    show_totals(page, estimate)
    if estimate.largest:
        page.title("The biggest tensors alive at the peak")
        show_lines(page, estimate.largest[:top])
    if estimate.fit is not None:
        page.skip()
        _fit(page, estimate)
    if estimate.assumptions:
        page.title("Assumptions")
        for assumption in estimate.assumptions:
            page.paragraph("- ", assumption)
    if ledger is not None:
        page.title("Every line of the ledger, in order of birth")
        show_lines(page, ledger, lifetimes=True)
    return page.text()


def components_by_phase(page: Page, estimate: Estimate | TraceEstimate) -> None:
    """The table of components, each phase at its peak."""
    phases = estimate.phases
    highest = phases.index(estimate.peak)
    header = ["component", *(spaced(phase.name) for phase in phases)]
    header[1 + highest] += "\n* peak"
    rows = []
    for component in estimate.at_peak:
        sizes = [phase.at_peak[component] for phase in phases]
        if any(sizes):
            rows.append(Row([spaced(component), *(human(size) if size else "-" for size in sizes)]))
    peaks = [human(phase.peak_allocated_bytes) for phase in phases]
    ends = [human(phase.end_allocated_bytes) for phase in phases]
    rows.append(Row(["peak of the phase", *peaks], style="bold", rule=True))
    rows.append(Row(["alive at its end", *ends], style="dim"))
    page.table(header, rows, highlight=1 + highest)


def show_peak(page: Page, estimate: Estimate | TraceEstimate) -> None:
    """The peak, where it is, and how sure that is."""
    peak = estimate.peak
    page.paragraph("peak:     ", f"{exact(peak.peak_allocated_bytes)} in {spaced(peak.name)}")
    page.paragraph("          ", f"at {peak.peak_module or 'the model itself'} ({peak.peak_operation})")
    interval = estimate.interval
    if estimate.tiers.reserved_bytes is None:
        page.paragraph("interval: ", f"{_bounds(interval.allocated_bytes, exact)}; {interval.basis}")
        return
    page.skip()
    rows = []
    for name in ("allocated", "reserved", "device"):
        size: int = getattr(estimate.tiers, f"{name}_bytes")
        bounds = _bounds(getattr(interval, f"{name}_bytes"), human)
        rows.append(Row([name, human(size), f"{size:,}", bounds], style="bold" if name == "device" else ""))
    page.table(["tier", "peak", "bytes", "interval"], rows)
    page.paragraph("interval: ", interval.basis)


def _bounds(interval: tuple[int, int] | None, shown: Callable[[int], str]) -> str:
    if interval is None:
        return "not known"
    low, high = interval
    return "exact" if low == high else f"{shown(low)} to {shown(high)}"


def show_totals(page: Page, estimate: Estimate | TraceEstimate) -> None:
    """What is held from step to step, and the saved activations; or from token to token."""
    totals = estimate.totals

    def row(name: str, size: int, style: str = "", rule: bool = False) -> Row:
        share = f"{size / totals.parameter_count:.2f}" if totals.parameter_count else "-"
        return Row([name, human(size), f"{size:,}", share], style, rule)

    trains = isinstance(estimate.run, TrainingRun)
    held = {"parameters": totals.parameters_bytes}
    if trains:
        held |= {"gradients": totals.gradients_bytes, "optimizer state": totals.optimizer_state_bytes}
    else:
        held["kv cache"] = totals.kv_cache_bytes
    saved = totals.saved_activations_bytes
    rows = [row(name, size) for name, size in held.items()]
    rows.append(row("sum", sum(held.values()), style="bold", rule=True))
    if trains:
        rows.append(Row(["saved activations", human(saved), f"{saved:,}", "-"]))
    page.table(["totals", "size", "bytes", "bytes a parameter"], rows)


def show_lines(page: Page, lines: Sequence[LedgerLine], lifetimes: bool = False) -> None:
    """Ledger lines: sizes on the left; on the right, one below the other: where, how the size comes about, and why."""
    sizes = [(human(line.size * line.copies), copies_in_words(line)) for line in lines]
    widest = max((len(total) for total, _ in sizes), default=0)
    longest = max((len(copies) for _, copies in sizes), default=0)
    for line, (total, copies) in zip(lines, sizes, strict=True):
        label = f"{total.rjust(widest)}  {copies.rjust(longest)}{'  ' if longest else ''}"
        blank = " " * len(label)
        lifetime = f", {spaced(line.born)} to {spaced(line.died) or 'the next step'}" if lifetimes else ""
        page.paragraph(label, f"{line.module or 'the model itself'} ({line.operation})", "bold", label_style="")
        page.paragraph(f"{blank}= ", line.formula, "cyan", label_style="")
        page.paragraph(blank, f"{spaced(line.component)}{lifetime}: {line.reason}", "dim")


def _fit(page: Page, estimate: Estimate) -> None:
    fit = estimate.fit
    assert fit is not None
    page.paragraph("device:   ", f"{estimate.device.description or fit.device} ({fit.device})")
    page.paragraph("capacity: ", exact(fit.capacity_bytes))
    page.paragraph("headroom: ", exact(fit.headroom_bytes))
    page.paragraph("verdict:  ", f"{spaced(fit.verdict)}: {fit.reason}", _VERDICT_STYLES[fit.verdict])
    if estimate.largest_batch is not None:
        page.paragraph("at once:  ", sequences_in_words(estimate.largest_batch))
