"""Where a run as configured asks for no tensor like the message's: the sizes near it, and other settings with which the
run does ask for one. Every one of these is traced before it is told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from memplan.allocator import parse_settings
from memplan.check.remedy import LENGTHS
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.estimate import LedgerLine, backend_of, line_of, trace
from memplan.oom.asking import Asking, Sizes, tensor_sizes
from memplan.oom.candidates import Candidate
from memplan.oom.hints import Hints
from memplan.oom.message import Message
from memplan.oom.search import Search, asks_for_such_a_size, search
from memplan.ops.size import spell
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.runs import Run
    from memplan.ledger import Ledger

NEAREST = 4
ALTERNATIVES = 5
MOST_TRACED = 48
MOST_SEARCHED = 16

FAR = 10
"""What is allocated further off than this part of what the message says is another moment."""

TIMES = 16
"""Nobody gives a size that is more than so many times too large or too small."""

ROUND_LENGTH = 64
"""Lengths that people choose are multiples of it."""

_SETTINGS: dict[str, tuple[Any, ...]] = {
    "attention": ("naive", "sdpa"),
    "precision": ("fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"),
    "recompute": ("none", "full"),
    "loss": ("whole", "chunked"),
    "optimizer_implementation": ("for-loop", "foreach", "fused"),
    "padding": (True, False),
    "logits": ("all", "last"),
    "cache": ("dynamic", "static", "paged"),
}
"""What is often another than one thinks."""


@dataclass(frozen=True, slots=True)
class Near:
    """A size that the run does ask for: what the message would have said, in bytes, and a tensor of that size."""

    segment: int
    line: LedgerLine


@dataclass(frozen=True, slots=True)
class Alternative:
    """Other settings, with which the run asks for a tensor of the message's size: the likeliest one. `exact` says that
    a replay with them fails at it with every figure of the message."""

    changes: Mapping[str, Any]
    candidate: Candidate
    exact: bool


def nearest(message: Message, found: Search, shared: Shared) -> tuple[Near, ...]:
    """The sizes nearest to the one asked for, the nearest first, each once."""
    asking = Asking(message, parse_settings(found.allocator_settings, found.torch))
    by_segment: dict[int, LedgerLine] = {}
    for allocation in _ledger(found, shared).births():
        line = line_of(allocation, allocation.copies)
        known = by_segment.get(asking.segment(allocation.size))
        if known is None or line.size > known.size:
            by_segment[asking.segment(allocation.size)] = line
    order = sorted(by_segment, key=lambda segment: (abs(asking.asked.distance(segment)), segment))
    return tuple(Near(segment, by_segment[segment]) for segment in order[:NEAREST])


def alternatives(message: Message, hints: Hints, found: Search, shared: Shared) -> tuple[Alternative, ...]:
    """Settings with which the run does ask for it: those that agree in every figure; where there are none, those with
    nearly as much allocated by then as the message says, the nearest first."""
    settings = parse_settings(found.allocator_settings, found.torch)
    tried: list[tuple[bool, int, int, Alternative]] = []
    seen = {found.run}
    traced = searched = 0
    for of_size, changes in _changes(message, found, shared):
        exact = any(each.exact for *_, each in tried)
        if traced >= MOST_TRACED or searched >= MOST_SEARCHED or (exact and not of_size):
            break
        run = _changed(found, changes)
        if run is None or run in seen:
            continue
        seen.add(run)
        traced += 1
        try:
            if not asks_for_such_a_size(message, found.model, run, found.device, found.torch, settings):
                continue
            searched += 1
            result = search(
                message, hints, found.model, run, found.device, found.torch, found.allocator_settings, shared
            )
        except MemplanError:
            continue
        best = result.best
        if best is not None:
            told = {name: getattr(run, name) for name in changes}
            tried.append((not result.exact, best.apart, len(tried), Alternative(told, best, result.exact)))
    tried.sort(key=lambda each: each[:3])
    said = message.allocated
    worth = [each for not_exact, *_, each in tried if not not_exact]
    if not worth:
        near = said.high // FAR if said is not None else 0
        worth = [each for _, apart, _, each in tried if apart <= near]
    return tuple(worth[:ALTERNATIVES])


def _ledger(found: Search, shared: Shared) -> Ledger:
    return shared.ledger(found.model, found.run, backend_of(found.device, found.torch), trace)


def _changed(found: Search, changes: Mapping[str, Any]) -> Run | None:
    try:
        return validate_run(found.model, replace(found.run, **changes), found.device)
    except (MemplanError, TypeError):
        return None


def _changes(message: Message, found: Search, shared: Shared) -> Iterator[tuple[bool, dict[str, Any]]]:
    """What is tried: first other sizes, which is said, then other settings."""
    run = found.run
    sizes = [each for each in tensor_sizes(message) if not each.shared]
    ledger = _ledger(found, shared)
    votes: dict[tuple[str, int], int] = {}
    names = ["micro_batch_size", *LENGTHS]
    for shape, size in {(tuple(map(spell, each.shape)), each.size) for each in ledger.births()}:
        for name in names:
            present = getattr(run, name, 0)
            if isinstance(present, int) and present > 0:
                for value in _values(name, present, shape, size, sizes):
                    votes[name, value] = max(votes.get((name, value), 0), size)
    # The larger the tensor that would be it, the likelier.
    for name, value in sorted(votes, key=lambda key: (-votes[key], names.index(key[0]), key[1])):
        yield True, {name: value}
    for name, values in _SETTINGS.items():
        if name in type(run).__slots__:
            yield from ((False, {name: value}) for value in values if value != getattr(run, name))
    if isinstance(run, TrainingRun) and run.gradient_accumulation_steps == 1:
        yield False, {"gradient_accumulation_steps": 2}


def _values(name: str, present: int, shape: tuple[str, ...], size: int, sizes: list[Sizes]) -> Iterator[int]:
    """Values of a setting with which a tensor of this shape has one of the sizes. A setting that occurs in the formula
    twice counts squared."""
    power = sum(len(re.findall(rf"\b{name}\b", factor)) for factor in shape)
    if not power:
        return
    for each in sizes:
        low = ceil(present * (each.low / size) ** (1 / power) - 1e-9)
        high = floor(present * (each.high / size) ** (1 / power) + 1e-9)
        step = 1 if name == "micro_batch_size" else ROUND_LENGTH
        value = -(-max(low, 1) // step) * step
        # Where several values would do, the size says nothing of which it was.
        if value <= high < value + step and value != present and present <= value * TIMES <= present * TIMES**2:
            yield value
