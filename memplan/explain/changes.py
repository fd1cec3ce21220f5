"""What would need less: each change is tried before it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from memplan.allocator import CachingAllocator, OutOfMemory, Settings
from memplan.allocator.blocks import Block
from memplan.allocator.trace import RELEASES
from memplan.check.remedy import SWITCHES
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.estimate import Estimate, LedgerLine, estimate
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.runs import Run
    from memplan.explain.grouping import Group
    from memplan.explain.story import Place, Story

LEAST = 100
"""A change that saves less than one part in so many is none."""

EXPANDABLE = "PYTORCH_ALLOC_CONF=expandable_segments:True"


@dataclass(frozen=True, slots=True)
class Change:
    """What to change, and the bytes of a tier before and after it. `basis` says how that was found out."""

    kind: Literal["allocator", "setting", "code"]
    what: str
    tier: Literal["reserved", "allocated"]
    before: int
    after: int
    basis: str

    @property
    def saves(self) -> int:
        """Bytes less."""
        return self.before - self.after


@dataclass(frozen=True, slots=True)
class Replayed:
    """The most bytes reserved when the trace is replayed: with the settings it ran with, and with expandable segments.
    `expandable` is None where it ran with those."""

    recorded: int
    same: int
    expandable: int | None


def replay_trace(story: Story) -> Replayed | None:
    """Replay the trace's own allocations and frees; None where there are none, or more than any card has. What was in
    use before the trace comes first, by address."""
    if not story.births:
        return None
    values = {name: getattr(story.settings, name) for name in Settings.__slots__}
    try:
        same = _most_reserved(story, story.settings)
        if story.settings.expandable_segments:
            return Replayed(story.peak_reserved, same, None)
        expandable = _most_reserved(story, Settings(**{**values, "expandable_segments": True}))
    except OutOfMemory:
        return None
    return Replayed(story.peak_reserved, same, expandable)


def _most_reserved(story: Story, settings: Settings) -> int:
    cache = CachingAllocator(settings)
    places: dict[Place, int] = {}  # pools do not share segments: to the simulation they are streams
    blocks: dict[int, Block] = {}

    def allocate(address: int, size: int, place: Place) -> None:
        blocks[address] = cache.allocate(max(size, 1), places.setdefault(place, len(places)))

    for life in story.before:
        allocate(life.address, life.requested, (life.pool, life.stream))
    releasing = False
    for event in story.recording.events:
        action = event.action
        if action in RELEASES:
            if not releasing:  # the program emptied the cache, or an allocation did to get what it needs
                cache.empty_cache()
            releasing = True
            continue
        releasing = False
        if action == "alloc":
            if event.address not in blocks:
                allocate(event.address, event.size, (event.pool, event.stream))
        elif action == "free_requested":
            block = blocks.get(event.address)
            if block is not None and block not in cache.pending:
                cache.defer_free(block)
        elif action == "free_completed":
            block = blocks.pop(event.address, None)
            if block is not None and block in cache.pending:
                cache.finish_free(block)
            elif block is not None and not block.free:
                cache.free(block)
    return cache.peak_reserved


def of_allocator(replayed: Replayed) -> Iterator[Change]:
    """Expandable segments, where they save anything and the replay can be trusted: with the run's own settings it gives
    what was recorded."""
    after = replayed.expandable
    if after is not None and replayed.same == replayed.recorded and _worth(replayed.recorded, after):
        basis = "the trace replayed with that setting; with its own the replay gives the recorded bytes"
        yield Change("allocator", EXPANDABLE, "reserved", replayed.recorded, after, basis)


def of_code(kept: Sequence[Group], unplanned: Sequence[Group], allocated: int) -> Iterator[Change]:
    """What the plan does not have at the peak, by the line of code that made it."""
    for groups, words in ((kept, "free sooner what {} makes"), (unplanned, "do without what {} makes")):
        for group in groups:
            if group.origin is not None and _worth(allocated, allocated - group.size):
                what = words.format(group.origin.frame.short)
                yield Change(
                    "code", what, "allocated", allocated, allocated - group.size, "its bytes alive at the peak"
                )


def of_settings(found: Estimate, torch: tuple[int, int], settings: str, shared: Shared) -> Iterator[Change]:
    """Switches that cost no accuracy (memplan/check/remedy.py), each estimated."""
    for switch in SWITCHES:
        changed = _estimated(found, switch, torch, settings, shared)
        if changed is None:
            continue
        tier: Literal["reserved", "allocated"] = "allocated" if found.tiers.reserved_bytes is None else "reserved"
        before, after = (
            each.tiers.reserved_bytes if tier == "reserved" else each.tiers.allocated_bytes for each in (found, changed)
        )
        assert before is not None and after is not None
        if _worth(before, after):
            (name, _), *_ = switch.items()
            what = f"--{name.replace('_', '-')} {getattr(changed.run, name)}"
            yield Change("setting", what, tier, before, after, f"estimated{_gone(found, changed)}")


def _estimated(
    found: Estimate, switch: dict[str, Any], torch: tuple[int, int], settings: str, shared: Shared
) -> Estimate | None:
    """The estimate with a switch; None where it changes nothing or cannot be had."""
    run: Run = found.run
    if any(name not in type(run).__slots__ for name in switch):
        return None
    try:
        changed = validate_run(found.model, replace(run, **switch), found.device)
        if changed == run:
            return None
        return estimate(found.model, changed, found.device, torch, settings, shared=shared)
    except MemplanError:
        return None


def _gone(before: Estimate, after: Estimate) -> str:
    """The largest tensor at the peak that is no longer there."""

    def key(line: LedgerLine) -> tuple[str, str, int]:
        return (line.module, line.operation, line.size)

    left = {key(line) for line in after.largest}
    gone = next((line for line in before.largest if key(line) not in left), None)
    return f"; gone from the peak: {gone.module or 'the model'} ({gone.operation})" if gone is not None else ""


def _worth(before: int, after: int) -> bool:
    return before - after > before // LEAST
