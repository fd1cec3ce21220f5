"""Two sets of jobs beside each other, as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.report.check.markdown import escaped
from memplan.report.layout import Page, Row
from memplan.report.words import spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.check.diff import Change, Difference

SCHEMA_VERSION = 1
MARKER = "<!-- memplan-diff -->"
FORMATS = ("text", "json", "markdown")
MOST_TENSORS = 5

_STYLES = {"ok": "", "warn": "yellow", "fail": "bold red"}
_SIGNS = {"ok": "", "warn": ":warning:", "fail": ":x:"}


def render(form: str, differences: Sequence[Difference], *, width: int = 80, colour: bool = False) -> str:
    """The differences in one of FORMATS; `width` and `colour` are for text alone."""
    if form == "json":
        return _json(differences)
    return _markdown(differences) if form == "markdown" else _text(differences, width, colour)


def summary(differences: Sequence[Difference]) -> str:
    """`2 changed, 1 added, 3 the same`."""
    counts = {"changed": "changed", "added": "added", "removed": "removed", "same": "the same"}
    parts = [
        f"{number} {words}"
        for kind, words in counts.items()
        if (number := sum(each.kind == kind for each in differences))
    ]
    return ", ".join(parts) or "nothing to compare"


def signed(size: int) -> str:
    """`+1.20 GiB`."""
    return f"{'+' if size > 0 else ''}{human(size)}"


def share(change: Change) -> str:
    """`+3.1 %`."""
    return f"{change.difference / change.before * 100:+.1f} %" if change.before and change.difference else "-"


def _text(differences: Sequence[Difference], width: int, colour: bool) -> str:
    page = Page(width, colour)
    rows = [
        Row(
            [
                each.name,
                human(each.upper.before) if each.kind != "added" else "-",
                human(each.upper.after) if each.kind != "removed" else "-",
                signed(each.upper.difference) if each.kind in ("changed", "same") else each.kind,
                share(each.upper) if each.kind == "changed" else "-",
                "" if each.level == "ok" else each.level,
            ],
            _STYLES[each.level],
        )
        for each in differences
    ]
    page.table(["check", "before", "after", "change", "share", "level"], rows)
    for each in differences:
        if each.kind != "changed":
            continue
        page.title(each.name)
        for name, before, after in each.settings:
            page.paragraph("  ", f"{name}: {_value(before)} -> {_value(after)}", "cyan")
        if each.components:
            page.table(
                ["  component at the peak", "before", "after", "change"],
                [
                    Row([f"  {spaced(part.name)}", human(part.before), human(part.after), signed(part.difference)])
                    for part in each.components
                ],
            )
        for tensor in each.grown[:MOST_TENSORS]:
            page.paragraph("  grew: ", f"{tensor.name}: {_before(tensor)} -> {human(tensor.after)}")
    page.skip()
    worst = _worst(differences)
    page.paragraph("verdict:  ", summary(differences) + _beyond(differences), _STYLES[worst] or "bold green")
    return page.text()


def _worst(differences: Sequence[Difference]) -> str:
    levels = {each.level for each in differences}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def _beyond(differences: Sequence[Difference]) -> str:
    failed = [each.name for each in differences if each.level == "fail"]
    return f"; grew too much: {', '.join(failed)}" if failed else ""


def _markdown(differences: Sequence[Difference]) -> str:
    lines = [MARKER, f"## Memory: {summary(differences)}", ""]
    lines += ["| | check | before | after | change | |", "|---|---|---:|---:|---:|---:|"]
    for each in differences:
        before = human(each.upper.before) if each.kind != "added" else "-"
        after = human(each.upper.after) if each.kind != "removed" else "-"
        change = signed(each.upper.difference) if each.kind in ("changed", "same") else each.kind
        percent = share(each.upper) if each.kind == "changed" else ""
        lines.append(f"| {_SIGNS[each.level]} | {escaped(each.name)} | {before} | {after} | {change} | {percent} |")
    for each in differences:
        if each.kind == "changed":
            lines += ["", *_details(each)]
    return "\n".join(lines) + "\n"


def _details(each: Difference) -> list[str]:
    title = each.name.replace("&", "&amp;").replace("<", "&lt;")
    lines = [f"<details><summary><b>{title}</b>: {signed(each.upper.difference)}</summary>", ""]
    lines += [f"- `{name}`: {escaped(_value(old))} → {escaped(_value(new))}" for name, old, new in each.settings]
    if each.components:
        lines += ["", "| component at the peak | before | after | change |", "|---|---:|---:|---:|"]
        lines += [
            f"| {spaced(part.name)} | {human(part.before)} | {human(part.after)} | {signed(part.difference)} |"
            for part in each.components
        ]
    if each.grown:
        lines += ["", "Tensors that grew:", ""]
        lines += [
            f"- {escaped(part.name)}: {_before(part)} → {human(part.after)}" for part in each.grown[:MOST_TENSORS]
        ]
    return [*lines, "", "</details>"]


def _before(tensor: Change) -> str:
    return human(tensor.before) if tensor.before else "not among the biggest"


def _value(value: object) -> str:
    return "(default)" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _json(differences: Sequence[Difference]) -> str:
    document = {
        "schema_version": SCHEMA_VERSION,
        "memplan_version": __version__,
        "differences": [
            {
                "name": each.name,
                "kind": each.kind,
                "level": each.level,
                "upper": _change(each.upper),
                "components": {part.name: _change(part) for part in each.components},
                "grown": [
                    {"tensor": part.name, "before_bytes": part.before or None, "after_bytes": part.after}
                    for part in each.grown
                ],
                "settings": [{"name": name, "before": old, "after": new} for name, old, new in each.settings],
            }
            for each in differences
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _change(change: Change) -> dict[str, Any]:
    return {
        "before_bytes": change.before,
        "after_bytes": change.after,
        "change_bytes": change.difference,
    }
