"""A message of running out of memory, explained: as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.report.layout import Page, Row
from memplan.report.oom.found import show_found

if TYPE_CHECKING:
    from memplan.oom.explain import Explanation
    from memplan.oom.message import Message, Report

FIGURES = {
    "asked": "asked for",
    "capacity": "the card has",
    "free": "free",
    "this_process": "this process, all in all",
    "allocated": "allocated by PyTorch",
    "private_pools": "of it in private pools",
    "unallocated": "reserved and unallocated",
    "reserved": "reserved by PyTorch",
    "limit": "the process may have",
    "other_allocations": "other allocations",
}
"""Figures of a message, in the order in which they are shown."""

_WIDTHS = {4: "fp32", 2: "bf16 or fp16"}
_SPEAKERS = {
    "async": "CUDA's asynchronous allocator",
    "cpu": "the CPU's allocator",
    "nvml": "PyTorch's message of running out of memory, which failed itself",
}


def render_oom(explanation: Explanation, *, width: int = 80, colour: bool = False, top: int = 5) -> str:
    """The report: the figures, their reading, and with a model the tensor, what was alive and what would fit."""
    page = Page(width, colour)
    report = explanation.report
    page.paragraph("", _title(report.message), "bold")
    page.paragraph("", _whence(report))
    page.skip()
    _figures(page, report.message)
    for cause in explanation.reading:
        page.paragraph("- ", cause.text)
    page.skip()
    _sizes(page, explanation)
    if report.message.suggestion:
        page.paragraph("advice:   ", f"the message suggests {report.message.suggestion}")
    for other in explanation.further:
        page.paragraph("also:     ", f"{other.process or 'another process'}: {_title(other.message)}, {_whence(other)}")
    if explanation.found is not None:
        show_found(page, explanation.found, report.message, top)
    return page.text()


def _title(message: Message) -> str:
    """`CUDA out of memory on GPU 0: 2.00 GiB asked for`."""
    where = f" on GPU {message.gpu}" if message.gpu is not None else ""
    what = f": {message.asked.text} asked for" if message.asked is not None else ""
    if message.kind in _SPEAKERS:
        return f"{_SPEAKERS[message.kind]}{where}{what or ': out of memory'}"
    if message.library:
        return f"{message.library}{where}"
    return f"{message.backend or 'PyTorch:'} out of memory{where}{what}"


def _whence(report: Report) -> str:
    of = f" of {report.process}" if report.process else ""
    if report.count == 1:
        return f"line {report.message.line:,}, the only message{of}"
    same = report.same - 1
    said = f", {same:,} with the same words" if same else ""
    return f"line {report.message.line:,}, the first of {report.count:,} messages{of}{said}"


def _figures(page: Page, message: Message) -> None:
    rows = []
    for name, title in FIGURES.items():
        size = getattr(message, name)
        if size is not None:
            rows.append(Row([title, size.text, f"{size.low:,}", f"{size.high:,}"]))
    for process in message.others:
        size = process.size
        cells = ["not known", "-", "-"] if size is None else [size.text, f"{size.low:,}", f"{size.high:,}"]
        rows.append(Row([f"process {process.number}", *cells]))
    if rows:
        page.table(["figure", "printed", "bytes, at least", "at most"], rows)
        page.skip()


def _sizes(page: Page, explanation: Explanation) -> None:
    for sizes in explanation.sizes:
        if sizes.low == sizes.high:
            page.paragraph("size:     ", f"a tensor of {sizes.low:,} bytes")
        else:
            page.paragraph("size:     ", f"a tensor of {sizes.low:,} to {sizes.high:,} bytes")
        if sizes.shared:
            continue
        elements = []
        for element, name in _WIDTHS.items():
            count = sizes.elements(element)
            if count is not None:
                number = f"{count[0]:,}" if count[0] == count[1] else f"{count[0]:,} to {count[1]:,}"
                elements.append(f"{number} of {name}")
        page.paragraph("elements: ", "; ".join(elements))
