"""What a search in a run as configured has found for a message: as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.ledger import INITIAL
from memplan.report.check.words import settings_in_words
from memplan.report.layout import Page, Row
from memplan.report.terminal import show_lines
from memplan.report.words import exact, run_in_words, spaced
from memplan.units import human

if TYPE_CHECKING:
    from memplan.oom.candidates import Candidate
    from memplan.oom.changes import Change, Changes
    from memplan.oom.explain import Found
    from memplan.oom.message import Message
    from memplan.oom.nearby import Alternative


def show_found(page: Page, found: Found, message: Message, top: int) -> None:
    """The tensor, what was alive then, and what would fit."""
    search = found.search
    page.skip()
    page.paragraph("", f"{search.model.name}: {run_in_words(search.model, search.run, search.device)}", "bold")
    if found.guessed:
        device = search.device
        page.paragraph(
            "card:     ",
            f"taken to be {device.name} by its {human(device.capacity_bytes)} (compute capability "
            f"{device.compute_capability}); --device names another",
        )
    release = ".".join(map(str, search.torch))
    page.paragraph("rules:    ", f"of PyTorch {release}; --torch names another release")
    if found.supposed:
        page.paragraph("settings: ", f"with {found.supposed}, which was not given, every figure agrees")
    page.title("The tensor that was asked for" if message.asked is not None else "Where it is predicted to run out")
    _verdict(page, found, message)
    for number, candidate in enumerate(search.candidates[: _shown(found)], start=1):
        page.skip()
        _candidate(page, candidate, message, number if _shown(found) > 1 else 0)
    if found.because:
        page.skip()
        page.paragraph("traceback: ", found.because[0], "dim")
    _nearby(page, found)
    if search.alive is not None:
        _alive(page, found, top)
    _changes(page, found.changes, message)


def _shown(found: Found) -> int:
    """How many candidates are worth showing."""
    most = {"one": 1, "several": min(found.search.consistent, 5), "other_moment": 3, "predicted": 1}
    return most.get(found.search.verdict, 0)


def _verdict(page: Page, found: Found, message: Message) -> None:
    search = found.search
    verdict = search.verdict
    style = "bold green"
    if search.exact and verdict == "one":
        said = (
            "found: replayed as given, with the memory that the message tells of, the run fails here, with every figure"
        )
    elif search.exact:
        said = (
            "found, but for few: replayed as given, with the memory that the message tells of, the run fails at one of "
            "these, with every figure; the likeliest first"
        )
    elif verdict in ("one", "several") and search.best is not None and search.best.besides is not None:
        style = "bold yellow"
        said = "likely, if the process holds more than this run needs: a second model, an average of weights, buckets"
        if verdict == "several":
            said += f"; {_tensors(search.consistent)} fit then, the likeliest first"
    elif verdict == "one":
        said = f"likely: of {_tensors(search.sized)} of this size the only one at a moment like the message's"
    elif verdict == "several":
        style = "bold yellow"
        said = f"{_tensors(search.consistent)} of this size fit the message; the likeliest first"
    elif verdict == "other_moment":
        style = "bold yellow"
        said = f"{_tensors(search.sized)} of this run have this size, but none when so much was allocated"
    elif verdict == "no_such_size":
        style = "bold red"
        said = "this run, as given, asks for no tensor of this size"
    elif verdict == "predicted":
        said = "the message names no size; replayed on this card, the run fails here"
    else:
        style = "bold yellow"
        said = "the message names no size, and replayed on this card the run does not run out of memory"
    page.paragraph("", said, style)
    if search.room is not None and search.expected is None and verdict != "none":
        page.paragraph(
            "",
            f"{_room(search.room, message)} the run is predicted to go through: it reserves {human(search.peak)}. What "
            "really ran took more",
        )
    elif not search.exact and search.expected is not None and verdict not in ("predicted", "one"):
        failure = search.expected
        page.paragraph(
            "",
            f"{_room(search.room or 0, message)} the run as given is predicted to fail in "
            f"{_phase(failure.phase)}, at another tensor, of {human(failure.size)}",
        )


def _room(size: int, message: Message) -> str:
    """What there was for PyTorch: known where the message says what was free, else a card's less a context."""
    if message.free is not None and message.held is not None:
        return f"with the {human(size)} that there were for PyTorch"
    return f"with the {human(size)} or so that there can have been for PyTorch"


def _phase(name: str) -> str:
    return "loading the model" if name == INITIAL else spaced(name)


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count:,} tensors"


def _candidate(page: Page, candidate: Candidate, message: Message, number: int) -> None:
    line = candidate.line
    label = f"{number}  " if number else ""
    blank = " " * len(label)
    shape = ", ".join(f"{int(size):,}" for size in candidate.tensor.allocation.shape)
    page.paragraph(
        f"{label}{human(line.size)}  ",
        f"{line.module or 'the model itself'} ({line.operation})",
        "bold",
        label_style="",
    )
    page.paragraph(f"{blank}tensor:   ", f"[{shape}] {candidate.tensor.allocation.dtype}, {line.size:,} bytes")
    page.paragraph(f"{blank}        = ", line.formula, "cyan", label_style="")
    page.paragraph(f"{blank}when:     ", when_in_words(candidate))
    page.paragraph(f"{blank}is:       ", f"{spaced(line.component)}, {line.reason}")
    page.paragraph(f"{blank}evidence: ", "; ".join(evidence_in_words(candidate, message)))


def when_in_words(candidate: Candidate) -> str:
    """In which phase of which step."""
    if candidate.step == "loading":
        return "when the model is put on the device"
    if candidate.failure is not None and candidate.failure.step > 1:
        step = f"step {candidate.failure.step}"
    else:
        step = "the first step" if candidate.step == "first" else "the second step or a later one"
    return f"{spaced(candidate.phase)} of {step}"


def evidence_in_words(candidate: Candidate, message: Message) -> list[str]:
    """What speaks for a candidate, and what against it."""
    said = []
    if candidate.replayed:
        said.append("the replay fails here with every figure")
    elif candidate.besides is not None:
        more = "more" if candidate.besides >= 0 else "less"
        said.append(
            f"the replay fails here if about {human(abs(candidate.besides))} {more} are held than this run needs"
        )
    elif candidate.met:
        said.append("the replay fails here, with other figures" if message.asked else "the replay fails here")
    if candidate.besides is None and message.allocated is not None and message.kind in ("caching", "async"):
        beside = "as" if not candidate.apart else f"{human(candidate.apart)} off what"
        said.append(f"{human(candidate.allocated)} are allocated by then, {beside} the message says")
    elif candidate.rises and candidate.besides is None:
        said.append("no moment before has so much allocated")
    if candidate.traceback:
        said.append("the traceback speaks for it" if candidate.traceback > 0 else "the traceback speaks against it")
    return said or ["its size alone"]


def _nearby(page: Page, found: Found) -> None:
    if found.nearest:
        page.title("The nearest sizes that it does ask for")
        for near in found.nearest:
            page.paragraph(
                f"{human(near.segment)}  ",
                f"{near.line.module or 'the model itself'} ({near.line.operation}), {near.line.size:,} bytes "
                f"= {near.line.formula}",
                label_style="",
            )
    if found.alternatives:
        page.title("Settings with which it would ask for such a tensor")
        for alternative in found.alternatives:
            page.paragraph("- ", f"{settings_in_words(alternative.changes)}: {_alternative(alternative)}")
        page.paragraph("  ", "Give these settings to see what was alive and what would fit.", "dim")


def _alternative(alternative: Alternative) -> str:
    line = alternative.candidate.line
    where = f"{line.module or 'the model itself'} ({line.operation}), {line.size:,} bytes"
    if alternative.exact:
        return f"{where}; the replay fails there with every figure of the message"
    if alternative.candidate.consistent:
        return f"{where}; as much is allocated by then as the message says"
    return where


def _alive(page: Page, found: Found, top: int) -> None:
    alive = found.search.alive
    assert alive is not None
    page.title("What is alive then" if found.search.consistent else "What is alive at the nearest of them")
    rows = [Row([spaced(name), human(size), f"{size:,}"]) for name, size in alive.components.items() if size]
    rows.append(Row(["sum", human(alive.allocated), f"{alive.allocated:,}"], style="bold", rule=True))
    page.table(["component", "size", "bytes"], rows)
    if alive.largest:
        page.title("The biggest tensors of it")
        show_lines(page, alive.largest[:top])


def _changes(page: Page, changes: Changes, message: Message) -> None:
    page.title("What would fit")
    if not changes.limit:
        page.paragraph("", "how much memory the machine has is not in the message, so nothing was tried")
        return
    verdict = "which fits" if changes.fits else f"{human(changes.upper - changes.limit)} too much"
    less = f", {human(changes.besides)} that are held besides taken off" if changes.besides else ""
    page.paragraph("room:     ", f"{exact(changes.limit)}{less}")
    page.paragraph("needs:    ", f"as it is, at most {exact(changes.upper)}: {verdict}")
    for number, change in enumerate(changes.found, start=1):
        page.paragraph(f"{number}  ", change_in_words(change), "bold" if number == 1 else "", label_style="")
    if not changes.found and not changes.fits:
        page.paragraph("", "nothing that was tried fits", "bold red")


def change_in_words(change: Change) -> str:
    """One change, and what the run needs then."""
    if change.kind == "others":
        return f"free what other processes hold of the card: it then fits as it is ({human(change.needs)})"
    if change.kind == "allocator":
        said = f"replayed with the same memory, it goes through ({human(change.needs)})"
        return f"PYTORCH_ALLOC_CONF={change.setting}: {said}"
    return f"{settings_in_words(change.changes)} (at most {human(change.needs)})"
