"""Checks for a terminal: a table, then what is wrong, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memplan.report.check.words import biggest, components, headline, remedy_in_words, sizes, summary
from memplan.report.layout import Page, Row
from memplan.report.words import run_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.check.judge import Judged

_STYLES = {"passed": "", "warned": "yellow", "failed": "bold red", "undecided": "bold red", "off": "dim"}


def render(path: str, judged: Sequence[Judged], *, width: int = 80, colour: bool = False) -> str:
    """The report of a file of checks."""
    page = Page(width, colour)
    rows = []
    for each in judged:
        need = human(each.upper) if each.estimate is not None else "-"
        limit = human(each.limit) if each.limit else "-"
        margin = human(each.margin) if each.limit and each.estimate is not None else "-"
        rows.append(Row([each.check.name, each.check.device, need, limit, margin, each.outcome], _STYLES[each.outcome]))
    page.table(["check", "device", "needs at most", "may need", "margin", "outcome"], rows)
    for each in judged:
        if each.outcome in ("failed", "warned", "undecided"):
            page.skip()
            _details(page, path, each)
    page.skip()
    good = not any(each.outcome in ("failed", "undecided") for each in judged)
    page.paragraph("verdict:  ", summary(judged), "bold green" if good else "bold red")
    return page.text()


def _details(page: Page, path: str, each: Judged) -> None:
    page.paragraph("", f"{each.check.name} ({path}:{each.check.line}) {each.outcome}", _STYLES[each.outcome])
    if each.estimate is None:
        page.paragraph("  ", headline(each))
        if each.hint:
            page.paragraph("  hint: ", each.hint)
        return
    page.paragraph("  ", run_in_words(each.estimate.model, each.estimate.run, each.estimate.device), "dim")
    for finding in each.findings:
        short = "short" if finding.rule == "low-headroom" else "too much"
        page.paragraph("  ", f"{finding.level}: {finding.text}: {human(finding.excess)} {short} [{finding.rule}]")
    lines = sizes(each)
    wide = max(len(name) for name, _ in lines)
    for name, size in lines:
        page.paragraph(f"  {name.ljust(wide)}  ", size)
    peak = each.estimate.peak
    page.paragraph("  ", f"peak in {spaced(peak.name)}, at {peak.peak_module or 'the model itself'}:")
    for name, held in components(each):
        page.paragraph(f"    {human(held).rjust(11)}  ", spaced(name))
    page.paragraph("  ", "the biggest tensors:")
    for text in biggest(each):
        page.paragraph("    ", text)
    if each.remedies:
        page.paragraph("  ", "what would fit, each tried:")
        for remedy in each.remedies:
            page.paragraph("    ", remedy_in_words(remedy), "green")
    elif any(finding.rule in ("does-not-fit", "over-budget") for finding in each.findings):
        page.paragraph("  ", "nothing that was tried would fit: attention, recompute, optimizer, loss, batch, length")
