"""How long the caching allocator's simulation takes for the steps of a training run, beside plain Python.

    python benchmarks/allocator.py [ROUNDS]

The yardstick is what any replay has to do: make an object for each allocation, keep those alive in the order of their
sizes, and find the peak of their bytes. Both meet the same machine in turns, and the best times are compared. Exits 1
where a bound is missed.
"""

from __future__ import annotations

import platform
import sys
import time
from bisect import bisect_left, insort
from collections.abc import Callable

from memplan.allocator import Block, CachingAllocator, Settings
from memplan.units import KIB, MIB

Event = tuple[int, int]
"""Number of the allocation, and its bytes; 0 bytes free it."""

LAYERS, STEPS = 126, 3
TIMES_BOUND = 4.0  # the yardstick
EVENT_AIM = 2.0  # microseconds; machines differ, so missing it is no failure

OUTPUTS = (8 * MIB, 24 * MIB, 8 * MIB, 8 * MIB + 512 * KIB, 64 * KIB, 28 * MIB, 28 * MIB, 8 * MIB, 16 * KIB, 8 * MIB)
"""Bytes of what a layer's operations make, one after another."""

ROUNDS_A_LAYER = 6
SETTINGS = {
    "default": Settings(),
    "PyTorch 2.12": Settings(ties="serial"),
    "expandable_segments": Settings(expandable_segments=True),
    "max_split_size_mb:64": Settings(max_split_size=64 * MIB),
    "roundup_power2_divisions:4": Settings(roundup_power2_divisions=(4,) * 16),
}


def training_step() -> list[Event]:
    """Forward: each operation frees the input of the one before it, but for every third, which is saved. Backward: in
    the opposite order, a gradient and a temporary for each saved one, freed in turn. At the end nothing is alive."""
    events: list[Event] = []
    saved: list[int] = []
    made = 0
    for _ in range(LAYERS):
        before: list[int] = []
        for number in range(ROUNDS_A_LAYER * len(OUTPUTS)):
            events.append((made, OUTPUTS[number % len(OUTPUTS)]))
            before.append(made)
            made += 1
            if len(before) == 3:
                first = before.pop(0)
                if number % 3 == 0:
                    saved.append(first)
                else:
                    events.append((first, 0))
        events += [(one, 0) for one in before]
    gradient = made
    events.append((gradient, OUTPUTS[0]))
    made += 1
    for number, one in enumerate(reversed(saved)):
        events += [(made, OUTPUTS[number % len(OUTPUTS)]), (made + 1, OUTPUTS[(number + 1) % len(OUTPUTS)])]
        events += [(gradient, 0), (made + 1, 0), (one, 0)]
        gradient = made
        made += 2
    events.append((gradient, 0))
    return events


class Allocation:
    __slots__ = ("key", "size")

    def __init__(self, number: int, size: int) -> None:
        self.size = size
        self.key = size << 64 | number


def yardstick(events: list[Event]) -> int:
    """The peak of the bytes alive."""
    peak = alive = 0
    keys: list[int] = []
    allocations: dict[int, Allocation] = {}
    for _ in range(STEPS):
        for number, size in events:
            if size:
                allocations[number] = allocation = Allocation(number, size)
                insort(keys, allocation.key)
                alive += size
                if alive > peak:
                    peak = alive
            else:
                allocation = allocations.pop(number)
                del keys[bisect_left(keys, allocation.key)]
                alive -= allocation.size
    return peak


def simulate(events: list[Event], settings: Settings) -> CachingAllocator:
    cache = CachingAllocator(settings)
    allocate, free = cache.allocate, cache.free
    blocks: dict[int, Block] = {}
    for _ in range(STEPS):
        for number, size in events:
            if size:
                blocks[number] = allocate(size)
            else:
                free(blocks.pop(number))
    return cache


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    events = training_step()
    total = STEPS * len(events)
    print(f"{len(events):,} events x {STEPS} steps, best of {rounds} rounds, Python {platform.python_version()}")
    print(f"{'':28}{'ms':>8}{'us/event':>10}{'x plain':>9}{'reserved':>10}{'allocated':>11}  (MiB at the peak)")
    missed = False
    for name, settings in SETTINGS.items():
        plain = taken = float("inf")
        for _ in range(rounds):
            plain = min(plain, seconds(lambda: yardstick(events)))
            taken = min(taken, seconds(lambda settings=settings: simulate(events, settings)))  # type: ignore[misc]
        cache = simulate(events, settings)
        each, times = taken / total * 1e6, taken / plain
        kept = times <= TIMES_BOUND
        missed |= not kept
        print(
            f"{name:28}{taken * 1e3:8.1f}{each:10.2f}{times:9.1f}{cache.peak_reserved / MIB:10,.0f}"
            f"{cache.peak_allocated / MIB:11,.0f}  {'ok' if kept else 'MISSED'}"
        )
    print(f"bound: {TIMES_BOUND} times plain Python; aim: {EVENT_AIM} us an event")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
