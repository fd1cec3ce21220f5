"""A log of any size and encoding in blocks of whole lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 1 << 20
"""Bytes that are read at once."""

LONGEST = 1 << 15
"""Characters of one line; a longer one is looked at in pieces, with the same number."""

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def blocks(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The text, some lines at a time, with the number of the first of them; the first of all is 1. What is no text
    becomes replacement characters. A line that does not end within a chunk is cut.

    UTF-16 is known by its mark: Windows PowerShell writes it.
    """
    chunk = stream.read(CHUNK)
    encoding = "utf-8"
    for mark, name in _MARKS:
        if chunk.startswith(mark):
            chunk, encoding = chunk[len(mark) :], name
            break
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    number, rest = 1, ""
    while chunk:
        text = rest + decoder.decode(chunk)
        stop = text.rfind("\n") + 1 or (len(text) if len(text) > LONGEST else 0)
        text, rest = text[:stop], text[stop:]
        if text:
            yield number, text
            number += text.count("\n")
        chunk = stream.read(CHUNK)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield number, rest


def lines(number: int, text: str) -> Iterator[tuple[int, str]]:
    """The lines of a block with their numbers. A carriage return ends a line as well, as progress bars use it, without
    a number of its own."""
    for line in text.split("\n"):
        if "\r" not in line and len(line) <= LONGEST:
            yield number, line
        else:
            for part in line.rstrip("\r").split("\r"):
                for start in range(0, max(len(part), 1), LONGEST):
                    yield number, part[start : start + LONGEST]
        number += 1
