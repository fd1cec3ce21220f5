"""A snapshot explained: what was alive at the peak, what was fragmented, what is not in the plan, what to change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memplan.explain import changes as ways
from memplan.explain.beside import Beside, Room, lay_beside, room_of
from memplan.explain.changes import Change, Replayed, replay_trace
from memplan.explain.frames import Stacks
from memplan.explain.grouping import Group, by_origin, by_size
from memplan.explain.opened import open_snapshot
from memplan.explain.phases import phase_at_peak
from memplan.explain.recording import devices_of, record_of
from memplan.explain.rules import settings_of, text_of
from memplan.explain.story import Story
from memplan.ops.backend import CURRENT
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of one device of a snapshot."""

    history: bool  # of memplan's own
    device: int
    devices: Mapping[int, tuple[int, int]]
    story: Story
    stacks: Stacks
    phase: str
    phase_basis: str
    by_origin: tuple[Group, ...]
    by_size: tuple[Group, ...]
    replayed: Replayed | None
    beside: Beside | None
    changes: tuple[Change, ...]
    fit: Room | None
    notes: tuple[str, ...]


def explain(
    file: str | os.PathLike[str],
    request: tuple[Model, Run, Device] | None = None,
    torch: tuple[int, int] = CURRENT,
    allocator_settings: str | None = None,
    device_index: int | None = None,
) -> Explanation:
    """Explain the snapshot in `file`; beside the plan of a `request` where there is one.

    `allocator_settings` is PYTORCH_ALLOC_CONF of the run, where the snapshot does not say it. Raises MeasurementError
    for a file that is no snapshot or is damaged, ConfigurationError for a device that is not in it or a contradictory
    request, and NotModelledError for a plan that has no rule.
    """
    snapshot, history = open_snapshot(file)
    return explained(snapshot, history, request, torch, allocator_settings, device_index)


def explained(
    snapshot: dict[str, Any],
    history: bool = False,
    request: tuple[Model, Run, Device] | None = None,
    torch: tuple[int, int] = CURRENT,
    allocator_settings: str | None = None,
    device_index: int | None = None,
) -> Explanation:
    """The same for a snapshot that has been read (memplan/explain/opened.py)."""
    recording = record_of(snapshot, device_index)
    story = Story(recording, settings_of(recording, allocator_settings, torch))
    stacks = Stacks()
    alive = story.alive(story.peak.event)
    phase, basis = phase_at_peak(story, stacks)
    replayed = replay_trace(story)
    found: list[Change] = list(ways.of_allocator(replayed)) if replayed is not None else []
    beside: Beside | None = None
    fit: Room | None = None
    if request is not None:
        shared, text = Shared(), text_of(recording, allocator_settings, torch)
        beside = lay_beside(story, stacks, request, torch, text, shared)
        if not phase and beside.names.phase:
            phase, basis = beside.names.phase, "the plan"
        if beside.goes_with:  # of another run it would say nothing
            found += ways.of_code(beside.kept_by_code, beside.unplanned_by_code, story.peak.allocated)
            found += ways.of_settings(beside.estimate, torch, text, shared)
        fit = room_of(beside.estimate, story, shared, plain=torch == CURRENT and not text)
    return Explanation(
        history=history,
        device=recording.device,
        devices=devices_of(snapshot),
        story=story,
        stacks=stacks,
        phase=phase,
        phase_basis=basis,
        by_origin=by_origin(alive, stacks),
        by_size=by_size(alive, stacks),
        replayed=replayed,
        beside=beside,
        changes=tuple(sorted(found, key=lambda change: -change.saves)),
        fit=fit,
        notes=tuple(_notes(story, devices_of(snapshot))),
    )


def _notes(story: Story, devices: Mapping[int, tuple[int, int]]) -> list[str]:
    """What a reader has to know of the recording itself."""
    recording, notes = story.recording, []
    if len(devices) > 1:
        others = ", ".join(str(number) for number in devices if number != recording.device)
        notes.append(f"device {recording.device} is explained; the snapshot has device {others} too (--device-index)")
    if not story.births:
        notes.append(
            "no allocation is recorded: the peak is the state when the snapshot was taken. "
            "torch.cuda.memory._record_memory_history() before the run keeps its trace"
        )
    elif story.before:
        why = (
            "older entries were dropped (max_entries)"
            if story.beginning.cut
            else "recording began later, or older entries were dropped (max_entries)"
        )
        notes.append(
            f"when the trace begins, {len(story.before):,} blocks are in use: {why}; an earlier peak is not seen"
        )
    if story.strange or story.differing:
        notes.append(
            f"the trace and the segments do not go together: {story.strange:,} events contradict each other, and "
            f"{story.differing:,} bytes of blocks are not where the trace has them; sizes are near, not exact"
        )
    if story.repaired:
        notes.append(f"{story.repaired:,} blocks from before the trace were found to be larger than their request")
    if recording.unknown:
        words = ", ".join(f"{count:,} x {action}" for action, count in recording.unknown.items())
        notes.append(f"passed over, for this memplan does not know what they do: {words}")
    if not any(life.frames for life in story.lives):
        notes.append(
            'no frames were recorded: _record_memory_history(context="all", stacks="python") tells lines of code'
        )
    return notes
