"""What must hold for every sequence of allocations and frees, and the simulation against one written to be read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.allocator import Block, CachingAllocator, OutOfMemory, Settings
from memplan.units import KIB, MIB

from .slow import SlowAllocator

EXAMPLES = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

SIZES = st.one_of(
    st.integers(1, 3000),
    st.sampled_from((512, 512 * KIB, MIB, MIB + 1, 2 * MIB, 5 * MIB, 10 * MIB, 20 * MIB, 30 * MIB)),
    st.integers(1, 2 * MIB),
    st.integers(MIB + 1, 12 * MIB),
    st.integers(10 * MIB, 130 * MIB),
)
"""On both sides of every boundary, and often equal."""

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("allocate"), SIZES, st.sampled_from((0, 0, 0, 5))),
        st.tuples(st.just("allocate"), SIZES, st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 1000), st.just(0)),
        st.tuples(st.just("empty"), st.just(0), st.just(0)),
    ),
    max_size=60,
)

Operation = tuple[str, int, int]


@dataclass
class Run:
    """An allocator after some operations: the blocks in use, and what it took and gave back."""

    cache: CachingAllocator
    live: list[Block]
    changes: list[tuple[str, int, int]]
    refused: int = 0


class Noting(CachingAllocator):
    changes: list[tuple[str, int, int]]

    def record(self, action: str, address: int, size: int, stream: int) -> None:
        self.changes.append((action.removeprefix("segment_"), address, size))


def make(cache: CachingAllocator) -> Run:
    changes: list[tuple[str, int, int]] = []
    if isinstance(cache, Noting):
        cache.changes = changes
    return Run(cache, [], changes)


def apply(run: Run, operation: Operation) -> None:
    action, number, stream = operation
    if action == "allocate":
        try:
            run.live.append(run.cache.allocate(number, stream))
        except OutOfMemory:
            run.refused += 1
    elif action == "free" and run.live:
        run.cache.free(run.live.pop(number % len(run.live)))
    elif action == "empty":
        run.cache.empty_cache()


def pieces(run: Run) -> list[tuple[int, int, bool, bool]]:
    """All blocks by address: address, bytes, in use, mapped."""
    found = [(block.address, block.size, True, True) for block in run.live]
    for pools in (run.cache.small, run.cache.large):
        for pool in pools.values():
            found += [(block.address, block.size, False, True) for block in pool.blocks.values()]
            found += [(block.address, block.size, False, False) for block in pool.unmapped]
    return sorted(found)


def check(run: Run) -> None:
    """Every law, at any moment."""
    cache = run.cache
    blocks = pieces(run)
    for (address, size, *_), (following, *_) in pairwise(blocks):
        assert address + size <= following, "two blocks overlap"
    assert cache.allocated == sum(block.size for block in run.live)
    assert cache.requested == sum(block.requested for block in run.live)
    assert cache.requested <= cache.allocated <= cache.reserved
    assert cache.allocated <= cache.peak_allocated <= cache.peak_reserved
    assert cache.reserved == sum(size for _, size, _, mapped in blocks if mapped)
    assert cache.capacity is None or cache.peak_reserved <= cache.capacity
    for pools in (cache.small, cache.large):
        for pool in pools.values():
            assert pool.keys == sorted(pool.blocks)
            assert all(block.key == key and block.free and block.mapped for key, block in pool.blocks.items())
            check_segments(pool.blocks.values())
    check_segments(run.live)


def check_segments(blocks: Any) -> None:
    """The chain through each block tiles its segment, and no two free neighbours are left unmerged."""
    for block in blocks:
        first = block
        while first.prev is not None:
            assert first.prev.next is first
            first = first.prev
        segment, address = first.segment, first.segment.address
        link: Block | None = first
        while link is not None:
            assert link.segment is segment
            assert link.address == address
            address += link.size
            following = link.next
            if following is not None:
                same = following.mapped == link.mapped
                assert not (same and (not link.mapped or (link.free and following.free)))
            link = following
        assert address == segment.address + segment.size


CONFIGURATIONS = st.builds(
    Settings,
    expandable_segments=st.booleans(),
    max_split_size=st.sampled_from((None, None, 32 * MIB, 35 * MIB, 60 * MIB)),
    roundup_power2_divisions=st.sampled_from(((), (), (4,) * 16, (2, 8, 4, 0) * 4)),
    max_non_split_rounding=st.sampled_from((20 * MIB, 50 * MIB)),
    garbage_collection_threshold=st.sampled_from((0.0, 0.2, 0.7)),
    large_segment_size=st.sampled_from((20 * MIB, 20 * MIB, 32 * MIB)),
    memory_fraction=st.sampled_from((1.0, 0.6)),
    ties=st.sampled_from(("address", "serial", "segment")),
)
CAPACITIES = st.sampled_from((None, 64 * MIB, 200 * MIB, 500 * MIB))


@EXAMPLES
@given(configuration=CONFIGURATIONS, capacity=CAPACITIES, operations=OPERATIONS)
def test_laws(configuration: Settings, capacity: int | None, operations: list[Operation]) -> None:
    run = make(CachingAllocator(configuration, capacity, device_memory=capacity or 500 * MIB))
    for operation in operations:
        apply(run, operation)
        check(run)
    for block in run.live:
        run.cache.free(block)
    run.live.clear()
    check(run)
    run.cache.empty_cache()
    assert run.cache.reserved == run.cache.allocated == run.cache.requested == 0
    # Address space of an expandable segment that found no memory may be left, and nothing else.
    assert not any(mapped for *_, mapped in pieces(run))


@EXAMPLES
@given(configuration=CONFIGURATIONS, capacity=CAPACITIES, operations=OPERATIONS)
def test_the_same_operations_give_the_same_segments(
    configuration: Settings, capacity: int | None, operations: list[Operation]
) -> None:
    runs = [make(Noting(configuration, capacity, device_memory=capacity or 500 * MIB)) for _ in range(2)]
    for run in runs:
        for operation in operations:
            apply(run, operation)
    assert runs[0].changes == runs[1].changes
    assert pieces(runs[0]) == pieces(runs[1])


@EXAMPLES
@given(
    ties=st.sampled_from(("address", "serial", "segment")),
    limit=st.sampled_from((None, None, 20, 25, 60)),
    rounding=st.sampled_from((20, 50)),
    capacity=CAPACITIES,
    expandable=st.booleans(),
    operations=OPERATIONS,
)
def test_the_slow_allocator_agrees(
    ties: str,
    limit: int | None,
    rounding: int,
    capacity: int | None,
    expandable: bool,
    operations: list[Operation],
) -> None:
    configuration = Settings(
        expandable_segments=expandable,
        max_split_size=None if limit is None else limit * MIB,
        max_non_split_rounding=rounding * MIB,
        ties=ties,
    )
    run = make(Noting(configuration, capacity))
    slow = SlowAllocator(ties, limit, rounding, capacity, expandable)
    live: list[tuple[int, int]] = []
    for operation in operations:
        action, number, stream = operation
        apply(run, operation)
        if action == "allocate":
            found = slow.allocate(number, stream)
            if found is not None:
                live.append(found)
        elif action == "free" and live:
            slow.free(live.pop(number % len(live))[0])
        elif action == "empty":
            slow.empty()
        assert [(block.address, block.size) for block in run.live] == live
        assert run.changes == slow.changes
        assert pieces(run) == slow.state()
        assert run.cache.reserved == slow.reserved
