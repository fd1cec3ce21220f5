"""Where the peak goes: by component, by module, and the biggest tensors alive at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memplan.estimate import COMPONENTS, LedgerLine
from memplan.profiled import Profile, Side
from memplan.report.page.bars import bar, share
from memplan.report.page.markup import Markup, size, tag, together
from memplan.report.page.modules import module_bars
from memplan.report.page.palette import swatch
from memplan.report.page.series import Stack
from memplan.report.words import spaced

TOP = 10
"""How many of the biggest tensors are shown at once."""


def peak_section(profile: Profile, stacks: Sequence[Stack]) -> Markup:
    """The whole section."""
    scale = max([*(stack.totals[stack.peak] for stack in stacks), 1])
    return together(
        (
            tag("h3", "By component"),
            _components(profile),
            tag("h3", "By module"),
            tag(
                "div",
                together(
                    tag("div", tag("h4", side.name), module_bars(side, stack.peak, scale), class_="column")
                    for side, stack in zip(profile.sides, stacks, strict=True)
                ),
                class_="columns",
            ),
            tag("h3", "The biggest tensors"),
            tag(
                "div",
                together(tag("div", tag("h4", side.name), _tensors(side), class_="column") for side in profile.sides),
                class_="columns",
            ),
        )
    )


def _components(profile: Profile) -> Markup:
    """A row for each component, a bar for each side."""
    whole = max([*(side.estimate.peak.peak_allocated_bytes for side in profile.sides), 1])
    names = [name for name in COMPONENTS if any(side.estimate.at_peak.get(name) for side in profile.sides)]
    head = [tag("th", "component", scope="col")]
    for side in profile.sides:
        head.append(tag("th", side.name, scope="col"))
    rows = []
    for name in names:
        cells = [tag("th", swatch(name), " ", spaced(name), scope="row")]
        for side in profile.sides:
            held, peak = side.estimate.at_peak.get(name, 0), side.estimate.peak.peak_allocated_bytes
            cells.append(_held({name: held}, held, share(held, peak), whole))
        rows.append(tag("tr", together(cells)))
    sums = [tag("th", "sum: the peak", scope="row")]
    for side in profile.sides:
        sums.append(_held(side.estimate.at_peak, side.estimate.peak.peak_allocated_bytes, "100 %", whole))
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", together(head))),
            tag("tbody", together(rows)),
            tag("tfoot", tag("tr", together(sums))),
            class_="by-component",
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="The peak by component",
    )


def _held(components: Mapping[str, int], count: int, part: str, whole: int) -> Markup:
    """A bar with its bytes and its share."""
    return tag(
        "td",
        tag(
            "div",
            tag("span", bar(components, whole), class_="track"),
            tag("span", size(count), class_="amount"),
            tag("span", part, class_="share"),
            class_="held",
        ),
    )


def _tensors(side: Side) -> Markup:
    lines = side.estimate.largest
    shown = tag("ol", together(map(_line, lines[:TOP])), class_="tensors")
    rest = sum(line.size * line.copies for line in lines[TOP:])
    if not rest:
        return shown
    text = tag("p", f"and {len(lines) - TOP:,} more kinds of tensors, ", size(rest), " together", class_="note")
    return together((shown, text))


def _line(line: LedgerLine) -> Markup:
    copies = tag("span", f"{line.copies:,} x ", size(line.size), class_="copies") if line.copies > 1 else ""
    return tag(
        "li",
        tag("span", size(line.size * line.copies), copies, class_="sizes"),
        tag(
            "span",
            swatch(line.component),
            tag("span", f"{line.module or 'the model itself'} ({line.operation})", class_="tensor"),
            tag(
                "span",
                tag("span", f"= {line.formula}", class_="formula"),
                " ",
                tag("span", f"{spaced(line.component)}: {spaced(line.reason)}", class_="reason"),
                class_="why",
            ),
            class_="what",
        ),
    )
