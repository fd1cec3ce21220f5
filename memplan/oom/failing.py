"""Where a run would fail: its steps replayed through the allocator, with as much memory as a message tells of."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.allocator import Block, CachingAllocator, Settings
from memplan.config.context import Context
from memplan.expansion import Expansion
from memplan.ledger import INITIAL
from memplan.oom.asking import Asking
from memplan.oom.message import Message
from memplan.oom.steps import Name, Steps
from memplan.replay import drive

SEGMENTS = 2 << 20
"""Segments, and the pages of expandable ones, are multiples of it (c10/cuda/CUDACachingAllocator.cpp): what the driver
has beyond a multiple makes no difference."""

MOST_ROOMS, FEW_ROOMS = 40, 8
"""Sizes that are tried; few where the message does not say what is allocated, so that none can agree with it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The request that is refused when the driver has `room` bytes for segments: birth number `number` of step number
    `step` (of what is loaded: step 0). The other sizes are those of the allocator when it gives up, and `blocks` those
    of everything it had handed out, in order."""

    room: int
    step: int
    number: int
    phase: str
    size: int
    allocated: int
    reserved: int
    blocks: tuple[int, ...]

    @property
    def stage(self) -> Name:
        """Which kind of step it is."""
        return "loading" if self.step == 0 else "first" if self.step == 1 else "later"


class _Recorder(CachingAllocator):
    """A caching allocator that keeps the size of every block it gave."""

    def __init__(self, settings: Settings, capacity: int | None) -> None:
        super().__init__(settings, capacity)
        self.blocks: list[int] = []

    def allocate(self, size: int, stream: int = 0) -> Block:
        block = super().allocate(size, stream)
        self.blocks.append(block.size)
        return block


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ends with so much memory: the failure, or None. `peak` is the most that was reserved."""

    failure: Failure | None
    peak: int
    blocks: tuple[int, ...]


def run(expansion: Expansion, settings: Settings, room: int | None, steps: int | None = None) -> Outcome:
    """A run from a fresh process, until it is steady or fails; `steps` of them where that is given."""
    allocator = _Recorder(settings, room)
    result = drive(expansion, allocator, steps)
    blocks = tuple(allocator.blocks)
    shortage = result.out_of_memory
    if shortage is None or room is None:
        return Outcome(None, result.peak_reserved, blocks)
    number, step = len(blocks), 0
    if shortage.phase != INITIAL:
        first = expansion.first_step()
        step = shortage.step
        number -= len(first.initial)
        if step > 1:
            number -= len(first.births) + (step - 2) * len(expansion.births)
    failure = Failure(
        room, step, number, shortage.phase, shortage.requested, allocator.allocated, allocator.reserved, blocks
    )
    return Outcome(failure, result.peak_reserved, blocks)


def rooms(message: Message, capacity: int, context: Context) -> list[int]:
    """What the driver may have had for segments, in bytes, the likeliest first: the segments held when the allocator
    gave up and what was free besides, or what the process allows itself. Where the message does not say, the capacity
    less what others hold and less the context. None of CUDA's asynchronous allocator, which has no segments."""
    if message.kind == "async":
        return []
    held, free, asked = message.held, message.free, message.asked
    limit = message.limit if message.kind == "caching" else None
    if limit is not None and asked is not None and free is not None and free.high >= asked.low:
        return _spread(limit.low, limit.high)
    if held is not None and free is not None:
        low, high = held[0] // SEGMENTS, -(-held[1] // SEGMENTS)
        return _spread(low * SEGMENTS + free.middle, high * SEGMENTS + free.middle)
    left = capacity - message.others_bytes
    if message.this_process is not None and free is not None:
        left = message.this_process.middle + free.middle
    least, most = left - context.widest, left - context.low
    if held is not None:
        least = max(least, held[0])
        most = min(most, held[1] + (asked.high if asked is not None else most))
    elif message.allocated is not None:
        least = max(least, message.allocated.low)
    likeliest = left - context.bytes
    found = [likeliest] if least <= likeliest <= most else []
    count = FEW_ROOMS if message.allocated is None else MOST_ROOMS
    return [*found, *(size for size in _spread(least, most, count) if size not in found)]


def _spread(low: int, high: int, most: int = MOST_ROOMS) -> list[int]:
    """Every size from `low` to `high` that makes a difference, from the middle outwards; some of them, where there are
    more than `most`."""
    if low > high:
        return []
    middle = (low + high) // 2
    count = (high - low) // (2 * SEGMENTS) + 1
    stride = -(-count // (most // 2)) * SEGMENTS
    found = [middle]
    for distance in range(stride, count * SEGMENTS + 1, stride):
        found += [middle + distance, middle - distance]
    return [size for size in found if size > 0]


def agrees(failure: Failure, message: Message, asking: Asking | None) -> bool:
    """Whether a failure is what the message tells in every figure: asked, allocated, and reserved besides."""
    if asking is not None and not asking.matches(failure.size):
        return False
    if message.allocated is not None and failure.allocated not in message.allocated:
        return False
    if message.unallocated is not None and failure.reserved - failure.allocated not in message.unallocated:
        return False
    return message.reserved is None or failure.reserved in message.reserved


def failures(steps: Steps, settings: Settings, sizes: list[int]) -> list[Failure]:
    """How the run fails for every size of memory, in their order; those that do not fail are left out."""
    found = (run(steps.expansion, settings, room).failure for room in sizes)
    return [failure for failure in found if failure is not None]
