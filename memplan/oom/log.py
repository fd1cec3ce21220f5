"""A log read for messages of running out of memory: the first of every process, the others counted. Logs of any size
are read once, from front to back."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO

from memplan.errors import ConfigurationError
from memplan.oom.frames import Frames
from memplan.oom.lines import blocks, lines
from memplan.oom.message import Frame, Message, Report
from memplan.oom.parse import HEAD, MOST, SIGN, beginnings, parse

MOST_LINES = 24
"""Lines that one message can be broken into."""

NEAR = 1 << 15
"""Characters before and behind a sign of a message that are looked at line by line; the rest is passed over."""

MOST_PROCESSES = 256
"""Processes of one log that are told apart."""

# What loggers and launchers put before a line: torchrun, srun -l, vLLM, DeepSpeed, timestamps, levels, quotations.
_PREFIX = re.compile(
    r"^(?:\s*(?:\[[^\]]{1,60}\]:?|\((?=[^)]{0,60}(?:pid|rank))[^)]{1,60}\)"
    r"|\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?|\d\d-\d\d \d\d:\d\d:\d\d"
    r"|(?:DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b:?|\w{1,40}\.py:\d+\]?|\d{1,4}:(?=\s)|E(?=\s{2,})|[>#|])\s?)+"
)
_RANK = re.compile(r"(?:^|[\[( ])(?:rank|RANK|default|local_rank)[ =:]?(\d{1,6})\b|^(\d{1,4}):\s")
_PID = re.compile(r"\b(?:pid|PID)[=: ](\d{1,10})\b")


@dataclass(slots=True)
class _Open:
    """A message whose end has not been seen."""

    line: int
    process: str
    parts: list[str]
    frames: tuple[Frame, ...]

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class _Reader:
    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}
        self.open: dict[str, _Open] = {}
        self.frames: dict[str, Frames] = {}
        self.before: dict[str, str] = {}  # the end of the line before, of each process
        self.known: dict[str, Message] = {}  # messages by their lines: many repeat each other

    def read(self, number: int, raw: str) -> None:
        process, line = _split(raw)
        before = self.before.get(process, "")
        starts = beginnings(line) if SIGN.search(line) is not None else []
        broken = None
        if not starts and before and process not in self.open:
            joined = before + line.lstrip()
            match = HEAD.search(joined) if SIGN.search(joined) is not None else None
            if match is not None and match.end() > len(before):
                broken = joined[match.start() :]
        open_one = self.open.get(process)
        if open_one is not None:
            head = line[: starts[0].start()] if starts else line
            if not starts or head.strip():
                open_one.parts.append(head)
            if starts or len(open_one.parts) >= MOST_LINES or open_one.size > MOST or "Traceback (most" in line:
                self.close(process)
        for place, match in enumerate(starts):
            stop = starts[place + 1].start() if place + 1 < len(starts) else len(line)
            self.start(number, process, line[match.start() : stop])
            if place + 1 < len(starts):
                self.close(process)
        if broken is not None:
            self.start(number - 1, process, broken)
        if not starts:
            self.note(process, line)
        if process in self.before or len(self.before) < MOST_PROCESSES:
            self.before[process] = line[-60:].rstrip()

    def pass_over(self, raw: str) -> None:
        """A line in which no message begins: its frame may lead to one."""
        self.note(*_split(raw))

    def note(self, process: str, line: str) -> None:
        frames = self.frames.get(process)
        if frames is None and len(self.frames) < MOST_PROCESSES:
            frames = self.frames[process] = Frames()
        if frames is not None:
            frames.read(line)

    def forget(self) -> None:
        """Lines are left out: what was before them does not go on."""
        self.frames.clear()
        self.before.clear()

    def finish(self) -> None:
        """The messages so far are whole."""
        for process in list(self.open):
            self.close(process)

    def start(self, number: int, process: str, text: str) -> None:
        frames = self.frames.get(process)
        self.open[process] = _Open(number, process, [text], frames.so_far() if frames is not None else ())

    def close(self, process: str) -> None:
        found = self.open.pop(process)
        text = "\n".join(part.strip() for part in found.parts)
        message = self.known.get(text)
        if message is None:
            message = _parsed(found)
        if message is None:
            return
        if len(self.known) < MOST_PROCESSES:
            self.known[text] = message
        name = process or (f"GPU {message.gpu}" if message.gpu is not None else "")
        first = self.reports.get(name)
        if first is None:
            if len(self.reports) < MOST_PROCESSES:
                self.reports[name] = Report(replace(message, line=found.line), name, 1, 1, found.frames)
        elif first.message.kind == "bare" and message.kind != "bare":
            self.reports[name] = Report(replace(message, line=found.line), name, first.count + 1, 1, found.frames)
        else:
            same = first.same + (message.text == first.message.text)
            self.reports[name] = replace(first, count=first.count + 1, same=same)


def _parsed(found: _Open) -> Message | None:
    """The message of the lines, joined in the way that gives more figures: at words, or where a terminal broke them."""
    ways = [parse(glue.join(part.strip() for part in found.parts), found.line) for glue in ("\n", "")]
    return max((way for way in ways if way is not None), key=_said, default=None)


def _said(message: Message) -> int:
    figures = (
        message.asked, message.capacity, message.free, message.this_process, message.allocated, message.private_pools,
        message.unallocated, message.reserved, message.limit, message.other_allocations,
    )  # fmt: skip
    return sum(figure is not None for figure in figures) + len(message.others) + bool(message.suggestion)


def _split(raw: str) -> tuple[str, str]:
    """Which process a line says it is of, and the line without what loggers put before it."""
    match = _PREFIX.match(raw)
    if match is None:
        return "", raw
    prefix, line = match[0], raw[match.end() :]
    if not prefix.strip():
        return "", raw
    rank, pid = _RANK.search(prefix), _PID.search(prefix)
    words = [f"rank {rank[1] or rank[2]}"] if rank is not None else []
    words += [f"pid {pid[1]}"] if pid is not None else []
    indent = prefix[len(prefix.rstrip()) :]
    return ", ".join(words), indent + line


def read_log(stream: BinaryIO) -> tuple[Report, ...]:
    """The first message of every process, in the order of the log; those without figures come last.

    Raises ConfigurationError where there is no message.
    """
    reader = _Reader()
    count = 0
    before = ""  # what was passed over last
    for number, text in blocks(stream):
        count = number + text.count("\n") - text.endswith("\n")
        signs = [match.start() for match in SIGN.finditer(text)]
        if not signs and not reader.open:
            before = (before + text)[-NEAR:]
            continue
        start = text.rfind("\n", 0, max(signs[0] - NEAR, 0)) + 1 if signs and not reader.open else 0
        stop = text.find("\n", (signs[-1] if signs else 0) + NEAR) + 1 or len(text)
        if start == 0:
            for _, line in lines(number, before):
                reader.pass_over(line)
        else:
            reader.forget()
        for place, line in lines(number + text.count("\n", 0, start), text[start:stop].removesuffix("\n")):
            reader.read(place, line)
        if stop < len(text):
            reader.finish()
        before = text[max(stop, len(text) - NEAR) :]
    reader.finish()
    if not reader.reports:
        if count == 0:
            raise ConfigurationError("there is nothing to read: the input is empty", _HINT)
        what = "1 line" if count == 1 else f"{count:,} lines"
        raise ConfigurationError(f"no message of running out of memory in {what}", _HINT)
    return tuple(sorted(reader.reports.values(), key=lambda each: (each.message.kind == "bare", each.message.line)))


_HINT = 'PyTorch says "CUDA out of memory. Tried to allocate ...": give the log that has this line, or paste it'


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The log of that name for reading; `-` is standard input. Raises ConfigurationError where it cannot be read."""
    if name == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigurationError("no log to read", "name a file, or pipe the log in: `memplan oom - < train.log`")
        yield getattr(sys.stdin, "buffer", None) or BytesIO(sys.stdin.read().encode(errors="replace"))
        return
    try:
        stream = open(name, "rb")  # noqa: SIM115 - closed below, outside of what catches errors of opening
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{name[:200]!a} cannot be read: {_reason(error)}") from None
    with stream:
        try:
            yield stream
        except OSError as error:
            raise ConfigurationError(f"{name[:200]!a} cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
