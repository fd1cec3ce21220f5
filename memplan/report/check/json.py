"""Checks as JSON, version 1: integer bytes, a stable order of keys, no times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.check.baseline import entry_of

if TYPE_CHECKING:
    from memplan.check.judge import Judged

SCHEMA_VERSION = 1


def render(path: str, judged: Sequence[Judged]) -> str:
    """The document."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "file": path,
        "counts": {
            outcome: sum(each.outcome == outcome for each in judged)
            for outcome in ("passed", "warned", "failed", "undecided", "off")
        },
        "checks": [_check(each) for each in judged],
    }
    return json.dumps(document, indent=2) + "\n"


def _check(each: Judged) -> dict[str, Any]:
    known = each.estimate is not None
    return {
        "name": each.check.name,
        "line": each.check.line,
        "model": each.check.model,
        "device": each.check.device,
        "level": each.check.level,
        "outcome": each.outcome,
        "upper_bytes": each.upper if known else None,
        "capacity_bytes": each.capacity if known and each.capacity else None,
        "limit_bytes": each.limit if known and each.limit else None,
        "reserve_bytes": each.reserve if known and each.capacity else None,
        "margin_bytes": each.margin if known and each.limit else None,
        "growth_bytes": each.grown,
        "findings": [
            {
                "rule": finding.rule,
                "level": finding.level,
                "found_bytes": finding.found,
                "allowed_bytes": finding.allowed,
                "text": finding.text,
            }
            for finding in each.findings
        ],
        "remedies": [{"changes": dict(remedy.changes), "upper_bytes": remedy.upper} for remedy in each.remedies],
        "estimate": None if each.estimate is None else entry_of(each.estimate, each.upper),
        "error": each.error or None,
        "hint": each.hint or None,
    }
