"""Plans: every choice of knobs with what it needs, ranked by an objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from memplan.check.judge import upper_end
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, MemplanError
from memplan.estimate import backend_of, estimate, trace
from memplan.plan.knobs import Choice, choices
from memplan.plan.search import Found, largest
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model

Objective = Literal["fit", "micro-batch", "length", "card"]
OBJECTIVES: tuple[Objective, ...] = ("fit", "micro-batch", "length", "card")

MOST_BATCH = 1 << 16
MOST_TOKENS = 1 << 22


@dataclass(frozen=True, slots=True)
class Option:
    """One choice and what it comes to. `size` is the largest micro-batch or length that fits, of these objectives;
    `upper` the bytes it needs at most; `accumulation` the micro-batches that make up the batch that was asked for."""

    choice: Choice
    upper: int
    fits: bool
    size: int = 0
    gaps: tuple[int, ...] = ()
    certain: bool = True
    accumulation: int = 0
    device: str = ""

    @property
    def changes(self) -> Mapping[str, Any]:
        """Everything that is to be set."""
        found = dict(self.choice.changes)
        if self.accumulation:
            found |= {"micro_batch_size": self.size, "gradient_accumulation_steps": self.accumulation}
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, what it needs (bytes, upper end), and the options, the best first."""

    model: Model
    run: TrainingRun
    device: Device
    objective: Objective
    limit: int
    upper: int
    options: tuple[Option, ...]


def plan(
    model: Model,
    run: TrainingRun,
    device: Device,
    objective: Objective = "fit",
    fixed: frozenset[str] = frozenset(),
    limit: int | None = None,
    most: int = 12,
) -> Plan:
    """At most `most` options for a run on a card, ranked. `fixed` names settings that stay as they are; `limit` is what
    may be used, in bytes (default: all that the card can give).

    Of an encoder-decoder's lengths the one that is not fixed is looked for; where neither is, the target keeps its part
    of the source.

    Raises ConfigurationError for a device without a capacity where no limit is given, and where what is looked for is
    fixed.
    """
    model = validate_model(model)
    run = validate_run(model, run, device)
    room = device.available_bytes if limit is None else limit
    if not room and objective != "card":
        raise ConfigurationError(
            f"device: {device.name} has no fixed capacity to fit into", "name a card, or give --budget"
        )
    sizes = _looked_for(run, objective, fixed)
    tried = _Tried(model)
    asked = upper_end(estimate(model, run, device, shared=tried.shared))
    every = list(choices(model, run, device, fixed))
    if objective == "fit":
        options = _fitting(tried, device, every, room, fixed)
    elif objective == "card":
        options = _cards(tried, every, limit)
    else:
        options = _largest(tried, device, every, room, sizes)
    return Plan(model, run, device, objective, room, asked, tuple(_of_use(options, objective)[:most]))


def _of_use(options: list[Option], objective: Objective) -> list[Option]:
    """Options without those that change more than another one and come to nothing better."""

    def as_good(one: Option, other: Option) -> bool:
        """Whether `one` is no worse than `other`."""
        if objective == "card":
            return one.size <= other.size
        if objective == "fit":
            return one.fits >= other.fits and one.upper <= other.upper
        return one.size >= other.size

    def needless(option: Option) -> bool:
        ours = option.changes.items()
        return any(other.changes.items() < ours and as_good(other, option) for other in options)

    return [option for option in options if not needless(option)]


def _fitting(tried: _Tried, device: Device, every: list[Choice], room: int, fixed: frozenset[str]) -> list[Option]:
    """Choices in the order of their cost; those that fit come first. Where a micro-batch may be split, the same batch
    in smaller ones is a choice as well: it costs time, and changes nothing in the training."""
    options = []
    for choice in every:
        upper = tried.upper(choice.run, device)
        if upper is not None:
            options.append(Option(choice, upper, upper <= room))
        if not fixed & {"micro_batch_size", "gradient_accumulation_steps"}:
            split = _split(tried, choice, device, room)
            options += [split] if split is not None else []
    return sorted(options, key=lambda option: (not option.fits, _rank(option), len(option.changes), option.upper))


def _split(tried: _Tried, choice: Choice, device: Device, room: int) -> Option | None:
    """The same batch in the largest micro-batches that fit, where they are smaller ones."""
    run = choice.run
    batch = run.micro_batch_size * run.gradient_accumulation_steps
    for size in range(run.micro_batch_size - 1, 0, -1):
        if batch % size:
            continue
        smaller = replace(run, micro_batch_size=size, gradient_accumulation_steps=batch // size)
        if tried.too_many(smaller, device, room):
            continue
        upper = tried.upper(smaller, device)
        if upper is not None and upper <= room:
            return Option(choice, upper, True, size=size, accumulation=batch // size)
    return None


def _rank(option: Option) -> int:
    """Splitting a batch is cheaper than anything that changes the training, dearer than a kernel that does the same."""
    return option.choice.cost.rank + (50 if option.accumulation else 0)


def _largest(tried: _Tried, device: Device, every: list[Choice], room: int, sizes: tuple[str, ...]) -> list[Option]:
    options = []
    most = MOST_BATCH if sizes == ("micro_batch_size",) else MOST_TOKENS
    for choice in every:
        found = _search(tried, choice.run, device, room, sizes, most)
        options.append(Option(choice, found.upper, found.size > 0, found.size, gaps=found.gaps, certain=found.certain))
    return sorted(options, key=lambda option: (-option.size, option.choice.cost.rank, len(option.changes)))


def _looked_for(run: TrainingRun, objective: Objective, fixed: frozenset[str]) -> tuple[str, ...]:
    """The settings whose largest values are looked for; both lengths where they grow together. Raises
    ConfigurationError where all of them are fixed."""
    if objective not in ("micro-batch", "length"):
        return ()
    names: tuple[str, ...] = ("micro_batch_size",)
    if objective == "length":
        names = ("sequence_length",) if run.sequence_length else ("source_length", "target_length")
    free = tuple(name for name in names if name not in fixed)
    if not free:
        raise ConfigurationError(
            f"--fix: {' and '.join(names)} {'is' if len(names) == 1 else 'are'} what --objective {objective} looks for"
        )
    return free


def _search(tried: _Tried, run: TrainingRun, device: Device, room: int, sizes: tuple[str, ...], most: int) -> Found:
    return largest(
        lambda size: tried.floor(_sized(run, sizes, size), device),
        lambda size: tried.upper(_sized(run, sizes, size), device),
        room,
        most,
    )


def _sized(run: TrainingRun, sizes: tuple[str, ...], size: int) -> TrainingRun:
    """The run with another size; of two lengths an encoder-decoder writes as much of what it reads as before."""
    changed = {sizes[0]: size}
    if len(sizes) > 1:
        changed["target_length"] = max(size * run.target_length // run.source_length, 1)
    return replace(run, **changed)  # type: ignore[arg-type]


def _cards(tried: _Tried, every: list[Choice], limit: int | None) -> list[Option]:
    """For each choice the smallest card that holds it, of those with the same capacity the first of the catalogue; with
    a limit, the smallest that holds it within that. A choice keeps the kernels that it has on the card asked for."""
    from memplan.config.devices import catalogue

    cards = sorted(catalogue(), key=lambda card: card.capacity_bytes)
    options = []
    for choice in every:
        for card in cards:
            room = card.available_bytes if limit is None else min(limit, card.available_bytes)
            if tried.too_many(choice.run, card, room):
                continue
            upper = tried.upper(choice.run, card)
            if upper is not None and upper <= room:
                options.append(Option(choice, upper, True, size=card.capacity_bytes, device=card.name))
                break
    return sorted(options, key=lambda option: (option.size, option.choice.cost.rank, len(option.changes)))


class _Tried:
    """Runs of one model, estimated; what is asked for again is known. None stands for a run that cannot be had."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.shared = Shared()

    def floor(self, run: TrainingRun, device: Device) -> int | None:
        """What the tensors of a run take alone, in bytes: no more than `upper`, and much sooner known."""
        try:
            checked = validate_run(self.model, run, device)
            ledger = self.shared.ledger(self.model, checked, backend_of(device), trace)
        except MemplanError:
            return None
        return max(peak.size for peak, _ in ledger.moments().values())

    def too_many(self, run: TrainingRun, device: Device, room: int) -> bool:
        """Whether the tensors of a run are more than `room` by themselves."""
        floor = self.floor(run, device)
        return floor is not None and floor > room

    def upper(self, run: TrainingRun, device: Device) -> int | None:
        """The upper end of a run's estimate, in bytes."""
        try:
            return upper_end(estimate(self.model, validate_run(self.model, run, device), device, shared=self.shared))
        except MemplanError:
            return None
