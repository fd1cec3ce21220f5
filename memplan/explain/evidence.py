"""What speaks for an allocation being a certain tensor of the plan, beside its size and order: how long it lives, and
that it comes from the same line of code as the others of that kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from memplan.explain.frames import Frame, Stacks
from memplan.explain.matches import Match
from memplan.explain.program import Program
from memplan.explain.story import Story

Stack = tuple[Frame, ...]
Kind = tuple[str, str, int, int]
"""Module with * for the layer, operation and size, and which of those in its layer: queries, keys, values."""

SLACK = 2
"""Allocations by which a lifetime may differ and still be nearly the planned one, and a tenth of it."""

MANY, FEW = 0.5, 0.25
"""Code that makes so many of a kind as the code that makes most of it is its own; code that makes so few is not."""


class Evidence:
    """What is known of the matches as a whole. Tensors of repeated layers count together: their code is the same."""

    def __init__(self, story: Story, program: Program, matches: Mapping[int, Match]) -> None:
        self.story = story
        self.program = program
        self.stacks = Stacks()
        self.matches = matches
        self.kinds: list[Kind] = []  # of each tensor
        self._seen: dict[Kind, Counter[Stack]] | None = None
        self._spans: dict[int, int] | None = None

    @property
    def seen(self) -> dict[Kind, Counter[Stack]]:
        """How often each kind of tensor was made by which code. Counted when first asked for: where all goes as planned
        nobody asks."""
        if self._seen is None:
            self._seen, self.kinds = {}, _kinds(self.program)
            for number, match in self.matches.items():
                stack = self.stacks.key(self.story.lives[number].frames)
                self._seen.setdefault(self.kinds[match.tensor], Counter())[stack] += 1
        return self._seen

    @property
    def spans(self) -> dict[int, int]:
        """How long each tensor of a step is planned to live."""
        if self._spans is None:
            self._spans = _spans(self.program)
        return self._spans

    def score(self, number: int, tensor: int) -> int:
        """How well an allocation goes with a tensor: more is better, 0 says nothing."""
        return 3 * self.code(number, tensor) + 2 * self.lifetime(number, tensor)

    def code(self, number: int, tensor: int) -> int:
        """1 where it comes from code that makes many of the kind, -1 where others make most of them, 0 where there are
        no frames or too little to compare with."""
        seen = self.seen
        stacks = seen.get(self.kinds[tensor])
        if not stacks:
            return 0
        usual, most = stacks.most_common(1)[0]
        own = self.stacks.key(self.story.lives[number].frames)
        if (not usual and not own) or most < 2:
            return 0
        share = stacks[own] / most
        return 1 if share >= MANY else -1 if share <= FEW else 0

    def lifetime(self, number: int, tensor: int) -> int:
        """2 where it lives exactly as long as planned, in allocations made meanwhile, 1 where nearly; less than 0 where
        it cannot be."""
        planned, life = self.spans.get(tensor), self.story.lives[number]
        if planned is None:
            return 0
        slack = SLACK + planned // 10
        if life.death is None:
            lived = self.story.births - life.birth - 1
            return -2 if lived > planned + slack else 0
        lived = life.death - life.birth - 1
        return 2 if lived == planned else 1 if abs(lived - planned) <= slack else -2


def _kinds(program: Program) -> list[Kind]:
    """The kind of every tensor."""
    counts: Counter[tuple[str, str, int]] = Counter()
    kinds: list[Kind] = []
    for tensor in program.tensors:
        own = (tensor.module, tensor.operation, tensor.size)
        kinds.append((tensor.allocation.module, tensor.operation, tensor.size, counts[own]))
        counts[own] += 1
    return kinds


def _spans(program: Program) -> dict[int, int]:
    """Tensor -> how many others are made while it lives; those that outlive the step, to the next zero_grad."""
    steady = program.steady
    births: dict[int, int] = {}
    spans: dict[int, int] = {}
    made = 0
    for token, number in zip(steady.tokens, steady.numbers, strict=True):
        if token > 0:
            births[number] = made
            made += 1
        elif number in births:
            spans[number] = made - births[number] - 1
    for number in program.carried:
        spans[number] = made - births[number] - 1
    return spans
