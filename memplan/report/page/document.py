"""The whole page: one HTML file that needs nothing else, no network and no script.

With scripts it can be zoomed and asked; without them every chart and number is there. A policy in the file itself lets
nothing be fetched, and no script run but the page's own.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from memplan.profiled import Profile, Side
from memplan.report.page.configuration import configuration_section
from memplan.report.page.data import embedded, profile_to_dict
from memplan.report.page.frame import frame_of
from memplan.report.page.head import head
from memplan.report.page.lengths import lengths_section
from memplan.report.page.markup import Markup, tag, together
from memplan.report.page.palette import patterns
from memplan.report.page.peak import peak_section
from memplan.report.page.residuals import residuals_section
from memplan.report.page.series import stack_of
from memplan.report.page.spans import axes_of
from memplan.report.page.timelines import timelines_section
from memplan.report.page.times import times_section
from memplan.report.page.view import view_of

if TYPE_CHECKING:
    from memplan.exporting.placed import PlacedTimeline

STYLES = ("chart.css", "style.css")
SCRIPTS = ("drawing.js", "labels.js", "data.js", "chart.js", "readout.js", "controls.js")
"""In this order; together they are one program."""


def render_page(profile: Profile, *, title: str, placed: Mapping[str, PlacedTimeline] | None = None) -> str:
    """The profile as an HTML document. `placed` are the predicted timelines with their places in the allocator, by name
    of the side: what it reserves is drawn over the chart."""
    stacks = [stack_of(side.timeline) for side in profile.sides]
    axes = axes_of(profile)
    reserved = [_reserved(side, (placed or {}).get(side.name)) for side in profile.sides]
    frame = frame_of(profile, stacks, axes[0], reserved=filter(None, reserved))
    sections = [
        ("timeline", "Memory over time", timelines_section(profile, stacks, axes, frame, reserved)),
        ("peak", "Where the peak goes", peak_section(profile, stacks)),
        ("residuals", "Predicted and measured", residuals_section(profile)),
    ]
    if any(curve.points for curve in profile.curves):
        sections.append(("length", "The peak by length", lengths_section(profile)))
    if any(side.times is not None for side in profile.sides):
        sections.append(("time", "Time", times_section(profile)))
    sections.append(("configuration", "Configuration", configuration_section(profile)))
    body = tag(
        "body",
        tag("svg", patterns(), class_="patterns", width=0, height=0, aria_hidden="true"),
        tag("header", head(profile, stacks, title), _navigation(sections), class_="top"),
        tag("main", together(_sections(sections))),
        tag("footer", tag("p", "Made by memplan. 1 GiB is 2^30 bytes; exact bytes are in the titles.")),
        _data("memplan-data", profile_to_dict(profile)),
        _data("memplan-view", view_of(stacks, axes, frame, reserved)),
        tag("script", Markup(_script())),
    )
    return f"<!DOCTYPE html>\n{tag('html', _head(title), body, lang='en')}\n"


def _reserved(side: Side, placed: PlacedTimeline | None) -> list[int] | None:
    """Reserved bytes in every cell; None where they are not known, or where the allocator was not asked for these very
    events (where it sees a single run, that is the one of a fresh process)."""
    if placed is None or placed.timeline.events != side.timeline.events:
        return None
    return placed.reserved()


def _sections(sections: list[tuple[str, str, Markup]]) -> Iterator[Markup]:
    for name, heading, content in sections:
        known = f"{name}-heading"
        yield tag("section", tag("h2", heading, id=known), content, id=name, aria_labelledby=known)


def _navigation(sections: list[tuple[str, str, Markup]]) -> Markup:
    links = [tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in sections]
    toggle = tag("button", "Dark", type="button", class_="theme scripted")
    return tag("nav", tag("ul", together(links)), toggle, aria_label="Sections")


def _head(title: str) -> Markup:
    script = b64encode(sha256(_script().encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        # No browser asks a server for an icon then.
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup("\n".join(map(resource, STYLES)))),
    )


def _data(name: str, document: Any) -> Markup:
    return tag("script", Markup(embedded(document)), type="application/json", id=name)


def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(map(resource, SCRIPTS)) + "\n})();"


def resource(name: str) -> str:
    """A file that lies beside this one."""
    folder = "script" if name.endswith(".js") else "style"
    return (files("memplan.report.page") / folder / name).read_text(encoding="utf-8")
