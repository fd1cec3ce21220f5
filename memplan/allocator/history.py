"""The state in which a trace begins: the snapshot's own segments, with the trace undone from its end."""

from __future__ import annotations

from memplan.allocator.blocks import SMALL_SEGMENT, SMALL_SIZE, Block, Pool, Segment
from memplan.allocator.caching import CachingAllocator
from memplan.allocator.settings import Settings
from memplan.allocator.trace import GAINS, RELEASES, Event, RecordedBlock, RecordedSegment
from memplan.errors import MeasurementError, NotModelledError

FROM_THE_START = "record the history before the first allocation, with enough max_entries"


def initial_segments(events: list[Event], final: list[RecordedSegment], settings: Settings) -> list[RecordedSegment]:
    """The segments that were there before the first event, with the blocks in use then; none where the trace begins
    with an empty cache.

    Raises MeasurementError where trace and segments contradict each other, or do not say enough, and NotModelledError
    for expandable segments and garbage that were there before.
    """
    reserved = sum(segment.size for segment in final)
    for event in events:
        reserved -= event.size if event.action in GAINS else -event.size if event.action in RELEASES else 0
    live = _live_at_start(events, final)
    if reserved == 0 and not live:
        return []
    if reserved < 0:
        raise MeasurementError(
            "the trace and the segments of the snapshot contradict each other: more was freed than held"
        )
    paged = ("segment_map", "segment_unmap")
    if any(segment.expandable for segment in final) or any(event.action in paged for event in events):
        raise NotModelledError("the state of expandable segments before the trace cannot be told", FROM_THE_START)
    if settings.garbage_collection_threshold > 0.0 and settings.memory_fraction < 1.0:
        raise NotModelledError("the age of garbage from before the trace cannot be told", FROM_THE_START)
    segments = _held_at_start(events, final)
    for address in sorted(live):
        holder = next((one for one in segments if one.address <= address < one.address + one.size), None)
        if holder is None:
            raise MeasurementError(
                f"the trace frees {address:#x}, which is in no segment of the snapshot", FROM_THE_START
            )
        holder.blocks.append(live[address])
    for segment in segments:
        _size_blocks(segment, settings)
    return segments


def _live_at_start(events: list[Event], final: list[RecordedSegment]) -> dict[int, RecordedBlock]:
    """The blocks in use before the trace, by address; size 0 for those that the snapshot no longer has."""
    live = {block.address: block for segment in final for block in segment.blocks if block.live}
    for event in reversed(events):
        if event.action == "alloc":
            if live.pop(event.address, None) is None:
                raise MeasurementError(f"the trace and the segments of the snapshot contradict each other at {event!r}")
        elif event.action == "free_completed":
            live[event.address] = RecordedBlock(event.address, 0, event.size, live=True, pending=True)
        elif event.action == "free_requested" and event.address in live:
            live[event.address].pending = False  # before, it was in use and did not wait yet
    return live


def _held_at_start(events: list[Event], final: list[RecordedSegment]) -> list[RecordedSegment]:
    """The segments before the trace, without blocks, by address."""
    held = {one.address: RecordedSegment(one.address, one.size, one.stream, one.small, False) for one in final}
    for event in reversed(events):
        if event.action == "segment_alloc":
            segment = held.pop(event.address, None)
            if segment is None or segment.size != event.size:
                raise MeasurementError(f"the trace and the segments of the snapshot contradict each other at {event!r}")
        elif event.action == "segment_free":
            # A large segment has 10 MiB or more: only those of the small pool have 2.
            small = event.size == SMALL_SEGMENT
            held[event.address] = RecordedSegment(event.address, event.size, event.stream, small, False)
    return [held[address] for address in sorted(held)]


def _size_blocks(segment: RecordedSegment, settings: Settings) -> None:
    """Give blocks without a size theirs: the rounded request, and in the large pool what was not split off."""
    end = segment.address + segment.size
    for number, block in enumerate(segment.blocks):
        following = segment.blocks[number + 1].address if number + 1 < len(segment.blocks) else end
        if block.size == 0:
            block.size = settings.round_size(block.requested)
            gap = following - block.address - block.size
            if not segment.small and gap > 0:
                limit = settings.max_split_size
                # A free block of the large pool is larger than 1 MiB: what is smaller can only be slack.
                if gap > SMALL_SIZE and (limit is None or block.size < limit):
                    raise MeasurementError(
                        f"the snapshot does not say how large the block at {block.address:#x} was", FROM_THE_START
                    )
                block.size += gap
        if block.address + block.size > following:
            raise MeasurementError(f"the blocks of the segment at {segment.address:#x} overlap", FROM_THE_START)


def restore(cache: CachingAllocator, segments: list[RecordedSegment]) -> dict[int, Block]:
    """Put an empty allocator into the recorded state; the blocks in use, by address. The age of segments and blocks is
    not recorded: they count as made in the order given."""
    in_use: dict[int, Block] = {}
    for recorded in segments:
        pools = cache.small if recorded.small else cache.large
        pool = pools.get(recorded.stream) or cache.open_pool(recorded.small, recorded.stream)
        segment = Segment(recorded.address, recorded.size, 0, pool)
        rank = cache.segment_rank()
        before: Block | None = None
        position = recorded.address
        for live in recorded.blocks:
            if live.address > position:
                before = _append(cache, segment, position, live.address - position, rank, before, pool)
            before = _append(cache, segment, live.address, live.size, rank, before, None)
            before.requested = live.requested
            cache.requested += live.requested
            cache.allocated += live.size
            if live.pending:
                cache.defer_free(before)
            in_use[live.address] = before
            position = live.address + live.size
        end = recorded.address + recorded.size
        if position < end:
            _append(cache, segment, position, end - position, rank, before, pool)
        cache.reserved += recorded.size
    cache.reset_peaks()
    return in_use


def _append(
    cache: CachingAllocator,
    segment: Segment,
    address: int,
    size: int,
    rank: int,
    before: Block | None,
    pool: Pool | None,
) -> Block:
    """A block of a segment behind `before`; free where it gets a pool."""
    block = Block(segment, address, size, cache.next_rank() if cache.ranks_blocks else rank)
    block.prev = before
    if before is not None:
        before.next = block
    if pool is not None:
        pool.insert(block)
    return block
