"""The plan as a sequence that a trace can be laid beside: what exists before, the first step, and every later one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memplan.expansion import Expansion, expand
from memplan.timeline import Tensor, Timeline, spelled_out

if TYPE_CHECKING:
    from memplan.ledger import Ledger


class Track:
    """Births and deaths in order. `tokens` are +size for a birth and -size for a death, `numbers` the tensors they are
    of; `births` are the places of the births. `found` are the tensors alive before.

    Deaths between the same two births come in the order of their sizes: PyTorch frees a node's tensors in an order of
    its own.
    """

    __slots__ = ("births", "found", "numbers", "tokens")

    def __init__(self, events: Sequence[tuple[int, int]], found: Sequence[int]) -> None:
        ordered = in_order(events)
        self.tokens = [token for token, _ in ordered]
        self.numbers = [number for _, number in ordered]
        self.births = [place for place, token in enumerate(self.tokens) if token > 0]
        self.found = tuple(found)

    def alive(self, place: int) -> set[int]:
        """The tensors alive behind token number `place`; -1 is before the first."""
        alive = set(self.found)
        for token, number in zip(self.tokens[: place + 1], self.numbers, strict=False):
            if token > 0:
                alive.add(number)
            else:
                alive.discard(number)
        return alive


class Program:
    """A plan's tensors, numbered as in the timeline of its steady step, and its three tracks.

    `before` are parameters and inputs, in the order they are made. `carried` maps the tensors that a step leaves to the
    next one (gradients) to what they are there.
    """

    __slots__ = ("before", "carried", "first", "initial", "steady", "tensors", "timeline")

    def __init__(self, ledger: Ledger) -> None:
        step = expand(ledger)
        self.timeline: Timeline = spelled_out(step)
        self.tensors: tuple[Tensor, ...] = self.timeline.tensors
        self.initial = len(step.initial)
        base = self.initial + len(step.carried)
        self.carried = {base + ordinal: self.initial + place for place, ordinal in enumerate(step.carried)}
        first, made = step.first_step(), {index for _, _, index in step.created}
        there = [number for number in range(self.initial) if number not in made]
        self.before = Track([(self.tensors[number].size, number) for number in there], ())
        self.first = Track(self._of_first(first, base), there)
        steady = [
            (self.tensors[event].size, event) if event >= 0 else (-self.tensors[~event].size, ~event)
            for event in self.timeline.events
        ]
        self.steady = Track(steady, range(base))

    def _of_first(self, first: Expansion, base: int) -> list[tuple[int, int]]:
        """The events of the first step, in the steady step's numbers."""
        numbers: list[int] = []
        sources = dict(zip(first.made, first.sources, strict=True))
        for ordinal in range(len(first.births)):
            numbers.append(
                sources[ordinal] if ordinal in sources else base + ordinal - bisect_left(first.made, ordinal)
            )
        events: list[tuple[int, int]] = []
        born = 0
        for event in first.events:
            if event < 0:
                events.append((-event, numbers[born]))
                born += 1
            else:
                events.append((-first.births[event].size, numbers[event]))
        return events


def in_order(events: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Events as (token, number), with the deaths between the same two births in the order of their sizes."""
    ordered: list[tuple[int, int]] = []
    deaths: list[tuple[int, int]] = []
    for token, number in events:
        if token < 0:
            deaths.append((token, number))
            continue
        deaths.sort()
        ordered += deaths
        deaths.clear()
        ordered.append((token, number))
    deaths.sort()
    return ordered + deaths
