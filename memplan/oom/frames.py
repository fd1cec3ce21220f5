"""Tracebacks: the frames that led to a message, as Python and IPython print them."""

from __future__ import annotations

import re
from collections import deque

from memplan.oom.message import Frame

MOST = 64
"""Frames that are kept of one process, the innermost ones."""

_PYTHON = re.compile(r'^\s*File "([^"]{1,400})", line (\d{1,9})(?:, in (\S+))?')
_IPYTHON = re.compile(r"^(?:File\s+)?([~/.\w<>\\:-]{2,400}?)(?::(\d{1,9}))?,? in ([\w.<>]+)\(")
_ARROW = re.compile(r"^-{1,6}>\s*(\d{1,9})\s(.*)")
_NUMBERED = re.compile(r"\s*\d+\s")
_BEGINS = "Traceback (most recent call last)"
_MARKS = frozenset("^~ ")


class Frames:
    """The frames of one process so far, of its newest traceback."""

    def __init__(self) -> None:
        self._found: deque[Frame] = deque(maxlen=MOST)
        self._wants_code = False

    def read(self, line: str) -> None:
        """Look at one line of the log, without its prefix."""
        if _BEGINS in line:
            self._found.clear()
            self._wants_code = False
            return
        frame = _frame(line)
        if frame is not None:
            self._found.append(frame)
            self._wants_code = True
        elif self._wants_code and self._found:
            arrow = _ARROW.match(line)
            last = self._found[-1]
            if arrow is not None:
                self._found[-1] = Frame(last.file, int(arrow[1]), last.function, arrow[2].strip()[:200])
                self._wants_code = False
            elif _is_code(line):
                self._found[-1] = Frame(last.file, last.line, last.function, line.strip()[:200])
                self._wants_code = False

    def so_far(self) -> tuple[Frame, ...]:
        """The frames, the outermost first."""
        return tuple(self._found)


def _is_code(line: str) -> bool:
    """Whether a line is one of a program, as Python shows it below its frame. IPython's lines have numbers."""
    text = line.strip()
    return line[:1] in (" ", "\t") and bool(text) and not _MARKS.issuperset(text) and not _NUMBERED.match(line)


def _frame(line: str) -> Frame | None:
    if " line " in line and (match := _PYTHON.match(line)):
        return Frame(match[1], int(match[2]), match[3] or "<module>")
    if " in " in line and line[:1] in "/~F<.C" and (match := _IPYTHON.match(line)):
        return Frame(match[1], int(match[2] or 0), match[3].rpartition(".")[2])
    return None
