"""What is alive at one moment, in words and numbers. script/readout.js fills it anew for the place under the cursor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from memplan.estimate import line_of
from memplan.profiled import Side
from memplan.report.page.frame import maker
from memplan.report.page.markup import Markup, size, tag, together
from memplan.report.page.palette import swatch
from memplan.report.page.series import Stack, predicted_cells
from memplan.report.page.spans import Segment, Spread
from memplan.report.words import spaced
from memplan.timeline import Tensor

BIGGEST = 6
"""How many of the tensors alive are named."""

_LAYER = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors alike but for the number of their layer."""

    title: str
    size: int  # bytes of one
    count: int
    component: str
    reason: str


def readout(side: Side, stack: Stack, spread: Spread, reserved: Sequence[int] | None = None) -> Markup:
    """The moment of the peak: its bytes in a panel beside the chart, its tensors in one below."""
    cell = stack.peak
    place = position(side, cell)
    rows = [
        tag("tr", tag("th", swatch(name), " ", spaced(name), scope="row"), tag("td", size(held)))
        for name, held in reversed(stack.at(cell).items())
        if held
    ]
    total = stack.totals[cell]
    sums = [_row("predicted", size(total), "total")]
    seen = measured_at(side, spread, cell)
    if seen is not None:
        sums.append(_row("measured", size(seen), "total"))
        sums.append(_row("difference", size(total - seen, sign=True), "differs" if total - seen else "same"))
    if reserved is not None:
        sums.append(_row("reserved", size(reserved[cell]), "held-by-allocator"))
    panel = tag(
        "div",
        tag("p", tag("strong", "At the peak"), " ", tag("span", place, class_="place"), class_="where"),
        tag("p", _change(side, cell), class_="change"),
        tag(
            "table",
            tag("caption", "Alive, by component", class_="hidden"),
            tag("tbody", together(rows), class_="components"),
            tag("tfoot", together(sums)),
        ),
        class_="readout",
    )
    tensors = tag("ol", together(_entry(group) for group in biggest(side, cell)), class_="biggest")
    return together((panel, tag("div", tag("h4", "The biggest tensors alive there"), tensors, class_="alive")))


def _row(name: str, value: Markup, kind: str) -> Markup:
    return tag("tr", tag("th", name, scope="row"), tag("td", value), class_=kind)


def position(side: Side, cell: int) -> str:
    """`backward, event 3 of 1,065`."""
    for name, first, stop in predicted_cells(side):
        if cell < stop:
            first = max(first, 1)
            if not cell:
                return f"before {spaced(name)} begins"
            return f"{spaced(name)}, event {cell - first + 1:,} of {stop - first:,}"
    return ""


def _change(side: Side, cell: int) -> Markup:
    """What is born or freed there."""
    if not cell:
        return tag("span", maker(side, cell), class_="tensor")
    event = side.timeline.events[cell - 1]
    tensor = side.timeline.tensors[event if event >= 0 else ~event]
    verb = "born: " if event >= 0 else "freed: "
    return together((verb, tag("span", tensor.title, class_="tensor"), ", ", size(tensor.size)))


def biggest(side: Side, cell: int, most: int = BIGGEST) -> list[Group]:
    """The tensors alive in a cell that take the most bytes, those of alike layers together."""
    counts: Counter[tuple[str, int, str, str]] = Counter()
    first: dict[tuple[str, int, str, str], Tensor] = {}
    tensors = side.timeline.tensors
    for number in side.timeline.alive(cell - 1):
        tensor = tensors[number]
        key = (_LAYER.sub(".*", tensor.title), tensor.size, tensor.component, reason_of(tensor))
        counts[key] += 1
        first.setdefault(key, tensor)
    found = sorted(counts, key=lambda key: -key[1] * counts[key])[:most]
    return [
        Group(key[0] if counts[key] > 1 else first[key].title, key[1], counts[key], key[2], key[3]) for key in found
    ]


def reason_of(tensor: Tensor) -> str:
    """Why it is kept."""
    return line_of(tensor.allocation, 1).reason


def _entry(group: Group) -> Markup:
    sizes = [size(group.size * group.count)]
    if group.count > 1:
        sizes.append(tag("span", f" = {group.count:,} x ", size(group.size), class_="copies"))
    return tag(
        "li",
        swatch(group.component),
        tag("span", tag("span", together(sizes), class_="sizes"), " ", tag("span", why(group), class_="reason")),
        tag("span", group.title, class_="tensor"),
    )


def why(group: Group) -> str:
    """`activations: saved for BmmBackward0`."""
    return f"{spaced(group.component)}: {spaced(group.reason)}"


def measured_at(side: Side, spread: Spread, cell: int) -> int | None:
    """The bytes that were measured where a predicted cell is drawn; None where nothing was."""
    if side.course is None:
        return None
    for segment in spread.predicted:
        if cell < segment.stop:
            share = (cell - segment.first + 0.5) / (segment.stop - segment.first)
            x = segment.left + share * (segment.right - segment.left)
            found = measured_cell(spread.measured, x)
            return None if found is None else side.course.allocated_bytes[found]
    return None


def measured_cell(measured: tuple[Segment, ...], x: float) -> int | None:
    """The measured cell that is drawn at a place of the axis."""
    for segment in measured:
        if segment.left <= x <= segment.right and segment.right > segment.left:
            offset = (x - segment.left) / (segment.right - segment.left) * (segment.stop - segment.first)
            return min(segment.first + int(offset), segment.stop - 1)
    return None
