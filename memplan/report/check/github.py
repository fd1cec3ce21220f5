"""Checks as annotations of GitHub Actions (workflow commands), on the line of the file that asks for them.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands: GitHub shows ten of a kind in a
step, so the worst come first and the last one says how many there are beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memplan.report.check.words import headline, message, summary

if TYPE_CHECKING:
    from memplan.check.judge import Judged

MOST = 10


def render(path: str, judged: Sequence[Judged]) -> str:
    """One line for each annotation, and a last one that sums up."""
    errors = [each for each in judged if each.outcome in ("failed", "undecided")]
    warnings = [each for each in judged if each.outcome == "warned"]
    lines = []
    for kind, group in (("error", errors), ("warning", warnings)):
        worst = sorted(group, key=lambda each: -max((finding.excess for finding in each.findings), default=0))
        shown = worst if len(worst) <= MOST else worst[: MOST - 1]
        for each in shown:
            title = f"{each.check.name}: {headline(each)}"
            place = f"file={_property(path)},line={each.check.line or 1},title={_property(title)}"
            lines.append(f"::{kind} {place}::{_data(message(each))}")
        if len(shown) < len(worst):
            rest = ", ".join(each.check.name for each in worst[len(shown) :])
            lines.append(f"::{kind} file={_property(path)}::{_data(f'{len(worst) - len(shown)} more: {rest}')}")
    lines.append(f"memplan: {summary(judged)}")
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
