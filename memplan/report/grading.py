"""The estimator graded on recorded runs, as text and as JSON."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.report.layout import Page, Row
from memplan.report.verification import figure_to_dict, percent
from memplan.report.words import exact, spaced

if TYPE_CHECKING:
    from memplan.graded import Grade
    from memplan.grading import Grading, Summary

SCHEMA_VERSION = 1


def render_grading(grading: Grading, *, width: int = 80, colour: bool = False, limit: int = 10) -> str:
    """A table of errors for each tier, the `limit` worst records, what had to hold, and the verdict."""
    page = Page(width, colour)
    page.paragraph("", _counts(grading), "bold")
    for tier, summaries in groupby(grading.summaries, key=lambda summary: summary.tier):
        page.skip()
        _errors(page, tier, list(summaries))
    if grading.misses:
        shown = grading.misses[:limit]
        page.title(f"The worst {len(shown):,} of {len(grading.misses):,} figures that are not exact")
        errors = [percent(miss.residual.error) for miss in shown]
        widest = max(map(len, errors))
        for miss, error in zip(shown, errors, strict=True):
            residual = miss.residual
            label = f"{error.rjust(widest)}  "
            sizes = f"{residual.estimated:,} estimated, {residual.measured:,} real, {residual.difference:+,} bytes"
            page.paragraph(label, f"{spaced(miss.figure)}: {sizes}")
            page.paragraph(" " * len(label), miss.file, "dim")
    others = [each for each in grading.grades if each.verification and not each.verification.right_kernel]
    if others:
        page.title("Another attention kernel ran than the one asked for")
        for each in others[:limit]:
            page.paragraph("- ", f"{each.file}: {', '.join(each.record['sdpa_kernels']) or 'none'}")
    if grading.unforeseen:
        page.title("Ran out of memory, and were predicted to fit")
        for each in grading.unforeseen[:limit]:
            capacity = each.estimate.device.available_bytes
            page.paragraph("- ", f"{each.file}: {exact(each.predicted)} estimated, {exact(capacity)} on {each.card}")
    page.skip()
    _checks(page, grading)
    page.skip()
    for covered in grading.coverage:
        share = f"{covered.inside:,} of {covered.count:,}"
        page.paragraph("interval: ", f"{share} measurements of the {covered.tier} tier lie inside, each held out")
    page.paragraph("verdict:  ", _verdict(grading), "bold green" if _good(grading) else "bold red")
    return page.text()


def grading_to_json(grading: Grading, *, limit: int = 10) -> str:
    """The document of version 1: integer bytes, errors in percent, files as they lie below the folder."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "verdict": "undecided" if grading.problems else "holds" if grading.holds else "differs",
        "checks": [
            {
                "says": check.says,
                "holding": check.holding,
                "count": check.count,
                "needed_percent": check.needed,
                "holds": check.holds,
            }
            for check in grading.checks
        ],
        "summary": [
            {
                "tier": summary.tier,
                "group": summary.group or None,
                "value": summary.value,
                "count": summary.count,
                "exact": summary.exact,
                "mean_error_percent": _rounded(summary.mean),
                "worst_error_percent": _rounded(summary.worst),
            }
            for summary in grading.summaries
        ],
        "intervals": [
            {"tier": covered.tier, "inside": covered.inside, "count": covered.count} for covered in grading.coverage
        ],
        "worst": [
            {
                "file": miss.file,
                "figure": miss.figure,
                **figure_to_dict(miss.residual),
                "error_percent": _rounded(miss.residual.error),
            }
            for miss in grading.misses[:limit]
        ],
        "ungraded": grading.ungraded,
        "problems": [{"file": file, "error": why} for file, why in grading.problems],
        "results": [_result(each) for each in grading.grades],
    }
    return json.dumps(document, indent=2) + "\n"


def _result(each: Grade) -> dict[str, Any]:
    verification = each.verification
    result: dict[str, Any] = {"file": each.file, "device": each.card, "outcome": each.outcome}
    if each.estimate.device.capacity_bytes:
        result["said_to_fit"] = each.said_to_fit
    if verification is None:
        return result
    return {
        **result,
        "exact": verification.exact,
        "tiers": {name: figure_to_dict(residual) for name, residual in verification.tiers.items()},
        "phases": [
            {
                "name": phase.name,
                "peak": figure_to_dict(phase.peak),
                "reserved": None if phase.reserved is None else figure_to_dict(phase.reserved),
            }
            for phase in verification.phases
        ],
    }


def _counts(grading: Grading) -> str:
    ran = sum(each.verification is not None for each in grading.grades)
    counts = [f"{ran:,} recorded {'run' if ran == 1 else 'runs'}"]
    if len(grading.grades) > ran:
        counts.append(f"{len(grading.grades) - ran:,} out of memory")
    if grading.ungraded:
        outcomes = ", ".join(f"{count:,} {spaced(outcome)}" for outcome, count in sorted(grading.ungraded.items()))
        counts.append(f"not graded: {outcomes}")
    if grading.problems:
        counts.append(f"not readable: {len(grading.problems):,}")
    return ", ".join(counts)


def _errors(page: Page, tier: str, summaries: list[Summary]) -> None:
    rows = []
    group = ""
    for summary in summaries:
        name = f"{summary.group} {spaced(summary.value)}".strip()
        exact_everywhere = summary.exact == summary.count
        rows.append(
            Row(
                [
                    name,
                    f"{summary.count:,}",
                    f"{summary.exact:,}",
                    "0" if exact_everywhere else percent(summary.mean),
                    "0" if exact_everywhere else percent(summary.worst),
                ],
                "bold" if not summary.group else "",
                rule=summary.group != group,
            )
        )
        group = summary.group
    page.table([f"{tier} bytes", "runs", "exact", "mean error", "worst error"], rows)


def _checks(page: Page, grading: Grading) -> None:
    rows = [
        Row(
            [check.says, f"{check.holding:,} of {check.count:,}", f"{check.needed} %", "yes" if check.holds else "NO"],
            "" if check.holds else "bold red",
        )
        for check in grading.checks
    ]
    page.table(["what has to hold", "holds for", "needed", "holds"], rows)


def _good(grading: Grading) -> bool:
    return grading.holds and not grading.problems


def _verdict(grading: Grading) -> str:
    if grading.problems:
        return f"undecided: {len(grading.problems):,} of the records could not be graded"
    failed = [check.says for check in grading.checks if not check.holds]
    return f"does not hold: {'; '.join(failed)}" if failed else "within the tolerances"


def _rounded(error: float) -> float:
    """In percent, to a millionth: the same text on every machine."""
    return round(error * 100, 6)
