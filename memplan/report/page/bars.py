"""Bars of bytes by component, as wide as the page lets them be."""

from __future__ import annotations

from collections.abc import Mapping

from memplan.report.page.markup import Markup, tag, together
from memplan.report.page.palette import STACKED, paint
from memplan.report.words import exact, spaced


def bar(components: Mapping[str, int], scale: int) -> Markup:
    """One bar; `scale` bytes are its whole width."""
    left = 0
    pieces = []
    for name in STACKED:
        count = components.get(name, 0)
        if count:
            pieces.append(
                tag(
                    "rect",
                    tag("title", f"{spaced(name)}: {exact(count)}"),
                    x=f"{left / scale:.4%}",
                    width=f"{count / scale:.4%}",
                    height="100%",
                    fill=paint(name),
                    data_component=name,
                )
            )
            left += count
    return tag("svg", together(pieces), class_="bar", aria_hidden="true")


def plain_bar(part: float, kind: str = "") -> Markup:
    """A bar of one colour that is a share of the whole width."""
    return tag(
        "svg",
        tag("rect", width=f"{part:.4%}", height="100%", class_=f"plain {kind}".strip()),
        class_="bar",
        aria_hidden="true",
    )


def share(count: float, whole: float) -> str:
    """`12.3 %`; `0` for nothing, and never `0.0 %` for something."""
    if not count or not whole:
        return "0"
    part = count / whole * 100
    return f"{part:.1f} %" if part >= 0.05 else "< 0.1 %"
