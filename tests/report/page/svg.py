"""Reading charts back: what was drawn, in pixels and in bytes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from memplan.report.page.frame import PLOT_HEIGHT, Frame

Element = ElementTree.Element


class Box(NamedTuple):
    """Where a text is, roughly."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether both lie over each other."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def parsed(markup: str) -> Element:
    """The root of a chart, without its namespace."""
    root = ElementTree.fromstring(markup)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
    return root


def of_class(root: Element, kind: str) -> list[Element]:
    """All elements of a class."""
    return [element for element in root.iter() if kind in element.get("class", "").split()]


def runs(path: str) -> Iterator[tuple[float, float, float]]:
    """From where to where a path of steps goes at which height; what goes along the bottom is left out."""
    x = y = 0.0
    for command, numbers in re.findall(r"([MVHZ])([-\d. ]*)", path):
        values = [float(each) for each in numbers.split()]
        if command == "M":
            x, y = values
        elif command == "V":
            y = values[0]
        elif command == "H":
            yield x, values[0], y
            x = values[0]


def height_at(path: str, x: float) -> float | None:
    """The height of a path of steps at a place."""
    return next((y for left, right, y in runs(path) if left <= x < right), None)


def pixels(size: int, frame: Frame) -> float:
    """How high so many bytes are."""
    return size / frame.high * PLOT_HEIGHT


def boxes(root: Element) -> list[Box]:
    """Every text of a chart. A character is taken as 6 pixels wide, which is about what it is."""
    found = []
    for element in root.iter("text"):
        text = element.text or ""
        x, y, width = float(element.get("x", 0)), float(element.get("y", 0)), 6.0 * len(text)
        anchor = element.get("text-anchor", "start")
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        middle = y if element.get("dominant-baseline") == "central" else y - 4
        found.append(Box(text, left, middle - 6, left + width, middle + 6))
    return found


def overlapping(root: Element) -> list[tuple[str, str]]:
    """Texts that lie over each other."""
    return [(one.text, other.text) for one, other in combinations(boxes(root), 2) if one.meets(other)]
