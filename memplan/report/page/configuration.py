"""What was asked for, where it ran, and what the prediction assumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from memplan.profiled import Profile, Side
from memplan.report.page.markup import Markup, tag, together
from memplan.traced import TraceEstimate


def configuration_section(profile: Profile) -> Markup:
    """The settings in one column, environment and assumptions in the other."""
    parts = [
        *_each(profile, "Model", [_subject(side) for side in profile.sides]),
        *_each(profile, "Run", [side.estimate.run for side in profile.sides]),
        *_each(profile, "Device", [side.estimate.device for side in profile.sides]),
    ]
    columns = [tag("div", together(parts), class_="column")]
    columns.append(tag("div", _environments(profile), _assumptions(profile), class_="column"))
    return tag("div", together(columns), class_="columns roomy")


def _each(profile: Profile, heading: str, settings: Sequence[Any]) -> Iterator[Markup]:
    """Once, where they are the same for all sides."""
    if all(each == settings[0] for each in settings):
        yield tag("h3", heading)
        yield _fields(settings[0])
        return
    for side, each in zip(profile.sides, settings, strict=True):
        yield tag("h3", f"{heading}: {side.name}")
        yield _fields(each)


def _subject(side: Side) -> Any:
    return side.estimate.module if isinstance(side.estimate, TraceEstimate) else side.estimate.model


def _fields(settings: Any) -> Markup:
    """Fields of a dataclass: those that are not at their defaults, and folded those that are."""
    changed: dict[str, Any] = {}
    usual: dict[str, Any] = {}
    for name, field in settings.__dataclass_fields__.items():
        value = getattr(settings, name)
        same = field.default is not MISSING and value == field.default
        (usual if same else changed)[name] = value
    parts = [_list(changed)] if changed else [tag("p", "All at their defaults.", class_="note")]
    if usual:
        word = "field" if len(usual) == 1 else "fields"
        parts.append(tag("details", tag("summary", f"{len(usual)} {word} at the default"), _list(usual)))
    return together(parts)


def _list(values: Mapping[str, Any]) -> Markup:
    return tag(
        "dl",
        together(tag("div", tag("dt", name), tag("dd", shown(value))) for name, value in values.items()),
        class_="settings",
    )


def shown(value: object) -> str:
    """A value for a reader."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={shown(each)}" for name, each in value.items()) or "none"
    return "none" if value in ("", None) else str(value)


def _environments(profile: Profile) -> Markup:
    """What real runs depended on: once, where all had the same."""
    known = [(side.name, side.environment) for side in profile.sides if side.environment]
    parts = [tag("h3", "Environment of the real run")]
    if not known:
        parts.append(tag("p", "Nothing was run: all sides are predicted only.", class_="note"))
    elif all(environment == known[0][1] for _, environment in known):
        parts.append(_list(known[0][1]))
    else:
        for name, environment in known:
            parts += [tag("h4", name), _list(environment)]
    return together(parts)


def _assumptions(profile: Profile) -> Markup:
    """Those of all sides, then each side's own."""
    every = [side.estimate.assumptions for side in profile.sides]
    common = [line for line in every[0] if all(line in lines for lines in every)]
    parts = [tag("h3", "What the prediction assumes"), _lines(common)]
    for side, lines in zip(profile.sides, every, strict=True):
        own = [line for line in lines if line not in common]
        if own:
            parts += [tag("h4", f"{side.name} alone"), _lines(own)]
    return together(parts)


def _lines(lines: list[str]) -> Markup:
    return tag("ul", together(tag("li", line) for line in lines), class_="assumptions") if lines else Markup("")
