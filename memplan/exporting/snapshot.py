"""A placed timeline as a memory snapshot of PyTorch's, for its memory_viz viewer and its tools.

The format is that of torch.cuda.memory._dump_snapshot (torch/csrc/cuda/Module.cpp, THCPModule_memorySnapshot;
torch/cuda/memory.py, _snapshot): plain dictionaries, lists, texts and whole numbers. The viewer
(torch/utils/viz/MemoryViz.js) reads pickles of protocol 2 to 4, and holds numbers as JavaScript does, exact up to 2^53.
"""

from __future__ import annotations

import pickle
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from memplan.allocator import Settings
from memplan.estimate import line_of
from memplan.exporting.placed import PlacedTimeline
from memplan.exporting.segments import HeldSegment
from memplan.ledger import SKIPPED, Allocation
from memplan.timeline import Tensor

PROTOCOL = 4

DEVICE = STREAM = 0

UNKNOWN = "unknown"
"""The viewer gives this category to what it finds in no event, and fails where events have categories and none has this
one (annotate_snapshot)."""

Snapshot = dict[str, Any]
Entry = dict[str, Any]
Frames = list[dict[str, Any]]


def snapshot_bytes(placed: PlacedTimeline, requested: bool = False) -> bytes:
    """The file: the pickle of `snapshot_of`. The same timeline gives the same bytes."""
    return pickle.dumps(snapshot_of(placed, requested), protocol=PROTOCOL)


def snapshot_of(placed: PlacedTimeline, requested: bool = False) -> Snapshot:
    """The snapshot that PyTorch would dump behind the last event of the timeline, with its history.

    Sizes are what counts as allocated: the bytes asked for on the CPU, whole blocks on a card. So the viewer's active
    memory, its peak above all, is the predicted allocated memory. PyTorch's own snapshots have what was asked for
    instead, in which the same peak is lower by the rounding; with `requested` this one has that too, and can be laid
    beside a recorded one. memplan.allocator.snapshot.replay_snapshot needs all steps, which begin with an empty cache,
    and `requested` where the settings round sizes further.

    Every tensor has one frame, that reads `forward:0:decoder.layers.3.attention aten::softmax [1, 12, 64, 64] fp32
    (activations, saved for SoftmaxBackward0)`: the phase in which it is born, and its name. The category is
    its component, by which the viewer colours; what is there before the first event and outlives the last one has none
    there, and is shown as "unknown". Time is counted in events, one a microsecond; annotations are the phases.

    On a card segments are those of the simulated caching allocator, with the tensor that asked for one as its frame.
    The CPU has no such allocator: each tensor is a segment of its own while it lives, and reserved memory, as the tools
    show it, is allocated memory.
    """
    return _Writer(placed, requested).write()


class _Writer:
    """The work in progress."""

    def __init__(self, placed: PlacedTimeline, requested: bool) -> None:
        self.placed = placed
        self.tensors = placed.timeline.tensors
        self.sizes: Sequence[int] = [each.size for each in self.tensors] if requested else placed.blocks
        self.entries: list[Entry] = []
        self.known: dict[tuple[Allocation, str], Frames] = {}  # copies of a step of decode have equal names
        self.shared: dict[tuple[str, str], Frames] = {}
        self.reasons: dict[Allocation, str] = {}

    def write(self) -> Snapshot:
        alive = self.trace()
        segments = self.card_segments(alive) if self.placed.on_card else self.cpu_segments(alive)
        total = sum(self.sizes[number] for number in alive)
        self.entries.append(
            {
                "action": "snapshot",
                "addr": 0,
                "size": total,
                "stream": STREAM,
                "time_us": len(self.placed.timeline.events),
                "frames": [],
                "category": UNKNOWN,
            }
        )
        snapshot = {
            "segments": segments,
            "device_traces": [self.entries],
            "external_annotations": self.annotations(),
        }
        if self.placed.settings is not None:
            snapshot["allocator_settings"] = _settings(self.placed.settings)
        return snapshot

    # ---- what happened

    def trace(self) -> list[int]:
        """Write every event down; the numbers of the tensors that are alive behind the last one."""
        timeline, placed = self.placed.timeline, self.placed
        pending = list(reversed(placed.segments))
        alive = {number for number, tensor in enumerate(self.tensors) if tensor.born < 0}
        for place, event in enumerate(timeline.events):
            now = place + 1
            while pending and pending[-1].before <= place:
                call = pending.pop()
                self.add(call.action, call.address, call.size, now, self.frames(call.cause))
            number = event if event >= 0 else ~event
            tensor, address, size = self.tensors[number], placed.addresses[number], self.sizes[number]
            frames = self.frames(tensor)
            if event >= 0:
                alive.add(number)
                if not placed.on_card:
                    self.add("segment_alloc", address, size, now, frames)
                self.add("alloc", address, size, now, frames, tensor.component)
            else:
                alive.remove(number)
                self.add("free_requested", address, size, now, frames, tensor.component)
                self.add("free_completed", address, size, now, frames, tensor.component)
                if not placed.on_card:
                    self.add("segment_free", address, size, now, frames)
        return sorted(alive, key=placed.addresses.__getitem__)

    def add(self, action: str, address: int, size: int, time: int, frames: Frames, category: str = "") -> None:
        entry = {
            "action": action,
            "addr": address,
            "size": size,
            "stream": STREAM,
            "time_us": time,
            "frames": frames,
        }
        if category:
            entry["category"] = category
        self.entries.append(entry)

    def annotations(self) -> list[Entry]:
        """Where each phase begins and ends; empty ones are left out."""
        return [
            {"stage": stage, "name": phase_in_words(name), "device": DEVICE, "time_us": time}
            for name, start, stop in self.placed.timeline.spans
            if start < stop
            for stage, time in (("START", start), ("END", stop))
        ]

    # ---- what is held in the end

    def card_segments(self, alive: list[int]) -> list[Entry]:
        """The segments of the caching allocator; `alive` is in the order of addresses."""
        addresses = [self.placed.addresses[number] for number in alive]
        segments: list[Entry] = []
        for held in self.placed.held():
            first, last = bisect_left(addresses, held.address), bisect_left(addresses, held.address + held.size)
            segments.append(self.segment(held, alive[first:last]))
        return segments

    def cpu_segments(self, alive: list[int]) -> list[Entry]:
        """One for each tensor."""
        return [
            self.segment(
                HeldSegment(self.placed.addresses[number], self.sizes[number], False, False, self.tensors[number]),
                [number],
            )
            for number in alive
        ]

    def segment(self, held: HeldSegment, numbers: Sequence[int]) -> Entry:
        """A segment and its blocks, which tile it: what is between two tensors is one free block."""
        placed = self.placed
        blocks: list[Entry] = []
        position = held.address
        for number in numbers:
            address = placed.addresses[number]
            if address > position:
                blocks.append(_block(position, address - position, 0, "inactive", []))
            tensor = self.tensors[number]
            size, asked = placed.blocks[number], self.sizes[number]
            blocks.append(_block(address, size, asked, "active_allocated", self.frames(tensor)))
            position = address + size
        end = held.address + held.size
        if position < end:
            blocks.append(_block(position, end - position, 0, "inactive", []))
        allocated = sum(placed.blocks[number] for number in numbers)
        return {
            "device": DEVICE,
            "address": held.address,
            "total_size": held.size,
            "allocated_size": allocated,
            "active_size": allocated,
            "requested_size": sum(self.sizes[number] for number in numbers),
            "stream": STREAM,
            "segment_type": "small" if held.small else "large",
            "segment_pool_id": [0, 0],
            "is_expandable": held.expandable,
            "frames": self.frames(held.cause),
            "blocks": blocks,
        }

    # ---- names

    def frames(self, tensor: Tensor) -> Frames:
        """The one frame of a tensor. Equal ones are one object, so that the pickle holds them once."""
        key = (tensor.allocation, tensor.module)
        found = self.known.get(key)
        if found is None:
            allocation = tensor.allocation
            reason = self.reasons.get(allocation)
            if reason is None:
                reason = self.reasons[allocation] = line_of(allocation, 1).reason
            name = f"{tensor.title} ({tensor.component}, {reason})"
            phase = phase_in_words(allocation.phase)
            text = self.shared.get((phase, name))
            if text is None:
                text = self.shared[phase, name] = [{"filename": phase, "line": 0, "name": name}]
            found = self.known[key] = text
        return found


def phase_in_words(name: str) -> str:
    """A phase as a reader knows it: the tokens of decode that are not traced one by one are said to be so."""
    return "decode, tokens left out" if name == SKIPPED else name


def _block(address: int, size: int, requested: int, state: str, frames: Frames) -> Entry:
    return {"address": address, "size": size, "requested_size": requested, "state": state, "frames": frames}


def _settings(settings: Settings) -> Entry:
    """The settings by name, in whole numbers and texts; None is -1, as PyTorch has it."""
    found: Entry = {}
    for name in settings.__slots__:
        value = getattr(settings, name)
        if value is None:
            value = -1
        elif isinstance(value, tuple):
            value = list(value)
        found[name] = str(value) if isinstance(value, float) else value
    return found
