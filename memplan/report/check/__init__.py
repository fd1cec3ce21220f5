"""Checks as text, JSON, Markdown, GitHub annotations, JUnit and SARIF: one file for each format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memplan.check.judge import Judged

FORMATS = ("text", "json", "markdown", "github", "junit", "sarif")


def render(form: str, path: str, judged: Sequence[Judged], *, width: int = 80, colour: bool = False) -> str:
    """The checks of the file `path` in one of FORMATS; `width` and `colour` are for text alone."""
    module = import_module(f"memplan.report.check.{form}")
    if form == "text":
        text: str = module.render(path, judged, width=width, colour=colour)
        return text
    draw: Callable[[str, Sequence[Judged]], str] = module.render
    return draw(path, judged)
