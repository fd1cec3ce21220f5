"""How components look: colours that colour-blind people tell apart (Okabe and Ito, https://jfly.uni-koeln.de/color/),
and patterns for those who see or print none."""

from __future__ import annotations

from memplan.report.page.markup import Markup, tag, together

STACKED = (
    "parameters", "buffers", "inputs", "optimizer_state", "workspace", "gradients", "kv_cache", "activations",
    "temporaries",
)  # fmt: skip
"""Every component, from the bottom of a stack to its top: what hardly changes below what changes most."""

COLOURS = {
    "parameters": "#0072b2",
    "buffers": "#7f7f7f",
    "inputs": "#f0e442",
    "optimizer_state": "#56b4e9",
    "workspace": "#b8b8b8",
    "gradients": "#cc79a7",
    "kv_cache": "#d55e00",
    "activations": "#009e73",
    "temporaries": "#e69f00",
}

_STROKES = {
    "buffers": "M0 4H8",
    "optimizer_state": "M-2 2L2-2M0 8L8 0M6 10L10 6",
    "workspace": "M4 0V8M0 4H8",
    "gradients": "M2 2H3.4M6 6H7.4",
    "kv_cache": "M0 0L8 8M8 0L0 8",
    "activations": "M4 0V8",
    "temporaries": "M-2 6L2 10M0 0L8 8M6-2L10 2",
}
"""What is drawn over the colour, in a square of 8; nothing over parameters and inputs."""


def paint(component: str) -> str:
    """What fills an area of a component, where `patterns` is in the document."""
    return f"url(#c-{component})"


def patterns() -> Markup:
    """The definitions that `paint` refers to."""
    made = []
    for component, colour in COLOURS.items():
        square = [tag("rect", width=8, height=8, fill=colour)]
        if component in _STROKES:
            dark = component in ("inputs", "workspace", "optimizer_state", "temporaries", "gradients")
            stroke = "#000000" if dark else "#ffffff"
            square.append(
                tag("path", d=_STROKES[component], stroke=stroke, stroke_width="1.1", stroke_opacity="0.3", fill="none")
            )
        made.append(
            tag(
                "pattern",
                *square,
                id=f"c-{component}",
                width="8",
                height="8",
                patternUnits="userSpaceOnUse",
            )
        )
    return tag("defs", together(made))


def swatch(component: str) -> Markup:
    """A little square in a component's pattern. It says nothing that the name beside it does not say."""
    square = tag("rect", width="14", height="14", fill=paint(component))
    return tag("svg", square, class_="swatch", viewBox="0 0 14 14", aria_hidden="true")
