"""A run from a fresh process on: several steps in a row, each tensor of each step with its birth and its death."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.expansion import Expansion
from memplan.ledger import INITIAL, Allocation
from memplan.replay import module_of
from memplan.timeline import Tensor, Timeline

BETWEEN = "between steps"
"""The phase in which what a step returns (the loss, the tokens) is dropped, behind every step but the last one."""


@dataclass(frozen=True, slots=True)
class FreshRun:
    """`timeline` begins before the first tensor. `starts` are the first events of its steps.

    `numbers` are, for every tensor of the last step as memplan.timeline.spelled_out has them, its number here; () where
    there is one step alone, which is no steady one.
    """

    timeline: Timeline
    starts: tuple[int, ...]
    numbers: tuple[int, ...]


def fresh_run(later: Expansion, steps: int) -> FreshRun:
    """`steps` steps (1 or more) of a run whose steady step is `later`, in the order in which memplan.replay.drive makes
    its calls of the allocator; what the last one returns is kept."""
    return _Writer(later).run(steps)


class _Writer:
    """The work in progress."""

    def __init__(self, later: Expansion) -> None:
        self.later = later
        self.first = later.first_step()
        self.tensors: list[tuple[Allocation, str]] = []
        self.born: list[int] = []
        self.died: list[int | None] = []
        self.events: list[int] = []
        self.phases: list[tuple[str, int]] = [(INITIAL, 0)]

    def run(self, steps: int) -> FreshRun:
        first, later = self.first, self.later
        absent = set(first.sources)
        present = [index for index in range(len(later.initial)) if index not in absent]
        for index, allocation in zip(present, first.initial, strict=True):
            self.give_birth(allocation, later.initial_layer(index))
        found = dict(zip(present, range(len(present)), strict=True))  # index into `initial` -> number
        starts: list[int] = []
        before, base = first, 0
        numbers: list[int] = []
        for step in range(steps):
            now = later if step else first
            carried: list[int] = []
            if step:
                if before.dropped:
                    self.phases.append((BETWEEN, len(self.events)))
                for ordinal in before.dropped:
                    self.kill(base + ordinal)
                found |= {first.sources[place]: base + ordinal for place, ordinal in enumerate(before.made)}
                carried = [base + ordinal for ordinal in before.carried]
            starts.append(len(self.events))
            base = len(self.tensors)
            self.spell(now, carried)
            numbers = [found[index] for index in range(len(later.initial))] if step else []
            if step:
                numbers += [*carried, *range(base, len(self.tensors))]
            before = now
        timeline = Timeline(
            tensors=tuple(
                Tensor(allocation, module, allocation.size, born, died)
                for (allocation, module), born, died in zip(self.tensors, self.born, self.died, strict=True)
            ),
            events=tuple(self.events),
            phases=tuple(self.phases),
        )
        return FreshRun(timeline, tuple(starts), tuple(numbers))

    def spell(self, now: Expansion, carried: list[int]) -> None:
        """One step; `carried` dies in its first phase."""
        base, ordinal = len(self.tensors), 0
        start = len(self.events)
        for number in carried:
            self.kill(number)
        first = len(self.events)
        self.phases += [(name, first + at if place else start) for place, (name, at) in enumerate(now.phases)]
        for event in now.events:
            if event < 0:
                self.give_birth(now.births[ordinal], now.layer(ordinal))
                ordinal += 1
            else:
                self.kill(base + event)

    def give_birth(self, allocation: Allocation, layer: int | None) -> None:
        self.born.append(len(self.events))
        self.died.append(None)
        self.events.append(len(self.tensors))
        self.tensors.append((allocation, module_of(allocation, layer)))

    def kill(self, number: int) -> None:
        self.died[number] = len(self.events)
        self.events.append(~number)
