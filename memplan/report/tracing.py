"""A traced step as text and as JSON, with the real run beside it where there is one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.profiles import fields
from memplan.report.layout import Page
from memplan.report.machine import SCHEMA_VERSION, line_to_dict, phase_to_dict
from memplan.report.terminal import components_by_phase, show_lines, show_peak, show_totals
from memplan.report.verification import environment_in_words, figure_to_dict, percent, row
from memplan.report.words import exact, spaced

if TYPE_CHECKING:
    from memplan.estimate import LedgerLine
    from memplan.traced import TraceEstimate, TraceVerification

_RUN = ("precision", "optimizer", "optimizer_implementation", "momentum")
"""What of a TrainingRun says something of a traced step: its sizes are the factory's."""


def render_traced(
    estimate: TraceEstimate,
    *,
    width: int = 80,
    colour: bool = False,
    top: int = 5,
    ledger: Sequence[LedgerLine] | None = None,
    verification: TraceVerification | None = None,
) -> str:
    """The report of a traced step, as `memplan estimate` has it; with `verification` the real run beside it."""
    page = Page(width, colour)
    _heading(page, estimate)
    components_by_phase(page, estimate)
    page.skip()
    show_peak(page, estimate)
    page.skip()
    show_totals(page, estimate)
    if estimate.largest:
        page.title("The biggest tensors alive at the peak")
        show_lines(page, estimate.largest[:top])
    page.title("Assumptions")
    for assumption in estimate.assumptions:
        page.paragraph("- ", assumption)
    if verification is not None:
        page.title("Beside a real run")
        _beside(page, verification)
    if ledger is not None:
        page.title("Every line of the ledger, in order of birth")
        show_lines(page, ledger, lifetimes=True)
    return page.text()


def _heading(page: Page, estimate: TraceEstimate) -> None:
    module, run = estimate.module, estimate.run
    page.paragraph("", f"{module.name}: {module.class_name}, {module.parameter_count:,} parameters", "bold")
    given = [f"{name}={value}" for name, value in module.inputs.items()]
    momentum = f", momentum {run.momentum:g}" if run.momentum else ""
    how = f"{run.optimizer} ({run.optimizer_implementation}{momentum})"
    page.paragraph("", f"{', '.join([*given, run.precision, how])}, on {estimate.device.name}")
    page.skip()


def _beside(page: Page, verification: TraceVerification) -> None:
    rows = []
    for phase in verification.phases:
        rows.append(row(f"{spaced(phase.name)}: peak", phase.peak))
        if phase.end is not None:
            rows.append(row(f"{spaced(phase.name)}: alive at its end", phase.end))
    rows.append(row("peak of the step", verification.peak, "bold", rule=True))
    page.table(["bytes", "estimate", "real run", "residual"], rows)
    page.skip()
    peak = verification.peak
    if verification.exact:
        said = "exact: 0 bytes of difference in every phase and component"
    elif verification.holds:
        said = f"within 1 %: the peak differs by {exact(abs(peak.difference))} ({percent(peak.error)})"
    else:
        said = f"differs: the peak by {exact(abs(peak.difference))} ({percent(peak.error)})"
    page.paragraph("verdict:  ", said, "bold green" if verification.holds else "bold red")
    page.paragraph("real run: ", environment_in_words(verification.environment))


def traced_to_json(
    estimate: TraceEstimate,
    *,
    top: int = 5,
    ledger: Sequence[LedgerLine] | None = None,
    verification: TraceVerification | None = None,
) -> str:
    """The document of version 1: the keys of an estimate, with the module instead of the model."""
    run = {name: getattr(estimate.run, name) for name in _RUN}
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "request": {"module": fields(estimate.module), "run": run, "device": fields(estimate.device)},
        "peak": {
            "phase": estimate.peak.name,
            "allocated_bytes": estimate.peak.peak_allocated_bytes,
            "reserved_bytes": None,
            "device_bytes": None,
            "module": estimate.peak.peak_module,
            "operation": estimate.peak.peak_operation,
        },
        "interval": fields(estimate.interval),
        "at_peak": estimate.at_peak,
        "totals": fields(estimate.totals),
        "phases": [phase_to_dict(phase) for phase in estimate.phases],
        "largest": [line_to_dict(line) for line in estimate.largest[:top]],
        "fit": None,
        "outputs_only": list(estimate.outputs_only),
        "assumptions": list(estimate.assumptions),
    }
    if verification is not None:
        document["verification"] = _verification(verification)
    if ledger is not None:
        document["ledger"] = [line_to_dict(line) for line in ledger]
    return json.dumps(document, indent=2, default=str) + "\n"


def _verification(verification: TraceVerification) -> dict[str, Any]:
    verdict = "exact" if verification.exact else "within_tolerance" if verification.holds else "differs"
    return {
        "verdict": verdict,
        "environment": verification.environment,
        "peak": figure_to_dict(verification.peak),
        "phases": [
            {
                "name": phase.name,
                "peak": figure_to_dict(phase.peak),
                "end": None if phase.end is None else figure_to_dict(phase.end),
                "at_peak": {name: figure_to_dict(residual) for name, residual in phase.at_peak.items()},
                "at_end": {name: figure_to_dict(residual) for name, residual in phase.at_end.items()},
            }
            for phase in verification.phases
        ],
    }
