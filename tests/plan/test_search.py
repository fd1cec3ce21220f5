"""The largest size that fits, against looking at every one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.plan.search import MOST_LOOKED_AT, SPREAD, largest


@dataclass
class Memory:
    """Tensors that take `base + slope * size`, an allocator that adds what no rule says, and sizes up to `end` that can
    be had at all. What is asked for is noted."""

    base: int
    slope: int
    noise: tuple[int, ...]
    run: int
    end: int
    asked: list[int] = field(default_factory=list)

    def floor(self, size: int) -> int | None:
        return self.base + self.slope * size if size <= self.end else None

    def need(self, size: int) -> int | None:
        floor = self.floor(size)
        return None if floor is None else floor + self.noise[size // self.run % len(self.noise)]

    def upper(self, size: int) -> int | None:
        assert size not in self.asked
        self.asked.append(size)
        return self.need(size)

    def brute(self, limit: int, most: int) -> int:
        sizes = range(1, min(most, self.end) + 1)
        return max((size for size in sizes if (self.need(size) or 0) <= limit), default=0)


MEMORIES = st.builds(
    Memory,
    base=st.integers(0, 2000),
    slope=st.integers(0, 50),
    noise=st.lists(st.one_of(st.just(0), st.integers(0, 3000)), min_size=1, max_size=40).map(tuple),
    run=st.sampled_from([1, 1, 3, 20]),
    end=st.integers(1, 1200),
)


@settings(max_examples=1000, deadline=None)
@given(MEMORIES, st.integers(0, 30_000), st.sampled_from([1, 5, MOST_LOOKED_AT, 300, 1000]))
def test_against_every_size(memory: Memory, limit: int, most: int) -> None:
    found = largest(memory.floor, memory.upper, limit, most)
    best = memory.brute(limit, most)
    assert found.size == best if found.certain else found.size <= best
    if found.size:
        assert found.upper == memory.need(found.size)
        assert found.upper <= limit
    below = range(max(found.size - 3, 1), found.size)
    assert found.gaps == tuple(size for size in below if (memory.need(size) or 0) > limit)


@given(MEMORIES, st.integers(0, 30_000), st.sampled_from([5, 300, 1000]))
def test_of_memory_that_grows_with_the_size_it_is_the_largest(memory: Memory, limit: int, most: int) -> None:
    memory.noise = (memory.noise[0],)
    found = largest(memory.floor, memory.upper, limit, most)
    assert found.size == memory.brute(limit, most)
    assert found.gaps == ()


def test_few_sizes_are_all_looked_at() -> None:
    """One that fits beyond 40 that do not, at the top of those whose tensors would."""
    memory = Memory(0, 1, (0, 0, *[1000] * 40, 0), 1, 42)
    found = largest(memory.floor, memory.upper, 42, 1 << 16)
    assert (found.size, found.certain, found.gaps) == (42, True, (39, 40, 41))


def test_of_many_sizes_some_all_over_are_looked_at_and_that_is_said() -> None:
    """Up to 100 fit, and from 600 to 700 again; tensors would up to 1,000."""
    noise = [10**6 if 100 < size < 600 or size > 700 else 0 for size in range(1001)]
    memory = Memory(0, 1, tuple(noise), 1, 1000)
    found = largest(memory.floor, memory.upper, 1000, 1 << 16)
    assert (found.size, found.certain) == (700, False)
    assert len(memory.asked) < 80 + 2 * SPREAD


def test_the_cost_of_a_long_way() -> None:
    memory = Memory(100, 1, (0,), 1, 1 << 30)
    asked: list[int] = []

    def floor(size: int) -> int:
        asked.append(size)
        return memory.base + size

    found = largest(floor, lambda size: memory.upper(size), 4_000_000, 1 << 22)
    assert (found.size, found.certain) == (3_999_900, True)
    assert len(asked) == len(set(asked)) < 50


def test_nothing_fits() -> None:
    memory = Memory(100, 1, (0,), 1, 1000)
    assert largest(memory.floor, memory.upper, 100, 1000).size == 0
    assert memory.asked == []
