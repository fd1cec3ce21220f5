"""Estimates beside real runs, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.report.layout import Page, Row
from memplan.report.words import exact, model_in_words, run_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.profiles import Record
    from memplan.verify import Residual, Verification

SCHEMA_VERSION = 1


def render_verification(verification: Verification, *, width: int = 80, colour: bool = False) -> str:
    """One configuration: every phase and component of the estimate, the real run and the residual beside each other."""
    page = Page(width, colour)
    estimate = verification.estimate
    page.paragraph("", model_in_words(estimate.model, estimate.totals.parameter_count), "bold")
    page.paragraph("", run_in_words(estimate.run, estimate.device))
    page.skip()
    rows = []
    for phase in verification.phases:
        style = "bold" if phase is verification.peak else ""
        rows.append(_row(f"{spaced(phase.name)}: peak", phase.peak, style))
        rows.append(_row(f"{spaced(phase.name)}: alive at its end", phase.end))
    peak = verification.peak
    first = True
    for name, residual in peak.at_peak.items():
        if residual.estimated or residual.measured:
            rows.append(_row(f"{spaced(name)} at the peak", residual, rule=first))
            first = False
    rows.append(_row(f"peak of the step, in {spaced(peak.name)}", peak.peak, "bold", rule=True))
    page.table(["bytes", "estimate", "real run", "residual"], rows)
    page.skip()
    page.paragraph("verdict:  ", _verdict(verification), _style(verification.exact))
    page.paragraph("real run: ", _environment(verification.record))
    return page.text()


def render_suite(
    verifications: Sequence[Verification],
    failures: Sequence[tuple[str, str]],
    *,
    width: int = 80,
    colour: bool = False,
) -> str:
    """A suite: a row for each configuration, then the sum. `failures` are (configuration, why it could not be run)."""
    page = Page(width, colour)
    rows = []
    for verification in verifications:
        run, peak = verification.estimate.run, verification.peak
        rows.append(
            Row(
                [
                    verification.estimate.model.name,
                    run.attention,
                    run.precision,
                    f"{peak.peak.estimated:,}",
                    f"{peak.peak.measured:,}",
                    f"{verification.worst:,}",
                ],
                "" if verification.exact else "bold red",
            )
        )
    header = ["configuration", "attention", "precision", "peak, estimate", "peak, real run", "worst residual"]
    page.table(header, rows)
    page.skip()
    for name, why in failures:
        page.paragraph("not run:  ", f"{name}: {why}", "bold red")
    same = sum(verification.exact for verification in verifications)
    of = len(verifications) + len(failures)
    figures = sum(len(phase.residuals) for verification in verifications for phase in verification.phases)
    worst = max((verification.worst for verification in verifications), default=0)
    page.paragraph(
        "verdict:  ",
        f"{same} of {of} configurations agree to the byte: {figures:,} figures (every phase's peak and end, "
        f"in all and by component), worst residual {exact(worst)}",
        _style(same == of),
    )
    for verification in verifications:
        if verification.worst == 0 and not verification.exact:
            page.paragraph("          ", f"{verification.estimate.model.name}: {_verdict(verification)}", "bold red")
    if verifications:
        page.paragraph("real run: ", _environment(verifications[0].record, kernels=False))
    return page.text()


def verifications_to_json(verifications: Sequence[Verification], failures: Sequence[tuple[str, str]]) -> str:
    """The document of version 1: integer bytes, every figure as estimated, measured and residual."""
    exact_everywhere = not failures and all(verification.exact for verification in verifications)
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "verdict": "exact" if exact_everywhere else "differs",
        "results": [_result(verification) for verification in verifications],
        "failures": [{"name": name, "error": why} for name, why in failures],
    }
    return json.dumps(document, indent=2) + "\n"


def _result(verification: Verification) -> dict[str, Any]:
    return {
        "request": verification.record["request"],
        "environment": verification.record["environment"],
        "sdpa_kernels": verification.record["sdpa_kernels"],
        "exact": verification.exact,
        "worst_residual_bytes": verification.worst,
        "phases": [
            {
                "name": phase.name,
                "peak": _figure(phase.peak),
                "end": _figure(phase.end),
                "at_peak": {name: _figure(residual) for name, residual in phase.at_peak.items()},
                "at_end": {name: _figure(residual) for name, residual in phase.at_end.items()},
            }
            for phase in verification.phases
        ],
    }


def _figure(residual: Residual) -> dict[str, int]:
    return {
        "estimated_bytes": residual.estimated,
        "measured_bytes": residual.measured,
        "residual_bytes": residual.difference,
    }


def _row(name: str, residual: Residual, style: str = "", rule: bool = False) -> Row:
    difference = f"{residual.difference:+,}" if residual.difference else "0"
    style = style if not residual.difference else "bold red"
    return Row([name, f"{residual.estimated:,}", f"{residual.measured:,}", difference], style, rule)


def _verdict(verification: Verification) -> str:
    record = verification.record
    if record["sdpa_kernels"] != verification.expected_kernels:
        ran = ", ".join(record["sdpa_kernels"]) or "none"
        wanted = ", ".join(verification.expected_kernels) or "none"
        return f"differs: PyTorch ran the attention kernel {ran}, not {wanted}"
    if verification.exact:
        peak = verification.peak.peak.estimated
        return f"exact: 0 bytes of difference in every phase and component; the peak is {human(peak)} on both sides"
    return f"differs: the worst residual of a phase or component is {exact(verification.worst)}"


def _environment(record: Record, kernels: bool = True) -> str:
    environment = record["environment"]
    parts = [
        f"PyTorch {environment['torch']}",
        f"Python {environment['python']}",
        environment["system"],
        f"{environment['threads']} threads",
        environment["cpu_capability"],
        "oneDNN on" if environment["onednn"] else "oneDNN off",
    ]
    if kernels and record["sdpa_kernels"]:
        parts.append(f"attention kernel: {', '.join(record['sdpa_kernels'])}")
    return ", ".join(parts)


def _style(good: bool) -> str:
    return "bold green" if good else "bold red"
