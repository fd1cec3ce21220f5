"""A recorded trace fed through the simulation: do the segments come out that PyTorch took from the driver?"""

from __future__ import annotations

from typing import Any

from memplan.allocator.blocks import SMALL_SIZE, Block, OutOfMemory, Pool
from memplan.allocator.caching import CachingAllocator
from memplan.allocator.history import FROM_THE_START, initial_segments, restore
from memplan.allocator.release import releasable
from memplan.allocator.settings import Settings
from memplan.allocator.trace import GAINS, RELEASES, SEGMENT_ACTIONS, Event, events_of, segments_of
from memplan.errors import MeasurementError

INVENTED_ADDRESSES = 1 << 48  # beyond any the driver gives


class Comparison:
    """What a replay found. `difference` is the first one, None where every segment event came out as recorded.

    `events` were replayed, of which `segment_events` were compared and equal; `misplaced` allocations got another
    address than recorded (up to the first difference). The reserved bytes are those at the end and at the peak.
    """

    __slots__ = (
        "difference", "events", "misplaced", "peak_predicted", "peak_recorded", "reserved_predicted",
        "reserved_recorded", "segment_events",
    )  # fmt: skip

    def __init__(self) -> None:
        self.events = self.segment_events = self.misplaced = 0
        self.difference: str | None = None
        self.reserved_predicted = self.reserved_recorded = 0
        self.peak_predicted = self.peak_recorded = 0

    @property
    def same(self) -> bool:
        """Whether every segment event came out as recorded."""
        return self.difference is None

    def __repr__(self) -> str:
        return f"<Comparison {', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)}>"


def replay_snapshot(
    snapshot: dict[str, Any],
    settings: Settings,
    device: int = 0,
    capacity: int | None = None,
    device_memory: int | None = None,
) -> Comparison:
    """Replay a device's trace with the settings (and the release's rules) of the run, and compare the segment events.

    New segments get the recorded addresses. Calls of empty_cache() are not in a trace: they are told by what they give
    back. Without a `capacity`, when the driver refused is told by what was given back before it did not; with one, it
    is predicted. `device_memory` is what a memory fraction in the settings is a fraction of. After the first difference
    the simulation goes on by itself. Two things are not recorded, so that a difference may be found where there is
    none: the age of segments from before the trace (they count as made in the order of their addresses), and, where
    several streams use a block, whether it became free before or after an allocation had searched.

    Raises MeasurementError for a snapshot that is damaged or does not reach back far enough, and NotModelledError for
    CUDA graphs and user pools.
    """
    events = events_of(snapshot, device)
    final = segments_of(snapshot, device)
    replay = _Replay(settings, capacity, device_memory)
    replay.blocks = restore(replay, initial_segments(events, final, settings))
    return replay.run(events)


class _Replay(CachingAllocator):
    """The simulation, with the driver's part read from the trace."""

    def __init__(self, settings: Settings, capacity: int | None, device_memory: int | None) -> None:
        super().__init__(settings, capacity, device_memory)
        self._next_address = INVENTED_ADDRESSES
        self._plain = False  # every search is made by _find
        self.expected: list[Event] = []  # the recorded segment events of the present operation
        self.arrived = 0  # how many of them have come out
        self.searched = False  # in vain, for the present operation
        self.early: set[int] = set()  # deferred frees that were completed here before the trace says so
        self.finished: list[Block] = []  # deferred frees that the trace completes within the present operation
        self.operation: Event | None = None
        self.blocks: dict[int, Block] = {}  # in use, by recorded address
        self.result = Comparison()

    # ---- the driver

    def driver_gives(self, size: int) -> bool:
        if self.capacity is not None:
            return super().driver_gives(size)
        if self.result.difference is not None:
            return True
        if self.arrived < len(self.expected):
            return self._gain() is not None
        return self.operation is None or self.operation.action != "oom"

    def place(self, size: int) -> int:
        recorded = self._gain()
        return super().place(size) if recorded is None else recorded.address

    def settle(self, block: Block) -> None:
        # A segment that found no memory at first got an address of no meaning.
        recorded = self._gain()
        if recorded is not None:
            block.address = block.segment.address = recorded.address

    def _gain(self) -> Event | None:
        """The next recorded segment event, where it is memory from the driver and all was as recorded so far."""
        if self.result.difference is not None or self.arrived == len(self.expected):
            return None
        recorded = self.expected[self.arrived]
        return recorded if recorded.action in GAINS else None

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        if self.result.difference is not None:
            return
        if self.arrived == len(self.expected):
            self._differ(f"{Event(action, address, size, stream)!r} was predicted, and nothing recorded")
            return
        recorded = self.expected[self.arrived]
        if (action, address, size, stream) != (recorded.action, recorded.address, recorded.size, recorded.stream):
            self._differ(f"{Event(action, address, size, stream)!r} was predicted, {recorded!r} recorded")
            return
        self.arrived += 1
        self.result.segment_events += 1

    def _differ(self, what: str) -> None:
        if self.result.difference is None:
            moment = "at the end" if self.operation is None else f"at {self.operation!r}"
            self.result.difference = f"{moment}: {what}"

    # ---- the trace

    def run(self, events: list[Event]) -> Comparison:
        """Replay all events."""
        result = self.result
        result.reserved_recorded = result.peak_recorded = self.reserved
        for number, event in enumerate(events):
            if event.action in SEGMENT_ACTIONS:
                self.expected.append(event)
                result.reserved_recorded += event.size if event.action in GAINS else -event.size
                result.peak_recorded = max(result.peak_recorded, result.reserved_recorded)
            elif event.action == "free_completed" and self.blocks.get(event.address) in self.pending:
                self.finished.append(self.blocks.pop(event.address))
                if not _waited_for(events, number):
                    self._finish()
            elif event.action == "free_completed" and event.address in self.early:
                self.early.discard(event.address)
            else:
                self._replay(event)
        self._replay(None)
        result.events = len(events)
        result.reserved_predicted = self.reserved
        result.peak_predicted = self.peak_reserved
        return result

    def _replay(self, event: Event | None) -> None:
        """One operation, or the end, after the segment events that led to it."""
        self.operation = event
        if self.finished or (self.expected and self.expected[0].action in RELEASES):
            self._prepare(event)
        if event is not None:
            self._apply(event)
        self._finish()
        if self.arrived < len(self.expected):
            self._differ(f"{self.expected[self.arrived]!r} was recorded, and nothing predicted")
        self.expected.clear()
        self.arrived = 0
        self.searched = False

    def _prepare(self, event: Event | None) -> None:
        """Empty the cache before an operation where the trace shows that the program did. An allocation that runs out
        of memory empties it too, but by its own rules, and does not search again afterwards."""
        gone = []
        for one in self.expected:
            if one.action not in RELEASES:
                break
            gone.append((one.action, one.address, one.size))
        allocates = event is not None and event.action in ("alloc", "oom")
        grows = len(gone) < len(self.expected) or (event is not None and event.action == "oom")
        # Pages that go can leave a block of max_split_size small enough to be used.
        shrinks = self.settings.expandable_segments and self.settings.max_split_size is not None
        if self.result.difference is not None:
            self._finish()
            if gone:
                self.empty_cache()
        elif event is None or not allocates or not (grows or shrinks) or self._peek(event):
            self._finish()
            if gone and not self.pending and (not allocates or gone == releasable(self)):
                self.empty_cache()
        else:
            self.searched = True
            # Where an allocation gives everything back in one go, it is the same as if the program had.
            at_once = not self._collects and (self.settings.expandable_segments or self.settings.max_split_size is None)
            if gone and at_once:
                self._finish()
            if gone and not self.finished and not self.pending and gone == releasable(self):
                self.empty_cache()
                if shrinks and event.action == "alloc":
                    # Now a search may find something. Where the block went tells whether there was one.
                    found = self._peek(event)
                    self.searched = found is None or found.address != event.address

    def _finish(self) -> None:
        for block in self.finished:
            if block in self.pending:
                self.finish_free(block)
        self.finished.clear()

    def _peek(self, event: Event) -> Block | None:
        """What a search would find for an allocation. One in vain counts as made."""
        size = self.settings.round_size(event.size)
        pool = (self.small if size <= SMALL_SIZE else self.large).get(event.stream)
        searches = self.searches
        found = None if pool is None else super()._find(pool, size)
        if pool is not None and found is not None:
            pool.insert(found)
            self.searches = searches
        return found

    def _find(self, pool: Pool, size: int) -> Block | None:
        if self.searched:
            self.searched = False
            return None
        return super()._find(pool, size)

    def empty_cache(self) -> None:
        """As the allocator does; the trace may say later that it completed the deferred frees."""
        for address in [address for address, block in self.blocks.items() if block in self.pending]:
            del self.blocks[address]
            self.early.add(address)
        super().empty_cache()

    def _apply(self, event: Event) -> None:
        if event.action == "alloc":
            if event.address in self.blocks:
                raise MeasurementError(f"{event!r} is in use already: the trace has gaps", FROM_THE_START)
            try:
                block = self.allocate(event.size, event.stream)
            except OutOfMemory as error:
                self._differ(f"{error}")
                return
            self.early.discard(event.address)
            if self.result.difference is None and block.address != event.address:
                self.result.misplaced += 1
            self.blocks[event.address] = block
        elif event.action == "oom":
            try:
                block = self.allocate(event.size, event.stream)
            except OutOfMemory:
                return
            self._differ("memory was predicted to suffice")
            self.free(block)
        else:
            found = self.blocks.get(event.address)
            if found is None:
                if self.result.difference is None:
                    raise MeasurementError(f"{event!r} is not in use: the trace has gaps", FROM_THE_START)
            elif event.action == "free_requested":
                self.defer_free(found)
            else:
                self.free(self.blocks.pop(event.address))


def _waited_for(events: list[Event], number: int) -> bool:
    """Whether a free was completed because the allocator waited for all streams, as it does before it gives all it can
    back and where it has run out. A free that was requested just before had nobody to wait for."""
    event, before = events[number], events[number - 1]
    if number and before.action == "free_requested" and before.address == event.address:
        return False
    following = number + 1
    while following < len(events) and events[following].action == "free_completed":
        following += 1
    return following < len(events) and events[following].action in (*RELEASES, "oom")
