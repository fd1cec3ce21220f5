"""Stack frames of a snapshot: which line of whose code an allocation comes from.

PyTorch records the frames innermost first, Python's and, on request, C++'s
(torch/csrc/profiler/python/combined_traceback.cpp). Those of torch itself say how, not why: the innermost one outside
of it is what a reader looks for.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_TORCH = re.compile(r"(?:^|[/\\](?:(?:site|dist)-packages|pytorch)[/\\])(?:torch|functorch|torchgen)[/\\]")
_OPTIMIZER = re.compile(r"(?:^|[/\\])torch[/\\]optim[/\\]")
_STANDARD = re.compile(
    r"[/\\]lib(?:64)?[/\\]python3(?:\.\d+)?[/\\](?!(?:site|dist)-packages)|[/\\]Python3\d*[/\\]Lib[/\\](?!site-packages)"
)
_DEEPEST = 512
"""Frames of a stack that are looked at."""


class Frame(NamedTuple):
    """A line of code."""

    file: str
    line: int
    name: str

    @property
    def short(self) -> str:
        """`models/gpt.py:40 forward`: the end of the path."""
        parts = re.split(r"[/\\]", self.file)
        return f"{'/'.join(parts[-2:])}:{self.line} {self.name}"


class Origin(NamedTuple):
    """Where an allocation comes from: the innermost frame outside of torch, and the innermost one outside of any
    installed package where that is another."""

    frame: Frame
    caller: Frame | None


class Stacks:
    """The stacks of a snapshot, each looked at once."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[Frame, ...]] = {}
        self._origins: dict[tuple[Frame, ...], Origin | None] = {}

    def key(self, frames: Any) -> tuple[Frame, ...]:
        """The Python frames of a stack, innermost first; () where there are none."""
        if not isinstance(frames, list) or not frames:
            return ()
        known = self._keys.get(id(frames))
        if known is None:
            read = (_frame(entry) for entry in frames[:_DEEPEST])
            known = self._keys[id(frames)] = tuple(frame for frame in read if frame is not None)
        return known

    def origin(self, frames: Any) -> Origin | None:
        """Where the allocation with these frames comes from; None where no frame tells."""
        key = self.key(frames)
        if key not in self._origins:
            self._origins[key] = _origin(key)
        return self._origins[key]

    def phase(self, frames: Any) -> str:
        """The phase of a step where the stack leaves no doubt, else nothing: an optimizer's code, or the call that runs
        the backward pass."""
        for frame in self.key(frames):
            if _TORCH.search(frame.file):
                if frame.name == "_engine_run_backward":
                    return "backward"
                if frame.name == "step" and _OPTIMIZER.search(frame.file):
                    return "optimizer_step"
        return ""


def _frame(entry: Any) -> Frame | None:
    """A frame of Python's; None for C++ and for what is none."""
    if not isinstance(entry, dict):
        return None
    file, line, name = entry.get("filename"), entry.get("line"), entry.get("name")
    if not isinstance(file, str) or not isinstance(name, str) or not isinstance(line, int):
        return None
    return Frame(file, line, name) if file.endswith((".py", ".pyx")) or file.startswith("<") else None


def _origin(stack: tuple[Frame, ...]) -> Origin | None:
    outside = [frame for frame in stack if not _internal(frame.file)]
    if not outside:
        return None
    own = next((frame for frame in outside if not _INSTALLED.search(frame.file)), None)
    return Origin(outside[0], own if own != outside[0] else None)


def _internal(file: str) -> bool:
    """Whether code belongs to torch, to Python's own library, or is made as it runs."""
    if file.startswith("<"):
        return not file.startswith(("<ipython", "<stdin>", "<string>"))
    return bool(_TORCH.search(file) or _STANDARD.search(file))
