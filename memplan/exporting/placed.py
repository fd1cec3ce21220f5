"""A timeline with a place for every tensor: its address, its block, and the segments that the allocator holds.

On a card the run is replayed through the simulated caching allocator from a fresh process until it is steady, as an
estimate does (memplan/tiers.py), and every answer is written down. The CPU has no caching allocator: there each tensor
has its own memory, its block is what it asked for, and nothing is reserved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan.allocator import Settings, parse_settings
from memplan.allocator.caching import FIRST_ADDRESS
from memplan.config.device import Device
from memplan.config.validate import validate_model, validate_run
from memplan.expansion import Expansion, expand
from memplan.exporting.fresh import FreshRun, fresh_run
from memplan.exporting.recording import RecordingAllocator, SegmentCall
from memplan.exporting.segments import HeldSegment, SegmentEvent, held_after
from memplan.ledger import Ledger
from memplan.ops.backend import CURRENT
from memplan.replay import drive
from memplan.tiers import on_card
from memplan.timeline import Timeline, spelled_out

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

STEPS_ON_CPU = 2
"""The first step makes the optimizer's states; the second one is steady."""

ALIGNMENT = 64
"""Of memory on the CPU, in bytes (c10/core/alignment.h, gAlignment)."""


@dataclass(frozen=True, slots=True)
class PlacedTimeline:
    """A timeline and where its tensors lie. `addresses` and `blocks` (bytes that count as allocated) are by tensor;
    `found` are the segments before the first event, `segments` what changes them. `starts` are the first events of the
    steps it shows, the last of which is number `steps` of the process.

    On the CPU there are no segments, and `settings` is None.
    """

    timeline: Timeline
    addresses: tuple[int, ...]
    blocks: tuple[int, ...]
    found: tuple[HeldSegment, ...]
    segments: tuple[SegmentEvent, ...]
    starts: tuple[int, ...]
    steps: int
    settings: Settings | None

    @property
    def on_card(self) -> bool:
        """Whether there is a caching allocator."""
        return self.settings is not None

    def allocated(self) -> list[int]:
        """Allocated bytes before the first event and behind each, as Timeline.allocated has them: of whole blocks on a
        card (torch.cuda.memory_allocated), of what was asked for on the CPU."""
        return self.timeline.allocated(self.blocks)

    def reserved(self) -> list[int] | None:
        """Reserved bytes before the first event and behind each; None on the CPU, which reserves nothing."""
        if not self.on_card:
            return None
        change = [0] * (len(self.timeline.events) + 1)
        for event in self.segments:
            change[event.before + 1] += event.change
        held = sum(segment.size for segment in self.found)
        line: list[int] = []
        for each in change:
            held += each
            line.append(held)
        return line

    def held(self) -> tuple[HeldSegment, ...]:
        """The segments behind the last event, by address."""
        return held_after(self.found, self.segments)


def place(
    model: Model,
    run: Run,
    device: Device,
    torch: tuple[int, int] = CURRENT,
    allocator_settings: str = "",
    steps: int | None = None,
    every_step: bool = False,
) -> PlacedTimeline:
    """The placed timeline that is predicted for a run; the arguments are those of memplan.estimate.estimate.

    Raises ConfigurationError for a contradictory request, and NotModelledError for what has no rule or cannot be
    spelled out.
    """
    from memplan.estimate import backend_of, trace

    model, run = validate_model(model), validate_run(model, run, device)
    settings = parse_settings(allocator_settings, torch) if device.backend == "cuda" else None
    return placed(trace(model, run, backend_of(device, torch)), device, settings, steps, every_step)


def placed(
    ledger: Ledger,
    device: Device,
    settings: Settings | None = None,
    steps: int | None = None,
    every_step: bool = False,
) -> PlacedTimeline:
    """A ledger's timeline on `device`, with addresses.

    It shows the steady step, whose tensors are those of memplan.timeline.timeline_of; with `every_step` all steps from
    a fresh process on, and so it does where `steps` is 1. On a card `settings` are those of the allocator (the default
    ones where left out), `steps` is how many steps it sees where they are not as many as it takes to settle, and what
    the card has limits it as memplan.tiers.on_card says.

    The peaks of the steady step are those of an estimate, but for reserved bytes where the card is too small for the
    cache: then the step with the most may be an earlier one. Over all steps somewhat more may be allocated than in the
    steady one, as which block has slack changes from step to step. Raises NotModelledError for a ledger that cannot be
    spelled out.
    """
    later = expand(ledger)
    if device.backend == "cuda":
        return _on_card(ledger, later, device, Settings() if settings is None else settings, steps, every_step)
    steps = STEPS_ON_CPU if steps is None else steps
    if every_step or steps == 1:
        run = fresh_run(later, steps)
        return placed_on_cpu(run.timeline, run.starts, steps)
    return placed_on_cpu(spelled_out(later), steps=steps)


def placed_on_cpu(timeline: Timeline, starts: tuple[int, ...] = (0,), steps: int = STEPS_ON_CPU) -> PlacedTimeline:
    """A timeline alone, such as that of a module that was traced, on the CPU."""
    return PlacedTimeline(
        timeline=timeline,
        addresses=tuple(_addresses_on_cpu(timeline)),
        blocks=tuple(tensor.size for tensor in timeline.tensors),
        found=(),
        segments=(),
        starts=starts,
        steps=steps,
        settings=None,
    )


def _addresses_on_cpu(timeline: Timeline) -> Iterator[int]:
    """Made up: an address that was given back is the first that a tensor of the same size gets."""
    tensors = timeline.tensors
    addresses = [0] * len(tensors)
    unused: dict[int, list[int]] = {}  # by size
    new = FIRST_ADDRESS
    births = [number for number, tensor in enumerate(tensors) if tensor.born < 0]
    for event in [*births, *timeline.events]:
        if event < 0:
            unused.setdefault(tensors[~event].size, []).append(addresses[~event])
            continue
        size = tensors[event].size
        if unused.get(size):
            addresses[event] = unused[size].pop()
        else:
            addresses[event] = new
            new += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return iter(addresses)


def _on_card(
    ledger: Ledger, later: Expansion, device: Device, settings: Settings, steps: int | None, every_step: bool
) -> PlacedTimeline:
    """Find out how the run ends, and make it once more to see how it goes."""
    end = on_card(ledger, device, settings, steps)
    room = max(device.available_bytes - end.context.bytes, 0) if end.squeezed else None
    allocator = RecordingAllocator(settings, room)
    steps = end.replay.steps
    drive(later, allocator, steps)
    run = fresh_run(later, steps)
    if every_step or steps == 1:
        # What the last step returns is freed behind the end of the timeline, which asks for nothing.
        return PlacedTimeline(
            timeline=run.timeline,
            addresses=tuple(allocator.addresses),
            blocks=tuple(allocator.sizes),
            found=(),
            segments=tuple(_event(run, call, 0) for call in allocator.segments),
            starts=run.starts,
            steps=steps,
            settings=settings,
        )
    start = run.starts[-1]
    earlier = [_event(run, call, start) for call in allocator.segments if call.before < start]
    return PlacedTimeline(
        timeline=spelled_out(later),
        addresses=tuple(allocator.addresses[number] for number in run.numbers),
        blocks=tuple(allocator.sizes[number] for number in run.numbers),
        found=held_after((), earlier),
        segments=tuple(_event(run, call, start) for call in allocator.segments if call.before >= start),
        starts=(0,),
        steps=steps,
        settings=settings,
    )


def _event(run: FreshRun, call: SegmentCall, start: int) -> SegmentEvent:
    number = run.timeline.events[call.before]  # only a birth asks the driver for anything
    cause = run.timeline.tensors[number]
    return SegmentEvent(call.before - start, call.action, call.address, call.size, call.small, cause)
