"""Checks as SARIF 2.1.0 (https://docs.oasis-open.org/sarif/sarif/v2.1.0/): stable rule ids, and fingerprints made from
a check's name, so that a finding stays the same finding when its bytes change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from memplan import __version__
from memplan.report.check.words import RULES, message

if TYPE_CHECKING:
    from memplan.check.judge import Judged

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(path: str, judged: Sequence[Judged]) -> str:
    """The log: one run, one result for each finding; a check that could not be decided is a finding too."""
    rules = list(RULES)
    results: list[dict[str, Any]] = []
    for each in judged:
        if each.outcome == "undecided":
            results.append(_result(path, each, "undecided", "error", rules))
        results += [
            _result(path, each, finding.rule, "error" if finding.level == "error" else "warning", rules)
            for finding in each.findings
        ]
    failed = any(each.outcome == "undecided" for each in judged)
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "memplan",
                        "version": __version__,
                        "semanticVersion": __version__,
                        "rules": [
                            {
                                "id": rule,
                                "shortDescription": {"text": text},
                                "defaultConfiguration": {"level": "warning" if rule == "low-headroom" else "error"},
                            }
                            for rule, text in RULES.items()
                        ],
                    }
                },
                "invocations": [{"executionSuccessful": not failed}],
                "results": results,
            }
        ],
    }
    return json.dumps(log, indent=2) + "\n"


def _result(path: str, each: Judged, rule: str, level: str, rules: list[str]) -> dict[str, Any]:
    return {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": level,
        "message": {"text": f"{each.check.name}: {message(each)}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(path.replace("\\", "/"))},
                    "region": {"startLine": each.check.line or 1},
                }
            }
        ],
        "partialFingerprints": {
            "memplanCheck/v1": hashlib.sha256(f"{each.check.name}\0{rule}".encode()).hexdigest()[:32]
        },
    }
