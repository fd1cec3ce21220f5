"""The plan laid beside a recorded run: what goes as planned at the peak, what does not, and what would have fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memplan.config.validate import validate_model, validate_run
from memplan.estimate import COMPONENTS, Estimate, backend_of, estimate, trace
from memplan.explain.frames import Stacks
from memplan.explain.grouping import Group, by_origin
from memplan.explain.naming import STATUSES, Names, names_at_peak
from memplan.explain.nearer import Nearer, nearer_plan, off
from memplan.explain.placing import Placement
from memplan.explain.program import Program
from memplan.explain.story import Story
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.check.remedy import Remedy
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.timeline import Tensor


OFF = 50
"""Where more than one in so many allocations are not as planned, other plans are tried."""

MOST = 20_000
"""And only for traces of so many allocations: each plan has to be laid beside all of them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """`count` of the plan's tensors that are alike but for the layer: `size` bytes each, as they were asked for."""

    tensor: Tensor
    module: str  # with * for the layer
    size: int
    count: int
    step: int | None = None  # of what is kept too long: the step it is from


@dataclass(frozen=True, slots=True)
class Room:
    """What the allocator of a run that is out of memory had, and what the plan reserves, in bytes."""

    needed: int  # upper end of the plan's estimate
    room: int  # reserved when it ran out, and left at the driver
    remedies: tuple[Remedy, ...] | None  # what would fit the room; None where that was not tried

    @property
    def fits(self) -> bool:
        """Whether the plan fits the room."""
        return self.needed <= self.room


@dataclass(frozen=True, slots=True)
class Beside:
    """The plan beside what was recorded. Sizes of components are bytes as they were asked for."""

    estimate: Estimate
    names: Names
    tensors: tuple[Tensor, ...]
    steps: int  # that were recognised in the trace
    planned: Mapping[str, int]  # by component, alive in the plan at that moment
    seen: Mapping[str, int]  # of these, alive in the snapshot
    largest: tuple[Kind, ...]  # as planned
    kept: tuple[Kind, ...]
    unseen: tuple[Kind, ...]
    kept_by_code: tuple[Group, ...]
    unplanned_by_code: tuple[Group, ...]
    wanted: Tensor | None  # what the last out-of-memory event was asked for
    nearer: Nearer | None  # a setting that goes with the run better

    def blocks(self, status: str) -> int:
        """Bytes of the blocks of that status."""
        return sum(each.life.size for each in self.names.alive if each.status == status)

    @property
    def goes_with(self) -> bool:
        """Whether the run is the plan's and no other's; without a trace, whether all that is alive is."""
        if self.nearer is not None:
            return False
        if self.names.step is not None:
            return self.names.goes_with
        return (
            bool(self.names.alive)
            and not self.unseen
            and self.blocks("planned") == sum(self.blocks(status) for status in STATUSES)
        )


def lay_beside(
    story: Story,
    stacks: Stacks,
    request: tuple[Model, Run, Device],
    torch: tuple[int, int],
    settings: str,
    shared: Shared,
) -> Beside:
    """Lay the plan of a request beside a trace. Raises ConfigurationError for a contradictory request and
    NotModelledError for what has no rule."""
    model, run, device = request
    model = validate_model(model)
    run = validate_run(model, run, device)
    program = Program(shared.ledger(model, run, backend_of(device, torch), trace))
    placement = Placement(story, program)
    names = names_at_peak(placement)
    tensors = program.tensors
    seen = dict.fromkeys(COMPONENTS, 0)
    for each in names.alive:
        if each.status == "planned" and each.tensor is not None:
            seen[tensors[each.tensor].component] += tensors[each.tensor].size
    planned = dict(seen)
    for number in names.unseen:
        planned[tensors[number].component] += tensors[number].size
    of_status = {status: [each for each in names.alive if each.status == status] for status in STATUSES}
    return Beside(
        estimate=estimate(model, run, device, torch, settings, shared=shared),
        names=names,
        tensors=tensors,
        steps=max(placement.steps, 0 if names.step is None else names.step + 1),
        planned=planned,
        seen=seen,
        largest=_kinds(tensors, [(each.tensor, None) for each in of_status["planned"]]),
        kept=_kinds(tensors, [(each.tensor, each.step) for each in of_status["kept"]]),
        unseen=_kinds(tensors, [(number, None) for number in names.unseen]),
        kept_by_code=by_origin([each.life for each in of_status["kept"]], stacks),
        unplanned_by_code=by_origin([each.life for each in of_status["unplanned"]], stacks),
        wanted=_wanted(placement),
        nearer=nearer_plan(story, placement, (model, run, device), torch, shared) if _differs(placement) else None,
    )


def _differs(placement: Placement) -> bool:
    """Whether a run differs from the plan in more than a few allocations."""
    births = placement.story.births
    return off(placement) * OFF > births and births <= MOST


def _kinds(tensors: tuple[Tensor, ...], numbers: list[tuple[int | None, int | None]]) -> tuple[Kind, ...]:
    """Tensors that are alike, together; the largest first."""
    counts: dict[tuple[str, str, int, str, int | None], list[int]] = {}
    for number, step in numbers:
        if number is not None:
            tensor = tensors[number]
            made = tensor.allocation
            counts.setdefault((made.module, made.operation, tensor.size, made.component, step), []).append(number)
    kinds = [
        Kind(tensors[same[0]], module if len(same) > 1 else tensors[same[0]].module, size, len(same), step)
        for (module, _, size, _, step), same in counts.items()
    ]
    return tuple(sorted(kinds, key=lambda kind: (-kind.size * kind.count, kind.module, kind.tensor.operation)))


def _wanted(placement: Placement) -> Tensor | None:
    """The plan's tensor that the last out-of-memory event was asked for: the next one behind the last that was found,
    where its size goes with that."""
    story = placement.story
    if not story.shortages:
        return None
    shortage = story.shortages[-1]
    before = [life for life in story.lives if 0 <= life.birth < shortage.birth and life.number in placement.matches]
    if not before:
        return None
    match = placement.matches[before[-1].number]
    track = placement.track(match.step)
    births = [track.numbers[place] for place in track.births]
    if match.tensor not in births:
        return None
    for number in births[births.index(match.tensor) + 1 :][: 1 + story.births - before[-1].birth]:
        tensor = placement.program.tensors[number]
        if story.settings.round_size(tensor.size) == story.settings.round_size(shortage.requested):
            return tensor
    return None


def room_of(found: Estimate, story: Story, shared: Shared, plain: bool) -> Room | None:
    """What there was when the memory ran out last, and what of the plan would fit that; None where it did not run out,
    or is not recorded. What would fit is tried where the run is `plain`: the present rules and default settings."""
    shortage = story.shortages[-1] if story.shortages else None
    reserved, device = found.interval.reserved_bytes, found.interval.device_bytes
    if shortage is None or shortage.moment is None or shortage.driver_free is None:
        return None
    if reserved is None or device is None:
        return None
    room, needed = shortage.moment.reserved + shortage.driver_free, reserved[1]
    if needed <= room:
        return Room(needed, room, ())
    if not plain:
        return Room(needed, room, None)
    from memplan.check.remedy import remedies_for

    context = device[1] - needed  # remedies are told with it
    tried = remedies_for(found, room + context, shared)
    return Room(needed, room, tuple(replace(each, upper=each.upper - context) for each in tried))
