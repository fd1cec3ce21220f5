"""What an allocator's trace tells: every allocation with its life, the moment of the peak, and what was free then."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.allocator import Settings
from memplan.allocator.trace import GAINS
from memplan.explain.beginning import Beginning
from memplan.explain.layout import Layout, Life
from memplan.explain.recording import Pool, Recording

Place = tuple[Pool, int]
"""A pool and a stream."""

MOST_SHORTAGES = 20
"""Out-of-memory events that are looked at closely."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment, behind event number `event` (-1: before the first). Sizes are bytes.

    `reserved` is `allocated`, `pending` (freed, but another stream still uses it), `free_segments` (whole segments that
    nothing uses) and `split` (free pieces beside blocks in use). Of what is allocated `requested` was asked for; the
    rest is rounding. `places` are the bytes reserved and in use by pool and stream.
    """

    event: int
    allocated: int
    requested: int
    pending: int
    reserved: int
    free_segments: int
    split: int
    largest_free: int
    places: dict[Place, tuple[int, int]]

    @property
    def rounding(self) -> int:
        """Bytes of blocks in use beyond what was asked for."""
        return max(self.allocated - self.requested, 0)

    @property
    def fragmented(self) -> int:
        """Bytes reserved that no block uses."""
        return self.free_segments + self.split


@dataclass(frozen=True, slots=True)
class Shortage:
    """An out-of-memory event: `requested` bytes (rounded) on top of what the moment holds. `driver_free` is what the
    driver could still give, None where that is not recorded."""

    requested: int
    driver_free: int | None
    moment: Moment | None  # None for those beyond MOST_SHORTAGES
    frames: object
    birth: int  # allocations made before
    stream: int


class Story:
    """A trace, told. `lives` are all allocations in order: those from before the trace by address, then by birth.
    `order` holds them at birth and death: number, and ~number (negative) for a death.

    `differing` counts bytes of blocks in which the last state that was followed differs from the segments recorded.
    """

    def __init__(self, recording: Recording, settings: Settings) -> None:
        self.recording = recording
        self.settings = settings
        self.beginning = Beginning(recording)
        first = _Pass(recording, settings, self.beginning, {})
        first.run(len(recording.events))
        if first.layout.repaired:  # sizes of old blocks were found out on the way: this time they are known
            learned = {life.address: life.size for life in first.lives if life.born < 0}
            repaired = first.layout.repaired
            first = _Pass(recording, settings, self.beginning, learned)
            first.run(len(recording.events))
            first.layout.repaired += repaired
        self.lives = first.lives
        self.order = first.order
        self.births = first.births
        self.strange = first.layout.strange + self.beginning.strange
        self.repaired = first.layout.repaired
        self.differing = _difference(first.layout, recording)
        self.shortages = tuple(first.shortages)
        self.peak_reserved = first.peak_reserved
        self.end = first.moment(len(recording.events) - 1)
        learned = {life.address: life.size for life in first.lives if life.born < 0}
        again = _Pass(recording, settings, self.beginning, learned)
        again.run(first.peak_event + 1)
        self.peak = again.moment(first.peak_event)

    @property
    def before(self) -> list[Life]:
        """What was in use when the trace began."""
        return self.lives[: len(self.beginning.lives)]

    def alive(self, event: int) -> list[Life]:
        """The allocations that count as allocated behind event number `event`."""
        return [life for life in self.lives if life.born <= event and (life.died is None or life.died > event)]


class _Pass:
    """One way through the trace."""

    def __init__(self, recording: Recording, settings: Settings, beginning: Beginning, learned: dict[int, int]) -> None:
        self.recording = recording
        self.layout = Layout(settings)
        self.live = beginning.restore(self.layout, learned)
        self.lives = list(self.live.values())
        self.order: list[int] = []
        self.births = 0
        self.pending = {address: self.live[address] for address in beginning.pending if address in self.live}
        waiting = sum(life.size for life in self.pending.values())
        self.allocated = sum(life.size for life in self.lives) - waiting
        self.requested = sum(life.requested for life in self.lives if life.address not in self.pending)
        for life in self.pending.values():
            life.died, life.death = -1, 0
        self.peak, self.peak_event = self.allocated, -1
        self.peak_reserved = self.layout.reserved
        self.shortages: list[Shortage] = []

    def run(self, stop: int) -> None:
        """Go through the events before number `stop`."""
        events, layout, live = self.recording.events, self.layout, self.live
        for number in range(stop):
            event = events[number]
            action = event.action
            if action == "alloc":
                life = Life(len(self.lives), event.address, event.size, event.stream, event.pool)
                life.born, life.birth, life.frames = number, self.births, event.frames
                if event.address in live:
                    layout.strange += 1
                    self._free(event.address, number)
                layout.take(life)
                live[event.address] = life
                self.lives.append(life)
                self.order.append(life.number)
                self.births += 1
                self.requested += life.requested
                self.allocated += life.size
                if self.allocated > self.peak:
                    self.peak, self.peak_event = self.allocated, number
            elif action == "free_requested":
                self._request(event.address, number)
            elif action == "free_completed":
                self._free(event.address, number)
            elif action == "oom":
                moment = self.moment(number) if len(self.shortages) < MOST_SHORTAGES else None
                driver = event.free if isinstance(event.free, int) else None
                self.shortages.append(Shortage(event.size, driver, moment, event.frames, self.births, event.stream))
            elif action in GAINS:
                layout.add(event.address, event.size, event.stream, event.pool, action == "segment_map")
                self.peak_reserved = max(self.peak_reserved, layout.reserved)
            else:
                layout.remove(event.address, event.size)

    def _request(self, address: int, number: int) -> None:
        life = self.live.get(address)
        if life is None or life.died is not None:
            self.layout.strange += 1
            return
        life.died, life.death = number, self.births
        self.order.append(~life.number)
        self.allocated -= life.size
        self.requested -= life.requested
        self.pending[address] = life

    def _free(self, address: int, number: int) -> None:
        life = self.live.get(address)
        if life is None:
            self.layout.strange += 1
            return
        if life.died is None:
            self._request(address, number)
        del self.live[address]
        self.pending.pop(address, None)
        self.layout.release(life)

    def moment(self, event: int) -> Moment:
        """The present state."""
        whole = split = largest = 0
        places: dict[Place, tuple[int, int]] = {}
        for piece in self.layout.pieces.values():
            place = (piece.pool, piece.stream)
            reserved, used = places.get(place, (0, 0))
            if piece.life is not None:
                used += piece.size
            else:
                largest = max(largest, piece.size)
                if piece.whole:
                    whole += piece.size
                else:
                    split += piece.size
            places[place] = (reserved + piece.size, used)
        return Moment(
            event=event,
            allocated=self.allocated,
            requested=self.requested,
            pending=sum(life.size for life in self.pending.values()),
            reserved=self.layout.reserved,
            free_segments=whole,
            split=split,
            largest_free=largest,
            places=dict(sorted(places.items())),
        )


def _difference(layout: Layout, recording: Recording) -> int:
    """The bytes of recorded blocks that are not found as they are recorded."""
    missing = 0
    for segment in recording.segments:
        for block in segment.blocks:
            piece = layout.pieces.get(block.address)
            same = piece is not None and piece.size == block.size and (piece.life is not None) == block.live
            missing += 0 if same else block.size
    return missing
