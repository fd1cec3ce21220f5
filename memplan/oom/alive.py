"""What was alive when a tensor was asked for: whose the bytes were, and which tensors were the biggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memplan.estimate import COMPONENTS, LedgerLine, line_of
from memplan.ledger import Allocation
from memplan.oom.candidates import Candidate
from memplan.oom.steps import Steps
from memplan.timeline import Tensor


@dataclass(frozen=True, slots=True)
class Alive:
    """The tensors that exist just before a request. `components` are the bytes of their blocks, every name of
    COMPONENTS, and add up to `allocated`; `largest` are lines of the ledger, the largest total first, with the bytes
    that were asked for."""

    allocated: int
    components: dict[str, int]
    largest: tuple[LedgerLine, ...]


def alive_at(candidate: Candidate, steps: Steps, unbounded: Sequence[int]) -> Alive:
    """What is alive before the birth of a candidate. `unbounded` are the blocks of a replay without a limit, for one
    that no replay has failed at; () where there are no blocks (the CPU)."""
    stage = steps.later if candidate.step == "later" else steps.first
    tensors = stage.timeline.tensors
    failure = candidate.failure
    if failure is not None:
        blocks = steps.blocks(failure.blocks, max(failure.step, 1))
    elif unbounded:
        blocks = steps.blocks(unbounded, 1 if stage.name == "first" else 3)
    else:
        blocks = [tensor.size for tensor in tensors]
    if candidate.step == "loading":
        numbers = list(range(candidate.number))
    else:
        numbers = stage.timeline.alive(candidate.tensor.born - 1)
    components = dict.fromkeys(COMPONENTS, 0)
    for number in numbers:
        components[tensors[number].component] += blocks[number]
    return Alive(sum(components.values()), components, _largest([tensors[number] for number in numbers]))


def _largest(tensors: Sequence[Tensor]) -> tuple[LedgerLine, ...]:
    """Equal tensors of repeated layers are one line."""
    counts: dict[tuple[object, ...], int] = {}
    examples: dict[tuple[object, ...], Allocation] = {}
    for tensor in tensors:
        each = tensor.allocation
        key = (each.module, each.operation, each.size, each.component, each.saved_by)
        counts[key] = counts.get(key, 0) + 1
        examples.setdefault(key, each)
    lines = [line_of(examples[key], count) for key, count in counts.items()]
    return tuple(sorted(lines, key=lambda line: -line.size * line.copies))
