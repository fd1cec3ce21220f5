"""Pages of plain text: tables of numbers, and paragraphs that hang beside a label.

This is the little that the reports need of a table library. Importing rich and drawing the same page with it takes
21 ms, more than reading the configuration and estimating it take together.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import NamedTuple

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

_GAP = "   "
_NARROWEST = 24  # a paragraph beside a long label keeps at least this many columns


class Row(NamedTuple):
    """One row of a table: its cells, a style for all of them, and whether a rule is drawn above it."""

    cells: Sequence[str]
    style: str = ""
    rule: bool = False


class Page:
    """Lines of text, in ASCII but for a user's names. `width` is for paragraphs: a table is as wide as its numbers."""

    def __init__(self, width: int, colour: bool) -> None:
        self.width = width
        self.colour = colour
        self.lines: list[str] = []

    def text(self) -> str:
        """The page so far, without blanks at the ends of lines: they would only trouble those who compare texts."""
        return "\n".join(line.rstrip() for line in self.lines) + "\n"

    def styled(self, text: str, style: str) -> str:
        """`text` in a style such as `bold` or `bold red`, where the page has colour."""
        if not self.colour or not style or not text:
            return text
        return f"\x1b[{';'.join(_CODES[word] for word in style.split())}m{text}\x1b[0m"

    def skip(self) -> None:
        """An empty line."""
        self.lines.append("")

    def title(self, text: str) -> None:
        """A line in bold, an empty one above it."""
        self.skip()
        self.paragraph("", text, "bold")

    def paragraph(self, label: str, text: str, style: str = "", label_style: str = "bold") -> None:
        """`text`, wrapped, beside `label`."""
        wrapped = wrap(text, max(self.width - len(label), _NARROWEST), break_on_hyphens=False) or [""]
        self.lines.append(self.styled(label, label_style) + self.styled(wrapped[0], style))
        self.lines += [" " * len(label) + self.styled(line, style) for line in wrapped[1:]]

    def table(self, header: Sequence[str], rows: Sequence[Row], highlight: int | None = None) -> None:
        """Names in the first column, numbers on the right of all others; the column `highlight` in colour.

        A header may have several lines; they stand on the rule.
        """
        heads = [head.split("\n") for head in header]
        height = max(map(len, heads))
        heads = [[""] * (height - len(head)) + head for head in heads]
        widths = [max(map(len, [*head, *(row.cells[number] for row in rows)])) for number, head in enumerate(heads)]
        rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))

        def draw(cells: Sequence[str], style: str) -> None:
            drawn = [self.styled(cells[0].ljust(widths[0]), style)]
            for number, cell in enumerate(cells[1:], start=1):
                colour = f"{style} cyan".strip() if number == highlight else style
                drawn.append(_GAP + " " * (widths[number] - len(cell)) + self.styled(cell, colour))
            self.lines.append("".join(drawn))

        for line in zip(*heads, strict=True):
            draw(line, "bold")
        self.lines.append(rule)
        for row in rows:
            if row.rule:
                self.lines.append(rule)
            draw(row.cells, row.style)
