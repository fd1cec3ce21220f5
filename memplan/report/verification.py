"""Estimates beside real runs, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.report.layout import Page, Row
from memplan.report.words import exact, model_in_words, run_in_words, spaced, whole
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
    page.paragraph("", run_in_words(estimate.model, estimate.run, estimate.device))
    page.skip()
    rows = []
    for phase in verification.phases:
        style = "bold" if phase is verification.peak else ""
        rows.append(row(f"{spaced(phase.name)}: peak", phase.peak, style))
        if phase.end is not None:
            rows.append(row(f"{spaced(phase.name)}: alive at its end", phase.end))
        if phase.reserved is not None:
            rows.append(row(f"{spaced(phase.name)}: reserved", phase.reserved))
    peak = verification.peak
    first = True
    for name, residual in peak.at_peak.items():
        if residual.estimated or residual.measured:
            rows.append(row(f"{spaced(name)} at the peak", residual, rule=first))
            first = False
    rows.append(row(f"peak of the {whole(estimate.run)}, in {spaced(peak.name)}", peak.peak, "bold", rule=True))
    rows += [row(f"{name} tier", residual) for name, residual in verification.tiers.items() if name != "allocated"]
    page.table(["bytes", "estimate", "real run", "residual"], rows)
    page.skip()
    page.paragraph("verdict:  ", _verdict(verification), _style(verification.holds))
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
                "" if verification.holds else "bold red",
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
        _style(not failures and all(verification.holds for verification in verifications)),
    )
    for verification in verifications:
        if not verification.right_kernel:
            page.paragraph("          ", f"{verification.estimate.model.name}: {_verdict(verification)}", "bold red")
    if verifications:
        page.paragraph("real run: ", _environment(verifications[0].record, kernels=False))
    return page.text()


def verifications_to_json(verifications: Sequence[Verification], failures: Sequence[tuple[str, str]]) -> str:
    """The document of version 1: integer bytes, every figure as estimated, measured and residual."""
    verdict = "differs"
    if not failures and all(verification.holds for verification in verifications):
        verdict = "exact" if all(verification.exact for verification in verifications) else "within_tolerance"
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "verdict": verdict,
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
        "tiers": {name: figure_to_dict(residual) for name, residual in verification.tiers.items()},
        "phases": [
            {
                "name": phase.name,
                "peak": figure_to_dict(phase.peak),
                "end": None if phase.end is None else figure_to_dict(phase.end),
                "reserved": None if phase.reserved is None else figure_to_dict(phase.reserved),
                "at_peak": {name: figure_to_dict(residual) for name, residual in phase.at_peak.items()},
                "at_end": {name: figure_to_dict(residual) for name, residual in phase.at_end.items()},
            }
            for phase in verification.phases
        ],
    }


def percent(error: float) -> str:
    """A signed error as a share: `+0.150 %`; `0` only where it is 0, so a small one has as many digits as it takes."""
    if not error:
        return "0"
    return f"{error * 100:+.3f} %" if abs(error) >= 0.0001 else f"{error * 100:+.1e} %"


def figure_to_dict(residual: Residual) -> dict[str, int]:
    """One figure: both sides and their difference."""
    return {
        "estimated_bytes": residual.estimated,
        "measured_bytes": residual.measured,
        "residual_bytes": residual.difference,
    }


def row(name: str, residual: Residual, style: str = "", rule: bool = False) -> Row:
    """A figure in a table: estimate, real run and residual, in red where they differ."""
    difference = f"{residual.difference:+,}" if residual.difference else "0"
    style = style if not residual.difference else "bold red"
    return Row([name, f"{residual.estimated:,}", f"{residual.measured:,}", difference], style, rule)


def _verdict(verification: Verification) -> str:
    record = verification.record
    if not verification.right_kernel:
        ran = ", ".join(record["sdpa_kernels"]) or "none"
        wanted = ", ".join(verification.expected_kernels) or "none"
        return f"differs: PyTorch ran the attention kernel {ran}, not {wanted}"
    if verification.exact:
        peak = verification.peak.peak.estimated
        return f"exact: 0 bytes of difference in every phase and component; the peak is {human(peak)} on both sides"
    if verification.holds:
        errors = ", ".join(f"{name} {percent(residual.error)}" for name, residual in verification.tiers.items())
        return f"within the tolerances: {errors}"
    return f"differs: the worst residual of a phase or component is {exact(verification.worst)}"


def _environment(record: Record, kernels: bool = True) -> str:
    kinds = record["sdpa_kernels"] if kernels else []
    return environment_in_words(record["environment"], kinds)


def environment_in_words(environment: Mapping[str, Any], kernels: Sequence[str] = ()) -> str:
    """What the bytes of a real run depend on, and the attention kernels that ran."""
    names = {
        "torch": "PyTorch {}",
        "transformers": "transformers {}",
        "python": "Python {}",
        "system": "{}",
        "threads": "{} threads",
    }
    names |= {"cpu_capability": "{}", "card": "{}", "driver": "driver {}", "cuda_runtime": "CUDA {}"}
    names |= {"allocator_settings": "allocator settings {}"}
    parts = [text.format(environment[name]) for name, text in names.items() if environment.get(name)]
    if "onednn" in environment:
        parts.append("oneDNN on" if environment["onednn"] else "oneDNN off")
    if kernels:
        parts.append(f"attention kernel: {', '.join(kernels)}")
    return ", ".join(parts)


def _style(good: bool) -> str:
    return "bold green" if good else "bold red"
