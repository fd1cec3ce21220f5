"""What all formats say of a check in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memplan.report.words import exact, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.check.judge import Judged
    from memplan.check.remedy import Remedy

RULES = {
    "does-not-fit": "The job needs more than its card can give",
    "over-budget": "The job needs more than its budget",
    "low-headroom": "The job leaves less free than asked for",
    "grew": "The job needs more than its baseline allows",
    "undecided": "The check could not be decided",
}
"""Every rule, in one sentence."""

BIGGEST = 3
"""Tensors that a message names."""


def summary(judged: Sequence[Judged]) -> str:
    """`1 failed, 2 passed of 3 checks`."""
    counts = {
        "could not be decided": "undecided", "failed": "failed", "warned": "warned", "passed": "passed", "off": "off",
    }  # fmt: skip
    parts = []
    for words, outcome in counts.items():
        number = sum(each.outcome == outcome for each in judged)
        if number:
            parts.append(f"{number} {words}")
    return f"{', '.join(parts)} of {len(judged)} {'check' if len(judged) == 1 else 'checks'}"


def headline(each: Judged) -> str:
    """One line: what is wrong, or that nothing is."""
    if each.outcome == "off":
        return "switched off"
    if each.outcome == "undecided":
        return each.error
    if each.findings:
        first = each.findings[0]
        short = f"{human(first.excess)} too much" if first.rule != "low-headroom" else f"{human(first.excess)} short"
        return f"{first.text}: {human(first.found)} of {human(first.allowed)}, {short}"
    if each.limit:
        return f"{human(each.upper)} of {human(each.limit)}, {human(each.margin)} left"
    return f"{human(each.upper)}, no budget set"


def sizes(each: Judged) -> list[tuple[str, str]]:
    """Capacity, reserve, limit, need and margin, each on a line of its own."""
    lines = []
    if each.capacity:
        lines.append(("capacity", exact(each.capacity)))
    if each.reserve:
        lines.append(("reserve", exact(each.reserve)))
    if each.limit and each.limit != each.capacity:
        lines.append(("budget", exact(each.limit)))
    lines.append(("upper end of the estimate", exact(each.upper)))
    if each.limit:
        lines.append(("margin" if each.margin >= 0 else "shortfall", exact(abs(each.margin))))
    if each.grown is not None:
        lines.append(("change from the baseline", f"{'+' if each.grown > 0 else ''}{exact(each.grown)}"))
    return lines


def components(each: Judged) -> list[tuple[str, int]]:
    """Components at the peak that hold anything, largest first, in bytes."""
    assert each.estimate is not None
    return sorted(((name, size) for name, size in each.estimate.at_peak.items() if size), key=lambda item: -item[1])


def biggest(each: Judged) -> list[str]:
    """The biggest tensors alive at the peak: size, place, and how the size comes about."""
    assert each.estimate is not None
    lines = []
    for line in each.estimate.largest[:BIGGEST]:
        copies = f"{line.copies:,} x " if line.copies > 1 else ""
        place = f"{line.module or 'the model itself'} ({line.operation})"
        lines.append(f"{human(line.size * line.copies)} {place}: {copies}{line.formula}")
    return lines


def remedy_in_words(remedy: Remedy) -> str:
    """`recompute = full (61.20 GiB)`."""
    return f"{settings_in_words(remedy.changes)} ({human(remedy.upper)})"


def settings_in_words(changes: Mapping[str, Any]) -> str:
    """`recompute = full, micro_batch_size = 3`."""
    return ", ".join(f"{name} = {value}" for name, value in changes.items())


def message(each: Judged) -> str:
    """All of it in a paragraph or two, for formats that have one text: shortfall, components, tensors, what fits."""
    if each.estimate is None:
        return each.error + (f"\n{each.hint}" if each.hint else "")
    parts = [f"{finding.text}: {human(finding.found)} of {human(finding.allowed)}" for finding in each.findings]
    lines = ["; ".join(parts) if parts else headline(each)]
    lines += [f"{name}: {size}" for name, size in sizes(each)]
    peak = each.estimate.peak
    shares = ", ".join(f"{spaced(name)} {human(size)}" for name, size in components(each))
    lines.append(f"peak in {spaced(peak.name)} at {peak.peak_module or 'the model itself'}: {shares}")
    lines += [f"biggest: {text}" for text in biggest(each)]
    if each.remedies:
        lines.append("would fit: " + "; ".join(remedy_in_words(remedy) for remedy in each.remedies))
    elif any(finding.rule in ("does-not-fit", "over-budget") for finding in each.findings):
        lines.append("would fit: nothing that was tried (attention, recompute, optimizer, loss, micro-batch, length)")
    return "\n".join(lines)
