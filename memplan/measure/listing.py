"""Suites and what came of them, as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from memplan import __version__
from memplan.config.device import Device
from memplan.measure.prediction import Rules
from memplan.measure.recording import Planned, Result, repeated
from memplan.measure.suites.case import batch_in_words
from memplan.profiles import OUTCOMES, fields
from memplan.report.layout import Page, Row
from memplan.report.words import spaced
from memplan.units import human

SCHEMA_VERSION = 1


def render_plan(
    planned: Sequence[Planned], device: Device, rules: Rules, *, width: int = 80, colour: bool = False
) -> str:
    """Every configuration with its prediction: what a dry run shows."""
    page = Page(width, colour)
    header = ["configuration", "attention", "precision", "batch x tokens", "allocated", "reserved", "device", "runs",
              "seconds"]  # fmt: skip
    rows = []
    for each in planned:
        model, run = each.task.case
        rows.append(
            Row(
                [
                    model.name,
                    run.attention,
                    run.precision,
                    batch_in_words(run),
                    *map(_size, each.prediction),
                    "yes" if each.expected == "ran" else "no",
                    f"{each.seconds:.1f}",
                ]
            )
        )
    page.table(header, rows)
    page.skip()
    needed = [each.prediction.needed_bytes for each in planned]
    minutes = sum(each.seconds for each in planned) / 60
    page.paragraph(
        "in all:    ",
        f"{_count(len(planned))} on {device.name}, from {human(min(needed))} to {human(max(needed))} at the peak, in "
        f"about {minutes:.1f} minutes on an H100",
    )
    page.paragraph(
        "predicted: ", f"by memplan's rules of PyTorch {spell(rules)}; nothing was run. `-` is a tier that is "
        "not known"
    )  # fmt: skip
    return page.text()


def plan_to_json(planned: Sequence[Planned], device: Device, rules: Rules) -> str:
    """The same with integer bytes."""
    document = {
        **_head(device),
        "torch": spell(rules),
        "configurations": [_planned(each) for each in planned],
    }
    return json.dumps(document, indent=2) + "\n"


def render_results(results: Sequence[Result], device: Device, *, width: int = 80, colour: bool = False) -> str:
    """What came of each configuration, then the sum."""
    page = Page(width, colour)
    rows = []
    for result in results:
        model, run = result.planned.task.case
        tiers = _measured(result)
        state = spaced(result.outcome) + (", before" if result.skipped else "")
        cells = [
            model.name,
            run.attention,
            run.precision,
            batch_in_words(run),
            *(_size(tiers.get(f"{tier}_bytes")) for tier in ("allocated", "reserved", "device")),
            state,
        ]
        rows.append(Row(cells, "" if result.as_expected else "bold red"))
    header = ["configuration", "attention", "precision", "batch x tokens", "allocated", "reserved", "device", "outcome"]
    page.table(header, rows)
    page.skip()
    for result in results:
        if result.message:
            page.paragraph(f"{spaced(result.outcome)}: ", f"{result.planned.title}: {result.message}", "bold red")
        elif not result.as_expected:
            what = "fits" if result.planned.expected == "ran" else "does not fit"
            page.paragraph(
                "unexpected: ",
                f"{result.planned.title} {spaced(result.outcome)}, but by the prediction it {what}",
                "bold red",
            )
    pairs = repeated(results)
    if pairs:
        same = sum(equal for _, equal in pairs)
        page.paragraph(
            "processes: ",
            f"the same bytes in a process of its own as behind others: {same} of {_count(len(pairs))}",
            "" if same == len(pairs) else "bold red",
        )
    page.paragraph("in all:    ", f"{_count(len(results))} on {device.name}: {_sums(results)}")
    return page.text()


def results_to_json(results: Sequence[Result], device: Device) -> str:
    """The same with integer bytes."""
    document = {
        **_head(device),
        "results": [
            {
                **_planned(result.planned),
                "outcome": result.outcome,
                "skipped": result.skipped,
                "file": f"{result.file.parent.name}/{result.file.name}",
                "message": result.message,
                "measured": _measured(result),
            }
            for result in results
        ],
        "fresh_processes": [{"name": title, "same_bytes": same} for title, same in repeated(results)],
        "totals": {**_outcomes(results), "skipped": sum(result.skipped for result in results)},
    }
    return json.dumps(document, indent=2) + "\n"


def one_line(number: int, of: int, result: Result) -> str:
    """`[12/330] gpt-like, flash, bf16, micro-batch 4: ran, 1.23 GiB allocated`, for a log."""
    size = _measured(result).get("allocated_bytes")
    amount = f", {human(size)} allocated" if isinstance(size, int) else ""
    note = ", recorded before" if result.skipped else ""
    why = f": {result.message}" if result.message else ""
    return f"[{number}/{of}] {result.planned.title}: {spaced(result.outcome)}{amount}{note}{why}"


def spell(rules: Rules) -> str:
    """The release, `2.13`."""
    return f"{rules.torch[0]}.{rules.torch[1]}"


def _measured(result: Result) -> dict[str, Any]:
    """The tiers of the record; on the CPU, which has but one, the highest phase."""
    record = result.record or {}
    if record.get("tiers"):
        return dict(record["tiers"])
    peaks = [phase["peak_allocated_bytes"] for phase in record.get("phases") or ()]
    return {"allocated_bytes": max(peaks)} if peaks else {}


def _planned(each: Planned) -> dict[str, Any]:
    model, run = each.task.case
    return {
        "name": each.title,
        "model": fields(model),
        "run": fields(run),
        "predicted": each.prediction._asdict(),
        "expected": each.expected,
        "seconds": round(each.seconds, 1),
        "process": "fresh" if each.task.fresh else "shared",
        "history": each.task.history,
    }


def _head(device: Device) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "memplan_version": __version__, "device": fields(device)}


def _outcomes(results: Sequence[Result]) -> dict[str, int]:
    counted = Counter(result.outcome for result in results)
    return {outcome: counted[outcome] for outcome in OUTCOMES}


def _sums(results: Sequence[Result]) -> str:
    parts = [f"{count} {spaced(outcome)}" for outcome, count in _outcomes(results).items() if count]
    before = sum(result.skipped for result in results)
    surprising = sum(not result.as_expected for result in results)
    if before:
        parts.append(f"{before} of them recorded before")
    if surprising:
        parts.append(f"{surprising} not as predicted")
    return ", ".join(parts) or "nothing was run"


def _count(number: int) -> str:
    return f"{number} configuration{'' if number == 1 else 's'}"


def _size(size: object) -> str:
    return human(size) if isinstance(size, int) else "-"
