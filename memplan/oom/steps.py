"""A run as it goes from the start, tensor by tensor: loading, the first step, and every later one.

The first step of a fresh process finds neither optimizer states nor gradients, and makes the states and the workspaces
of libraries where it needs them first; each later one finds both (memplan/replay.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memplan.expansion import Expansion
from memplan.ledger import INITIAL
from memplan.timeline import Timeline, spelled_out, written_down

Name = Literal["loading", "first", "later"]


@dataclass(frozen=True, slots=True)
class Stage:
    """The first step, or any later one. Tensor number `offset` and those behind it are its births, in order; those
    before it are found: first `found` of them that stay, then the gradients of the step before."""

    name: Name
    timeline: Timeline
    found: int
    offset: int

    def phase(self, event: int) -> str:
        """The phase of an event; that of loading for what was there before (event -1)."""
        if event < 0:
            return INITIAL
        starts = [start for _, start in self.timeline.phases]
        at = bisect_left(starts, event + 1) - 1
        return self.timeline.phases[at][0]


class Steps:
    """The stages of a run. `first` and `later` are the same where no step leaves anything behind."""

    def __init__(self, expansion: Expansion) -> None:
        self.expansion = expansion
        self.beginning = expansion.first_step()
        self.created = {index for _, _, index in expansion.created}
        self.later = Stage(
            "later",
            spelled_out(expansion),
            len(expansion.initial),
            len(expansion.initial) + len(expansion.carried),
        )
        self.first = self._first()

    @property
    def alike(self) -> bool:
        """Whether the first step is as all others."""
        return not self.created and not self.expansion.carried

    def stages(self) -> tuple[Stage, ...]:
        """Each kind of step once, in order."""
        return (self.first,) if self.alike else (self.first, self.later)

    def _first(self) -> Stage:
        expansion, step = self.expansion, self.beginning
        found = [
            (each, expansion.initial_layer(index))
            for index, each in enumerate(expansion.initial)
            if index not in self.created
        ]
        return Stage("first", written_down(found, step), len(found), len(found))

    def blocks(self, sizes: Sequence[int], step: int) -> list[int]:
        """The sizes of the blocks of step number `step` by tensor of its stage, of `sizes`, those of all allocations of
        a run in order. They end where the run did: what has no block yet is left out."""
        first = len(self.beginning.initial)
        if step == 1:
            return list(sizes[: first + len(self.beginning.births)])
        before = first + (len(self.beginning.births) + (step - 2) * len(self.expansion.births))
        if step == 2:
            births, carried = first, self.beginning.carried
        else:
            births, carried = before - len(self.expansion.births), self.expansion.carried
        stays = dict(zip(self.beginning.sources, self.beginning.made, strict=True))
        kept = iter(sizes[:first])
        found = [
            sizes[first + stays[index]] if index in self.created else next(kept)
            for index in range(len(self.expansion.initial))
        ]
        left = [sizes[births + ordinal] for ordinal in carried]
        return [*found, *left, *sizes[before : before + len(self.expansion.births)]]
