"""Every recorded allocation laid beside the plan's: which tensor it is, of which step.

Rows of sizes that occur once in a planned step say where the recorded steps are (steps.py). Between two such places,
the longest common subsequence of births and deaths decides (alignment.py). Sizes and order are all that counts there;
where an allocation too many could be any of several equal ones, lifetimes and frames say which (sliding.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from memplan.explain.alignment import align, anchors, once
from memplan.explain.evidence import Evidence
from memplan.explain.layout import Life
from memplan.explain.matches import BEFORE, Match
from memplan.explain.program import Program, Track, in_order
from memplan.explain.sliding import slide
from memplan.explain.steps import in_steps
from memplan.explain.story import Story

WIDTHS = (8, 6, 4, 3, 2, 1)
"""How many sizes in a row make a place known; those are taken that find most."""

SEPARATOR = 0  # no size


class Spot(NamedTuple):
    """A place in the recorded sequence that is known: token `at` is token `place` of step `step`'s track."""

    at: int
    step: int
    place: int


class Placement:
    """The result. `matches` are by the number of the allocation, `steps` how many were recognised; `from_start` says
    that the first of these is the first of the run."""

    def __init__(self, story: Story, program: Program) -> None:
        self.program = program
        self.story = story
        events: list[tuple[int, int]] = []
        for number in story.order:
            size = max(story.lives[number if number >= 0 else ~number].requested, 1)
            events.append((size, number) if number >= 0 else (-size, ~number))
        self.recorded = Track(in_order(events), ())
        self.matches: dict[int, Match] = {}
        self.from_start = False
        spots = self._spots()
        self.steps = 1 + max((spot.step for spot in spots), default=-1)
        if spots:
            self._fill(spots)
        self.evidence = Evidence(story, program, dict(self.matches))
        order = [self.recorded.numbers[place] for place in self.recorded.births]
        slide(order, story.lives, self.matches, self.evidence)

    def track(self, step: int) -> Track:
        """The plan of a step."""
        if step == BEFORE:
            return self.program.before
        return self.program.first if step == 0 and self.from_start else self.program.steady

    # ---- where the steps are

    def _spots(self) -> list[Spot]:
        """The places that are known, in order."""
        recorded, before, steady = self.recorded, self.program.before, self.program.steady
        lives, steps = self.story.lives, len(steady.births)
        sizes = [[track.tokens[place] for place in track.births] for track in (recorded, before, steady)]
        # What lives on through the steps is none of a step's own tensors: weights, optimizer states.
        lasting = [
            _lives_on(lives[recorded.numbers[place]], self.story.births, steps + steps // 4)
            for place in recorded.births
        ]
        signs = [lasting, [True] * len(before.births), [False] * steps]
        signed = [
            [2 * size + sign for size, sign in zip(each, of_each, strict=True)]
            for each, of_each in zip(sizes, signs, strict=True)
        ]
        early, chain = _chain(*signed)
        if not chain:
            early, chain = _chain(*sizes)
        spots = [Spot(recorded.births[at], BEFORE, before.births[place]) for at, place in early]
        return spots + [Spot(recorded.births[at], step, steady.births[place]) for at, step, place in chain]

    # ---- what lies between

    def _fill(self, spots: list[Spot]) -> None:
        """Match everything between the known places."""
        first = next(number for number, spot in enumerate(spots) if spot.step == 0)
        following = next((number for number, spot in enumerate(spots) if spot.step == 1), len(spots))
        later = self._pairs(spots[following:], tail=True)
        # Whether the first step that is recognised is the run's first is what explains more of it.
        steady, opening = (
            self._pairs(self._renumbered(spots[: following + 1], early), tail=following == len(spots), early=early)
            for early in (False, True)
        )
        self.from_start = len(opening) > len(steady) or (len(opening) == len(steady) and first > 0)
        self.matches = {**(opening if self.from_start else steady), **later}

    def _renumbered(self, spots: list[Spot], early: bool) -> list[Spot]:
        """The spots of the first step in the places of the track that is tried for it."""
        self.from_start = early
        places = self.track(0)
        moved = _moved(self.program) if early else None
        kept = [spot for spot in spots if early or spot.step != BEFORE]
        return [
            spot._replace(place=places.births[moved[self.program.steady.numbers[spot.place]]])
            if moved is not None and spot.step == 0
            else spot
            for spot in kept
        ]

    def _pairs(self, spots: list[Spot], tail: bool = False, early: bool | None = None) -> dict[int, Match]:
        """Matches between the spots: before the first of them too, or behind the last one (`tail`)."""
        found: dict[int, Match] = {}
        if not spots:
            return found
        if early is not None:
            opening = spots[0]
            reference = self._reference(None if early else opening, opening, early)
            self._match(0, opening.at, reference, found, from_end=True)
        for one, other in pairwise(spots):
            self._match(one.at, other.at, self._reference(one, other, early), found)
        if tail:
            one = spots[-1]
            self._match(one.at, len(self.recorded.tokens), self._reference(one, None, early), found)
        return found

    def _reference(self, one: Spot | None, other: Spot | None, early: bool | None) -> list[tuple[int, int, int]]:
        """The plan from one spot to another as (token, tensor, step): from what is made first where there is no `one`,
        through the rest of the step and the next one where there is no `other`. Where both are the same, from the
        middle of the step before on."""
        if one is None:
            assert other is not None
            if other.step == BEFORE:
                return _part(self.program.before, BEFORE, 0, other.place)
            return [*_part(self.program.before, BEFORE, 0), *_part(self.track(0), 0, 0, other.place)]
        if other is None:
            return [
                *_part(self.track(one.step), one.step, one.place),
                *_part(self.program.steady, one.step + 1, 0, len(self.program.steady.tokens) // 2),
            ]
        if one is other:
            half = len(self.program.steady.tokens) // 2
            return [*_part(self.program.steady, BEFORE, half), *_part(self.track(0), 0, 0, other.place)]
        if one.step == other.step:
            return _part(self.track(one.step), one.step, one.place, other.place)
        return [
            *_part(self.track(one.step), one.step, one.place),
            *_part(self.track(other.step), other.step, 0, other.place),
        ]

    def _match(
        self,
        start: int,
        stop: int,
        reference: list[tuple[int, int, int]],
        found: dict[int, Match],
        from_end: bool = False,
    ) -> None:
        """Match recorded tokens with planned ones. Of several ways the earliest places are taken; from the end, where
        that is what is known."""
        tokens, numbers = self.recorded.tokens[start:stop], self.recorded.numbers[start:stop]
        planned = [token for token, _, _ in reference]
        if from_end:
            last, end = len(tokens) - 1, len(planned) - 1
            pairs = [(last - at, end - place) for at, place in align(tokens[::-1], planned[::-1])]
        else:
            pairs = align(tokens, planned)
        for at, place in pairs:
            # What was made before the trace begins is known by its death alone.
            if tokens[at] > 0 or self.story.lives[numbers[at]].born < 0:
                _, tensor, step = reference[place]
                found[numbers[at]] = Match(tensor, step)


def _part(track: Track, step: int, start: int, stop: int | None = None) -> list[tuple[int, int, int]]:
    part = slice(start, stop)
    return [(token, number, step) for token, number in zip(track.tokens[part], track.numbers[part], strict=True)]


def _moved(program: Program) -> dict[int, int]:
    """Tensor -> the how-manieth birth of the first step it is."""
    first = program.first
    return {first.numbers[place]: count for count, place in enumerate(first.births)}


def _chain(
    recorded: Sequence[int], before: Sequence[int], steady: Sequence[int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
    """The known places of what is made before the first step, and those of the steps."""
    planned = [*before, SEPARATOR, *steady]
    best: list[tuple[int, int, int]] = []
    early: list[tuple[int, int]] = []
    for width in WIDTHS:
        known = once(planned, width)
        found = anchors(recorded, known, width)
        possible = sum(place > len(before) for place in known.values())
        chain = in_steps([(at, place - len(before) - 1) for at, place in found if place > len(before)], possible)
        if len(chain) > len(best):
            best, start = chain, chain[0][0]
            early = _rising([(at, place) for at, place in found if place < len(before) and at < start])
    return early, best


def _lives_on(life: Life, births: int, limit: int) -> bool:
    """Whether more than `limit` others are made while it lives."""
    return (births if life.death is None else life.death) - life.birth - 1 > limit


def _rising(found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without places that do not lie behind all before them."""
    kept: list[tuple[int, int]] = []
    for at, place in found:
        if not kept or place > kept[-1][1]:
            kept.append((at, place))
    return kept
