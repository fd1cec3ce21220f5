"""A message explained: what it says, what that means, and in a run as configured which tensor it was about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan.errors import ConfigurationError
from memplan.oom.asking import Sizes, tensor_sizes
from memplan.oom.causes import Cause, causes
from memplan.oom.message import Report
from memplan.oom.shares import held_by_others, is_this_process
from memplan.ops.backend import CURRENT

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.oom.changes import Changes
    from memplan.oom.nearby import Alternative, Near
    from memplan.oom.search import Search


@dataclass(frozen=True, slots=True)
class Found:
    """The search, and what else it comes to. `guessed` says that the card was taken by the message's capacity,
    `because` are the lines of the traceback that were used."""

    search: Search
    guessed: bool
    because: tuple[str, ...]
    nearest: tuple[Near, ...]
    alternatives: tuple[Alternative, ...]
    changes: Changes
    supposed: str = ""  # a setting of the allocator with which every figure agrees, though it was not given


@dataclass(frozen=True, slots=True)
class Explanation:
    """A message and what is made of it. `sizes` are those that the tensor can have, `reading` what the figures tell,
    `others_bytes` what other processes held of the card; `found` is None without a model."""

    report: Report
    further: tuple[Report, ...]  # of other processes in the same log
    sizes: tuple[Sizes, ...]
    reading: tuple[Cause, ...]
    others_bytes: int
    in_container: bool
    found: Found | None = None


def read(reports: tuple[Report, ...]) -> Explanation:
    """What the first message says by itself. Raises ConfigurationError where there is none."""
    if not reports:
        raise ConfigurationError("there is no message to explain")
    first = reports[0]
    return Explanation(
        report=first,
        further=reports[1:],
        sizes=tensor_sizes(first.message),
        reading=causes(first.message),
        others_bytes=held_by_others(first.message),
        in_container=is_this_process(first.message),
    )


def explain(
    reports: tuple[Report, ...],
    model: Model,
    run: Run,
    device: Device | None = None,
    torch: tuple[int, int] = CURRENT,
    allocator_settings: str = "",
) -> Explanation:
    """The same, and which tensor of a run the first message is about, what was alive, and what would fit. Without a
    `device`, cards of the message's capacity are tried; without `allocator_settings`, expandable segments as well.

    Raises ConfigurationError for a request that contradicts itself or the message, and NotModelledError for what has no
    rule.
    """
    from dataclasses import replace

    from memplan.oom.cards import devices_for
    from memplan.oom.changes import EXPANDABLE, changes_for
    from memplan.oom.hints import hints_of
    from memplan.oom.nearby import alternatives, nearest
    from memplan.oom.search import search
    from memplan.sharing import Shared

    explanation = read(reports)
    message = explanation.report.message
    hints = hints_of(explanation.report.frames)
    devices = devices_for(message, device)
    shared = Shared()
    best: Search | None = None
    supposed = ""
    tries = [allocator_settings]
    if message.asked is None or message.allocated is None:
        devices = devices[:1]  # no figure could tell one from another
    elif not allocator_settings and message.kind == "caching":
        tries.append(EXPANDABLE)
    for settings in tries:
        for each in devices:
            found = search(message, hints, model, run, each, torch, settings, shared)
            if best is None or found.exact:
                best, supposed = found, settings if settings != allocator_settings else ""
            if found.exact:
                break
        if best is not None and best.exact:
            break
    assert best is not None
    lost = message.asked is not None and best.verdict in ("no_such_size", "other_moment")
    others = alternatives(message, hints, best, shared) if lost else ()
    if best.verdict == "other_moment" and not any(other.exact for other in others):
        best = search(message, hints, model, run, best.device, torch, best.allocator_settings, shared, besides=True)
        others = () if best.consistent else others
    return replace(
        explanation,
        found=Found(
            search=best,
            guessed=device is None and best.device.backend != "cpu",
            because=hints.because,
            nearest=nearest(message, best, shared) if best.verdict == "no_such_size" else (),
            alternatives=others,
            changes=changes_for(message, best, shared),
            supposed=supposed,
        ),
    )
