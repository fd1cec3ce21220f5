"""What is recorded and what is missing, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from memplan import __version__
from memplan.measure.coverage import FolderCoverage
from memplan.profiles import fields
from memplan.report.layout import Page, Row
from memplan.report.words import spaced

SCHEMA_VERSION = 1

_NAMED = 3  # missing configurations that the text names; the JSON names all


def render_coverage(
    folders: Sequence[FolderCoverage], missing: Mapping[str, str], *, width: int = 80, colour: bool = False
) -> str:
    """A row for each folder, then what of each suite is missing and the command that measures it."""
    page = Page(width, colour)
    rows = [
        Row([folder.folder, f"{folder.records:,}", ", ".join(folder.torch), _outcomes(folder), *_shares(folder)])
        for folder in folders
    ]
    page.table(["folder", "records", "PyTorch", "outcomes", "suites"], rows)
    for folder in folders:
        for suite in folder.suites:
            if not suite.missing:
                continue
            page.skip()
            names = ", ".join(f"{name!r}" for name in suite.missing[:_NAMED])
            more = len(suite.missing) - _NAMED
            beyond = f" and {more:,} more" if more > 0 else ""
            page.paragraph("missing: ", f"{folder.folder}, {suite.name}: {names}{beyond}")
            page.lines.append(f"         {suite.command}")  # never wrapped: it is there to be copied
    for name, command in missing.items():
        page.skip()
        page.paragraph("missing: ", f"nothing of the suite {name} is recorded on any device")
        page.lines.append(f"         {command}")
    return page.text()


def coverage_to_json(folders: Sequence[FolderCoverage], missing: Mapping[str, str]) -> str:
    """The same, with every missing configuration by its name."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "folders": [
            {**fields(folder), "suites": [{**fields(suite), "recorded": suite.recorded} for suite in folder.suites]}
            for folder in folders
        ],
        "missing_suites": [{"name": name, "command": command} for name, command in missing.items()],
    }
    return json.dumps(document, indent=2) + "\n"


def _outcomes(folder: FolderCoverage) -> str:
    return ", ".join(f"{count:,} {spaced(outcome)}" for outcome, count in folder.outcomes.items() if count)


def _shares(folder: FolderCoverage) -> list[str]:
    return [", ".join(f"{suite.name} {suite.recorded:,} of {suite.total:,}" for suite in folder.suites)]
