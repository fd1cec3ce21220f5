"""The state in which a trace begins: the snapshot's own segments, with the trace undone from its end.

The trace is a ring buffer (`max_entries`) and may have been switched on late, so blocks may be in use when it begins.
Their addresses, streams and requests follow from the end and from the frees; the size of one that is freed within the
trace is its rounded request, and in the large pool what could not be split off.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from memplan.allocator.blocks import SMALL_SIZE
from memplan.allocator.trace import GAINS, RELEASES
from memplan.explain.layout import Layout, Life, Piece
from memplan.explain.recording import Pool, Recording

Kind = tuple[int, Pool, bool]
"""Stream, pool, and whether it is expandable."""


class Range:
    """A segment, or a mapped range of an expandable one."""

    __slots__ = ("address", "kind", "size")

    def __init__(self, address: int, size: int, kind: Kind) -> None:
        self.address = address
        self.size = size
        self.kind = kind

    def beside(self, following: Range | None) -> bool:
        """Whether another range begins where this one ends, in the same expandable segment."""
        if following is None or not self.kind[2]:
            return False
        return self.kind == following.kind and self.address + self.size == following.address


class Beginning:
    """What was there before the first event. `sizes` are those of blocks that the end still has, `pending` the
    addresses of blocks that were freed and not yet free; `cut` says that the trace once reached back further: a block
    has frames although its allocation is not in it. `strange` counts contradictions."""

    def __init__(self, recording: Recording) -> None:
        self.lives: list[Life] = []
        self.ranges: list[Range] = []
        self.sizes: dict[int, int] = {}
        self.pending: set[int] = set()
        self.cut = False
        self.strange = 0
        self._find_blocks(recording)
        self._find_ranges(recording)

    def _find_blocks(self, recording: Recording) -> None:
        lives: dict[int, Life] = {}
        for segment in recording.segments:
            for block in segment.blocks:
                if block.live:
                    requested = block.size if block.requested is None else block.requested
                    life = Life(0, block.address, requested, segment.stream, segment.pool)
                    life.frames = block.frames
                    lives[block.address] = life
                    self.sizes[block.address] = block.size
                    if block.pending:
                        self.pending.add(block.address)
        for event in reversed(recording.events):
            address = event.address
            if event.action == "alloc":
                if lives.pop(address, None) is None:
                    self.strange += 1
                self.sizes.pop(address, None)
                self.pending.discard(address)
            elif event.action == "free_completed":
                if address in lives:
                    self.strange += 1
                lives[address] = Life(0, address, event.size, event.stream, event.pool)
                self.sizes.pop(address, None)
                self.pending.add(address)
            elif event.action == "free_requested":
                self.pending.discard(address)
                if address not in lives:
                    self.strange += 1
                    lives[address] = Life(0, address, event.size, event.stream, event.pool)
        self.lives = [lives[address] for address in sorted(lives)]
        self.cut = any(life.frames for life in self.lives)

    def _find_ranges(self, recording: Recording) -> None:
        found = [
            Range(each.address, each.size, (each.stream, each.pool, each.expandable)) for each in recording.segments
        ]
        found.sort(key=lambda each: each.address)
        starts = [each.address for each in found]
        for event in reversed(recording.events):
            if event.action in GAINS:
                at = bisect_right(starts, event.address) - 1
                if at < 0 or event.address + event.size > found[at].address + found[at].size:
                    self.strange += 1
                    continue
                whole = found.pop(at)
                starts.pop(at)
                tail = event.address + event.size
                for address, end in ((tail, whole.address + whole.size), (whole.address, event.address)):
                    if address < end:
                        found.insert(at, Range(address, end - address, whole.kind))
                        starts.insert(at, address)
            elif event.action in RELEASES:
                at = bisect_right(starts, event.address)
                back = Range(event.address, event.size, (event.stream, event.pool, event.action == "segment_unmap"))
                if back.beside(found[at] if at < len(found) else None):
                    back.size += found.pop(at).size
                    starts.pop(at)
                if at and found[at - 1].beside(back):
                    found[at - 1].size += back.size
                else:
                    found.insert(at, back)
                    starts.insert(at, back.address)
        self.ranges = found

    def restore(self, layout: Layout, learned: Mapping[int, int]) -> dict[int, Life]:
        """Put a fresh layout into this state; the blocks in use, by address. `learned` are sizes of blocks that a first
        pass has found out."""
        for each in self.ranges:
            stream, pool, expandable = each.kind
            layout.add(each.address, each.size, stream, pool, expandable)
        found: dict[int, Life] = {}
        free = [chain[0] for chain in layout.segments()]
        starts, ends = [piece.address for piece in free], [piece.address + piece.size for piece in free]
        rest: list[Piece | None] = list(free)
        for number, known in enumerate(self.lives):
            life = Life(number, known.address, known.requested, known.stream, known.pool)
            life.frames = known.frames
            size_told = self.sizes.get(life.address, learned.get(life.address, 0))
            at = bisect_right(starts, life.address) - 1
            place = rest[at] if at >= 0 and life.address < ends[at] else None
            if place is None or place.address > life.address:
                layout.strange += 1
                life.size = size_told or layout.settings.round_size(life.requested)
                layout.astray[life.address] = life
            else:
                following = self.lives[number + 1].address if number + 1 < len(self.lives) else ends[at]
                size = _size(life, layout, min(ends[at], following) - life.address, size_told)
                rest[at] = layout.place(life, size, place)
            found[life.address] = life
        return found


def _size(life: Life, layout: Layout, room: int, known: int) -> int:
    """The bytes of a block that has room for so many; `known` is its size, 0 where the snapshot does not tell it."""
    if not known:
        known = layout.settings.round_size(life.requested)
        if known > SMALL_SIZE and not layout.settings.expandable_segments and 0 < room - known <= SMALL_SIZE:
            known = room  # a free block of the large pool is larger: what is left can only be slack
    if known > room:
        layout.strange += 1
    return min(known, room)
