"""The section with the timelines of all sides, and what works them."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.ledger import SKIPPED
from memplan.profiled import Profile, Side
from memplan.report.page.agreement import agreement
from memplan.report.page.frame import Frame
from memplan.report.page.markup import Markup, size, tag, together
from memplan.report.page.palette import STACKED, swatch
from memplan.report.page.readout import readout
from memplan.report.page.series import Stack
from memplan.report.page.spans import Axis
from memplan.report.page.timeline_chart import timeline_chart
from memplan.report.words import spaced

_KEYS = (
    ("arrow keys", "one event back or on; with Shift, the view"),
    ("page up, page down", "one phase back or on"),
    ("+ and -", "nearer and farther"),
    ("P", "to the peak"),
    ("F", "fit the height to what is in view"),
    ("0 or Escape", "the whole run again"),
)


def timelines_section(
    profile: Profile,
    stacks: Sequence[Stack],
    axes: Sequence[Axis],
    frame: Frame,
    reserved: Sequence[Sequence[int] | None],
) -> Markup:
    """Charts below each other on one scale; beside each, what is alive at a moment. `reserved` are the bytes that the
    allocator holds, by side, where they are known."""
    charts = [
        _side(place, side, stack, axes[0], frame, reserved[place])
        for place, (side, stack) in enumerate(zip(profile.sides, stacks, strict=True))
    ]
    held = any(line is not None for line in reserved)
    return together((_lead(profile, held), _tools(axes), _legend(profile, stacks, held), together(charts), _keys()))


def _lead(profile: Profile, held: bool) -> Markup:
    text = "Coloured areas are the predicted bytes of every component, stacked."
    if any(side.course is not None for side in profile.sides):
        text += " The line is what PyTorch really had alive: where both agree it lies on their upper edge."
    text += (
        " Every birth and every death of a tensor is an event, and within a phase all events are equally wide; where "
        "several share a pixel, the one with the most bytes is drawn. All charts have the same scale."
    )
    if any(side.estimate.device.backend == "cuda" for side in profile.sides):
        text += (
            " On a card the charts count bytes as they were asked for; the allocated tier counts the allocator's "
            "blocks, which are a little larger."
        )
    if held:
        text += " The dashed line is what the caching allocator reserves."
    return tag("p", text, class_="lead")


def _tools(axes: Sequence[Axis]) -> Markup:
    """Only a script can make use of them."""
    choices = []
    for axis in axes:
        box = tag("input", type="radio", name="axis", value=axis.name, id=f"axis-{axis.name}", checked=axis is axes[0])
        choices.append(tag("label", box, " ", axis.title, for_=f"axis-{axis.name}"))
    buttons = [
        _button("in", "Zoom in"),
        _button("out", "Zoom out"),
        _button("reset", "Whole run"),
        _button("peak", "To the peak"),
        _button("fit", "Fit height", aria_pressed="false"),
    ]
    return tag(
        "div",
        tag("fieldset", tag("legend", "Width of phases"), together(choices), class_="choice"),
        tag("div", together(buttons), class_="buttons", role="group", aria_label="View"),
        tag("span", "Drag over a chart to look closer; click it, then the wheel zooms.", class_="hint"),
        class_="tools scripted",
    )


def _button(action: str, text: str, **attributes: str) -> Markup:
    return tag("button", text, type="button", data_action=action, **attributes)


def _legend(profile: Profile, stacks: Sequence[Stack], held: bool) -> Markup:
    names = [name for name in STACKED if any(name in stack.components for stack in stacks)]
    items = [tag("li", swatch(name), " ", spaced(name)) for name in names]
    lines = [("measured", any(side.course is not None for side in profile.sides)), ("reserved", held)]
    for name, drawn in lines:
        if drawn:
            stroke = tag("path", d="M0 7H18", class_=name)
            items.append(
                tag("li", tag("svg", stroke, class_="stroke", viewBox="0 0 18 14", aria_hidden="true"), f" {name}")
            )
    return tag("ul", together(items), class_="legend")


def _side(place: int, side: Side, stack: Stack, axis: Axis, frame: Frame, reserved: Sequence[int] | None) -> Markup:
    spread = axis.spreads[place]
    notes: list[str] = []
    if side.failure:
        notes.append(f"Not measured: {side.failure}.")
    elif side.course is None and side.verification is None:
        notes.append("Predicted only.")
    elif side.course is None:
        notes.append("Measured phase by phase; the record has no line over time.")
    elif any(name == SKIPPED for name, _ in side.timeline.phases):
        notes.append(
            "Of decode the prediction spells out the steps that can hold the peak; the line shows every step that was "
            "measured, over the same width."
        )
    notes.append(agreement(side, stack))
    if spread.unmatched:
        notes.append(f"Measured phases without a predicted one are not drawn: {', '.join(spread.unmatched)}.")
    return tag(
        "article",
        tag("h3", side.name, " ", tag("span", "predicted peak ", size(stack.totals[stack.peak]), class_="note")),
        tag("p", " ".join(filter(None, notes)), class_="note"),
        tag(
            "div",
            tag("div", timeline_chart(side, stack, axis, spread, frame, reserved), class_="chart"),
            readout(side, stack, spread, reserved),
            class_="chart-and-readout",
        ),
        tag("p", "", class_="hidden", role="status", aria_live="polite"),
        class_="side",
        data_side=place,
    )


def _keys() -> Markup:
    rows = [tag("div", tag("dt", key), tag("dd", does)) for key, does in _KEYS]
    return tag(
        "details",
        tag("summary", "Keys, when a chart has the focus"),
        tag("dl", together(rows), class_="settings"),
        class_="scripted",
    )
