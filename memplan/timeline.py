"""A run as a reader sees it over time: every tensor with its name, its birth and its death. Torch-free.

A timeline is a ledger spelled out (memplan/expansion.py): each layer has its own tensors, named for it as in
`decoder.layers.17.attention`. Time is counted in events, births and deaths. A training step is shown in its steady
state, so it begins with the gradients of the step before, which its first phase, zero_grad, frees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan.config.device import Device
from memplan.config.validate import validate_model, validate_run
from memplan.expansion import Expansion, expand
from memplan.ledger import INITIAL, Allocation, Ledger
from memplan.ops.backend import CURRENT
from memplan.replay import module_of

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run


@dataclass(frozen=True, slots=True)
class Tensor:
    """One allocation. `size` is in bytes as they were asked for; `born` and `died` are numbers of events: it is alive
    behind event `born` and no more behind event `died`. `born` is -1 for what the run finds, `died` None for what
    outlives it."""

    allocation: Allocation  # shared by the copies of a repeated layer
    module: str  # dotted path, the number of the layer in it
    size: int
    born: int
    died: int | None

    @property
    def component(self) -> str:
        """Whose it is, one of memplan.estimate.COMPONENTS."""
        return self.allocation.component

    @property
    def operation(self) -> str:
        """The PyTorch operation that allocates it."""
        return self.allocation.operation

    @property
    def title(self) -> str:
        """What a reader calls it: `decoder.layers.3.attention aten::bmm [8, 12, 1024, 1024] float32`."""
        shape = ", ".join(str(int(size)) for size in self.allocation.shape)
        return " ".join(word for word in (self.module, self.operation, f"[{shape}]", self.allocation.dtype) if word)


@dataclass(frozen=True, slots=True)
class Timeline:
    """`events` hold n for the birth of tensor number n, and ~n (negative) for its death. `phases` are names with the
    number of their first event, in order; one may come again."""

    tensors: tuple[Tensor, ...]
    events: tuple[int, ...]
    phases: tuple[tuple[str, int], ...]

    @property
    def spans(self) -> Iterator[tuple[str, int, int]]:
        """Every phase with its first event and the one after its last."""
        stops = [start for _, start in self.phases[1:]] + [len(self.events)]
        return ((name, start, stop) for (name, start), stop in zip(self.phases, stops, strict=True))

    def allocated(self, sizes: Sequence[int] | None = None) -> list[int]:
        """The bytes alive before the first event and behind each: one more than there are events. `sizes` are those of
        the allocator's blocks, by tensor; left out, what was asked for."""
        if sizes is None:
            sizes = [tensor.size for tensor in self.tensors]
        alive = sum(size for size, tensor in zip(sizes, self.tensors, strict=True) if tensor.born < 0)
        line = [alive]
        for event in self.events:
            alive += sizes[event] if event >= 0 else -sizes[~event]
            line.append(alive)
        return line

    def alive(self, event: int) -> list[int]:
        """The numbers of the tensors that are alive behind event number `event`; -1 is before the first."""
        return [
            number
            for number, tensor in enumerate(self.tensors)
            if tensor.born <= event and (tensor.died is None or tensor.died > event)
        ]

    def peak(self) -> int:
        """The event behind which the most bytes are alive, the first of equals; -1 where that is before all events."""
        line = self.allocated()
        return line.index(max(line)) - 1


def timeline(model: Model, run: Run, device: Device, torch: tuple[int, int] = CURRENT) -> Timeline:
    """The timeline that is predicted for a run, in its steady state.

    Raises ConfigurationError for a contradictory request, and NotModelledError for what has no rule or cannot be
    spelled out.
    """
    from memplan.estimate import backend_of, trace

    model, run = validate_model(model), validate_run(model, run, device)
    return timeline_of(trace(model, run, backend_of(device, torch)))


def timeline_of(ledger: Ledger) -> Timeline:
    """The timeline of a ledger. Raises NotModelledError where that cannot be spelled out."""
    if not any(segment.repeat for segment in ledger.segments):
        return _as_it_is(ledger)
    return spelled_out(expand(ledger))


def _as_it_is(ledger: Ledger) -> Timeline:
    """The timeline of a ledger without layers that repeat: everything is in it, what the step before has left too."""
    numbers: dict[Allocation, int] = {}
    events: list[int] = []
    born: list[int] = []
    died: list[int | None] = []
    phases: list[tuple[str, int]] = []
    for segment in ledger.segments:
        if segment.phase != INITIAL and (not phases or phases[-1][0] != segment.phase):
            phases.append((segment.phase, len(events)))
        for allocation, birth in ledger.events[segment.start : segment.stop]:
            if not birth:
                died[numbers[allocation]] = len(events)
                events.append(~numbers[allocation])
                continue
            number = numbers[allocation] = len(born)
            born.append(-1 if segment.phase == INITIAL else len(events))
            died.append(None)
            if segment.phase != INITIAL:
                events.append(number)
    tensors = (
        Tensor(allocation, allocation.module, allocation.size, start, stop)
        for allocation, start, stop in zip(numbers, born, died, strict=True)
    )
    return Timeline(tuple(tensors), tuple(events), tuple(phases))


def spelled_out(step: Expansion) -> Timeline:
    """The timeline of a steady step."""
    found = [(each, step.initial_layer(number)) for number, each in enumerate(step.initial)]
    left = [(step.births[ordinal], step.layer(ordinal)) for ordinal in step.carried]
    return written_down([*found, *left], step, len(left))


def written_down(found: Sequence[tuple[Allocation, int | None]], step: Expansion, left: int = 0) -> Timeline:
    """The timeline of a step that finds these allocations, each of its layer; the last `left` of them die first."""
    made = [(each, step.layer(ordinal)) for ordinal, each in enumerate(step.births)]
    everything = [*found, *made]
    first = len(found)
    events: list[int] = [~number for number in range(first - left, first)]
    born, died = [-1] * len(everything), [-1] * len(everything)
    for place, event in enumerate(events):
        died[~event] = place
    place = first
    for event in step.events:
        if event < 0:
            born[place] = len(events)
            events.append(place)
            place += 1
        else:
            died[first + event] = len(events)
            events.append(~(first + event))
    return Timeline(
        tensors=tuple(
            Tensor(allocation, module_of(allocation, layer), allocation.size, start, stop if stop >= 0 else None)
            for (allocation, layer), start, stop in zip(everything, born, died, strict=True)
        ),
        events=tuple(events),
        # What is left is freed in the first phase.
        phases=tuple((name, start + left if number else 0) for number, (name, start) in enumerate(step.phases)),
    )
