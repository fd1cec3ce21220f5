"""What the script needs beside the data to draw what is drawn without it: where phases lie, and the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memplan.report.page.frame import Frame
from memplan.report.page.palette import STACKED
from memplan.report.page.series import Stack
from memplan.report.page.spans import Axis, Segment


def view_of(
    stacks: Sequence[Stack], axes: Sequence[Axis], frame: Frame, reserved: Sequence[Sequence[int] | None]
) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "stacked": list(STACKED),
        "frame": {
            "width": frame.width,
            "high": frame.high,
            "lines": frame.lines,
            "rows": frame.rows,
            "limit": frame.limit,
            "limitText": frame.limit_text,
        },
        "reserved": [None if line is None else list(line) for line in reserved],
        "peaks": [stack.peak for stack in stacks],
        "axes": [
            {
                "name": axis.name,
                "length": axis.length,
                "unit": axis.unit,
                "spreads": [
                    {
                        "predicted": [_segment(segment) for segment in spread.predicted],
                        "measured": [_segment(segment) for segment in spread.measured],
                    }
                    for spread in axis.spreads
                ],
            }
            for axis in axes
        ],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "label": segment.label,
        "first": segment.first,
        "stop": segment.stop,
        "left": segment.left,
        "right": segment.right,
    }
