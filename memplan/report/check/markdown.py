"""Checks as Markdown: for a pull request's comment, found again by a hidden marker, and a step's summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memplan.report.check.words import biggest, components, headline, remedy_in_words, sizes, summary
from memplan.report.words import exact, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.check.judge import Judged

MARKER = "<!-- memplan-check -->"

MOST_BYTES = 65_000
"""GitHub refuses a comment of more than 65,536 characters."""

ROOM_FOR_THE_END = 200
CUT = "\n\n(cut: there is room for no more)\n"

_SIGNS = {
    "passed": ":white_check_mark:", "warned": ":warning:", "failed": ":x:", "undecided": ":grey_question:",
    "off": ":zzz:",
}  # fmt: skip


def render(path: str, judged: Sequence[Judged], most: int = MOST_BYTES) -> str:
    """The whole comment, of `most` bytes at most: what is wrong with the first checks in full, the others in a line."""
    lines = [MARKER, f"## Memory: {summary(judged)}", ""]
    lines += ["| | check | device | needs at most | may need | margin |", "|---|---|---|---:|---:|---:|"]
    for each in judged:
        known = each.estimate is not None
        cells = [
            _SIGNS[each.outcome],
            escaped(each.check.name),
            escaped(each.check.device),
            human(each.upper) if known else "-",
            human(each.limit) if known and each.limit else "-",
            human(each.margin) if known and each.limit else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    room = most - len("\n".join(lines).encode()) - ROOM_FOR_THE_END
    left_out = 0
    for each in judged:
        if each.outcome in ("failed", "warned", "undecided"):
            details = ["", *_details(path, each)]
            room -= len("\n".join(details).encode()) + 1
            if room >= 0:
                lines += details
            else:
                left_out += 1
    if left_out:
        lines += ["", f"The details of {left_out} more are left out here: a comment has an end."]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > most:  # a table of thousands of checks
        text = text.encode()[: most - len(CUT)].decode(errors="ignore") + CUT
    return text


def _details(path: str, each: Judged) -> list[str]:
    lines = [
        f"<details{' open' if each.outcome != 'warned' else ''}>",
        f"<summary>{_SIGNS[each.outcome]} <b>{_html(each.check.name)}</b>: {_html(headline(each))}</summary>",
        "",
        f"`{path}:{each.check.line}`",
        "",
    ]
    if each.estimate is None:
        lines += [escaped(each.error), *(["", escaped(each.hint)] if each.hint else [])]
    else:
        lines += ["| | |", "|---|---:|", *(f"| {name} | {size} |" for name, size in sizes(each)), ""]
        peak = each.estimate.peak
        place = f"`{peak.peak_module}`" if peak.peak_module else "the model itself"
        lines += [f"At the peak, in {spaced(peak.name)} at {place}:", "", "| component | size |", "|---|---:|"]
        lines += [f"| {spaced(name)} | {exact(size)} |" for name, size in components(each)]
        lines += ["", "The biggest tensors:", "", *(f"- {escaped(text)}" for text in biggest(each))]
        if each.remedies:
            lines += ["", "What would fit, each tried:", ""]
            lines += [f"- {escaped(remedy_in_words(remedy))}" for remedy in each.remedies]
    return [*lines, "", "</details>"]


def escaped(text: str) -> str:
    """Text that is nothing but text in Markdown, in a table's cell too."""
    text = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|~" else sign for sign in text)


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
