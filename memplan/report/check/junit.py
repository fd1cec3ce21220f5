"""Checks as JUnit XML: a testcase for each; a failure does not fit, an error could not be decided, skipped is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from memplan.report.check.words import headline, message

if TYPE_CHECKING:
    from memplan.check.judge import Judged


def render(path: str, judged: Sequence[Judged]) -> str:
    """The document. Times are 0: an estimate that differs from run to run would differ for nothing."""
    failed = sum(each.outcome == "failed" for each in judged)
    undecided = sum(each.outcome == "undecided" for each in judged)
    off = sum(each.outcome == "off" for each in judged)
    counts = f'tests="{len(judged)}" failures="{failed}" errors="{undecided}"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites name="memplan" {counts} time="0">',
        f'  <testsuite name={_attribute(path)} {counts} skipped="{off}" time="0">',
    ]
    for each in judged:
        head = f'    <testcase name={_attribute(each.check.name)} classname={_attribute(f"memplan.{path}")} time="0"'
        if each.outcome == "passed":
            lines.append(f"{head}/>")
            continue
        lines.append(f"{head}>")
        if each.outcome == "off":
            lines.append("      <skipped/>")
        elif each.outcome == "warned":
            lines.append(f"      <system-out>{_text(message(each))}</system-out>")
        else:
            tag = "failure" if each.outcome == "failed" else "error"
            kind = each.findings[0].rule if each.findings else "undecided"
            what = f"message={_attribute(headline(each))} type={_attribute(kind)}"
            lines.append(f"      <{tag} {what}>{_text(message(each))}</{tag}>")
        lines.append("    </testcase>")
    lines += ["  </testsuite>", "</testsuites>"]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return escape(_allowed(text))


def _attribute(text: str) -> str:
    return quoteattr(_allowed(text).replace("\n", " "))


def _allowed(text: str) -> str:
    """What XML 1.0 has no signs for is left out: control characters but tab and line feed, halves of surrogates."""
    return "".join(
        sign
        for sign in text
        if sign in "\t\n" or " " <= sign < "\ud800" or "\ue000" <= sign < "\ufffe" or sign > "\uffff"
    )
