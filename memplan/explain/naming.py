"""What is alive at the peak of a recorded run, by the plan's names: what goes as planned, what lives too long, what is
in no plan, and what the plan has and the run has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.explain.layout import Life
from memplan.explain.matches import BEFORE, Match
from memplan.explain.placing import Placement
from memplan.explain.program import Program

Status = Literal["planned", "kept", "unplanned"]
STATUSES: tuple[Status, ...] = ("planned", "kept", "unplanned")


@dataclass(frozen=True, slots=True)
class Named:
    """An allocation alive at the peak. `tensor` is the plan's number of it (None: unplanned), `step` the step it is
    from; `kept` says that the plan has freed it by then."""

    life: Life
    status: Status
    tensor: int | None = None
    step: int = BEFORE


@dataclass(frozen=True, slots=True)
class Names:
    """All of it. `unseen` are the plan's tensors that should be alive and are not seen; `step` is the recorded step
    that has the peak (None: no step was recognised before it), `phase` the plan's phase there, "" where there is none.

    Of the plan's allocations in that step up to the peak, `found` of `planned` were found; `extra` others were made
    there.
    """

    alive: tuple[Named, ...]
    unseen: tuple[int, ...]
    step: int | None
    phase: str
    found: int
    planned: int
    extra: int

    @property
    def goes_with(self) -> bool:
        """Whether the run is the plan's, up to its peak: nine in ten of the allocations are there."""
        return self.step is not None and 10 * self.found >= 9 * self.planned


def names_at_peak(placement: Placement) -> Names:
    """Names for everything that is alive at the peak."""
    return _Naming(placement).names()


class _Naming:
    """The work in progress."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.story = placement.story
        self.program: Program = placement.program
        self.peak = self.story.peak.event
        self.last: Match | None = None
        self.place = -1
        for life in self.story.lives:
            match = placement.matches.get(life.number)
            if life.born > self.peak:
                break
            if match is not None and life.born >= 0:
                self.last, self.latest = match, life
        self.sooner, self.later = self.moments()
        self.taken: dict[int, int] = {}  # tensor -> the allocation that it is now

    def moments(self) -> tuple[set[int], set[int]]:
        """What the plan has alive: behind its last allocation that is found before the peak, and right before its next
        one. Where the peak is made by an allocation that is not planned, it lies between the two."""
        if self.last is None:
            program = self.program
            kept = set(program.before.numbers) if self.placement.from_start else set(program.steady.found)
            return kept, kept
        track = self.placement.track(self.last.step)
        birth = next(count for count, place in enumerate(track.births) if track.numbers[place] == self.last.tensor)
        self.place = place = track.births[birth]
        sooner = track.alive(place)
        if self.latest.born == self.peak:
            return sooner, sooner
        following = track.births[birth + 1] if birth + 1 < len(track.births) else len(track.tokens)
        return sooner, track.alive(following - 1)

    def names(self) -> Names:
        alive = self.story.alive(self.peak)
        matches = self.placement.matches
        named: dict[int, Named] = {}
        doubtful: list[tuple[Life, Match]] = []
        # The present step's tensors first: what an earlier step has left can stand for one that was not made again.
        for life in sorted(alive, key=lambda life: -life.born):
            match = matches.get(life.number)
            if match is None:
                continue
            tensor = self.now(match)
            if tensor in self.sooner and tensor not in self.taken:
                self.taken[tensor] = life.number
                named[life.number] = Named(life, "planned", tensor, match.step)
            else:
                doubtful.append((life, match))
        kept = {life.number: Named(life, "kept", match.tensor, match.step) for life, match in doubtful}
        codes = {life.number: self.placement.evidence.code(life.number, match.tensor) for life, match in doubtful}
        named.update((number, each) for number, each in kept.items() if codes[number] > 0)
        self.give_lasting(alive, named)
        for life, match in doubtful:
            if life.number not in named and codes[life.number] == 0 and self.is_among_its_own(life, match):
                named[life.number] = kept[life.number]
        everything = tuple(named.get(life.number) or Named(life, "unplanned") for life in alive)
        unseen = tuple(sorted(tensor for tensor in self.sooner & self.later if tensor not in self.taken))
        return Names(everything, unseen, *self.progress())

    def now(self, match: Match) -> int:
        """The plan's number of a tensor in the step that has the peak."""
        if self.last is not None and match.step == self.last.step - 1:
            return self.program.carried.get(match.tensor, match.tensor)
        return match.tensor

    def is_among_its_own(self, life: Life, match: Match) -> bool:
        """Whether what is made right before and after an allocation is what the plan makes there. That is what tells
        the plan's tensor that lives too long from another one, where its code says nothing."""
        matches, track = self.placement.matches, self.placement.track(match.step)
        births = [track.numbers[place] for place in track.births]
        if match.tensor not in births:
            return False
        at = births.index(match.tensor)
        for offset in (-1, 1):
            neighbour = matches.get(life.number + offset)
            expected = births[at + offset] if 0 <= at + offset < len(births) else None
            if expected is not None and (neighbour is None or neighbour.tensor != expected):
                return False
        return True

    def give_lasting(self, alive: list[Life], named: dict[int, Named]) -> None:
        """Weights, optimizer states and inputs that were not found in order, by size: those from before the trace, from
        a model that was built in another order, and batches that are made anew in every step. Where no step is known,
        all that a run keeps between two of them."""
        free = [life for life in alive if life.number not in named]
        lasting = [number for number in self.sooner if number < self.program.initial or self.last is None]
        self.give_by_size(lasting, free, named)
        # Of the step that the trace begins within, what was made before and is not freed after it.
        free = [life for life in free if life.number not in named and life.born < 0]
        self.give_by_size(list(self.sooner), free, named)

    def give_by_size(self, tensors: list[int], lives: list[Life], named: dict[int, Named]) -> None:
        """Tensors that are not found yet to allocations of their size; where a snapshot tells the sizes of blocks
        alone, to blocks of theirs."""
        wanted: dict[int, list[int]] = {}
        for tensor in sorted(tensors):
            if tensor not in self.taken:
                wanted.setdefault(self.program.tensors[tensor].size, []).append(tensor)
        free: dict[int, list[Life]] = {}
        blocks: dict[int, list[Life]] = {}
        for life in lives:
            free.setdefault(life.requested, []).append(life)
            if life.requested == life.size:
                blocks.setdefault(life.size, []).append(life)
        for size, same in wanted.items():
            self.give(same, free.get(size, []), named)
        for size, same in wanted.items():
            left = [tensor for tensor in same if tensor not in self.taken]
            rounded = blocks.get(self.story.settings.round_size(size), []) if left else []
            self.give(left, [life for life in rounded if life.number not in named], named)

    def give(self, tensors: list[int], candidates: list[Life], named: dict[int, Named]) -> None:
        """Tensors of one size to allocations of that size: optimizer states to what an optimizer made, as far as their
        code says so, then the rest in order."""
        chosen = self.likeliest(candidates, tensors)
        stacks = self.placement.evidence.stacks
        by_optimizer = {life.number: stacks.phase(life.frames) == "optimizer_step" for life in chosen}
        pairs: list[tuple[int, Life]] = []
        for state in (True, False):
            ours = [each for each in tensors if (self.program.tensors[each].component == "optimizer_state") == state]
            pairs += zip(ours, [life for life in chosen if by_optimizer[life.number] == state], strict=False)
        left = [tensor for tensor in tensors if tensor not in {each for each, _ in pairs}]
        others = [life for life in chosen if life.number not in {each.number for _, each in pairs}]
        for tensor, life in [*pairs, *zip(left, others, strict=False)]:
            self.taken[tensor] = life.number
            named[life.number] = Named(life, "planned", tensor, BEFORE)

    def likeliest(self, candidates: list[Life], tensors: list[int]) -> list[Life]:
        """As many allocations as there are tensors of their size: those whose code makes such tensors, then the oldest;
        in the order they were made."""
        if len(candidates) <= len(tensors):
            return candidates
        evidence = self.placement.evidence
        codes = {life.number: max(evidence.code(life.number, tensor) for tensor in tensors) for life in candidates}
        best = sorted(candidates, key=lambda life: (-codes[life.number], life.number))[: len(tensors)]
        return sorted(best, key=lambda life: life.number)

    def progress(self) -> tuple[int | None, str, int, int, int]:
        """The step of the peak, its phase, and how much of it went as planned up to there."""
        if self.last is None or self.last.step == BEFORE:
            return None, "", 0, 0, 0
        step, track = self.last.step, self.placement.track(self.last.step)
        phase = self.program.tensors[self.last.tensor].allocation.phase
        if self.last.tensor < self.program.initial:  # an optimizer state, made in the step
            phase = "optimizer_step"
        own = [
            life
            for life in self.story.lives
            if 0 <= life.born <= self.peak and (match := self.placement.matches.get(life.number)) and match.step == step
        ]
        numbers = [life.number for life in own]
        # A step that the trace begins within is looked at from there on.
        begun = step == 0 and not self.placement.from_start and bool(self.story.before)
        places = {track.numbers[place]: place for place in track.births}
        start = places.get(self.placement.matches[own[0].number].tensor, 0) if begun else 0
        planned = sum(start <= place <= self.place for place in track.births)
        first, last = numbers[0], max(life.number for life in self.story.lives if life.born <= self.peak)
        return step, phase, len(numbers), planned, last - first + 1 - len(numbers)
