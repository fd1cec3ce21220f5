"""A plan that goes with a recorded run better: the settings that are forgotten most, each tried by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from memplan.config.fields import choices_of
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.estimate import backend_of, trace
from memplan.explain.matches import BEFORE
from memplan.explain.placing import Placement
from memplan.explain.program import Program
from memplan.explain.story import Story
from memplan.ops.backend import NEWEST, OLDEST

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.sharing import Shared

FIELDS = ("attention", "precision", "recompute", "optimizer", "optimizer_implementation", "loss")

BETTER = 2
"""A plan is nearer where so many times fewer allocations are off."""


class Nearer(NamedTuple):
    """A setting with which fewer allocations are off: recorded and not planned, or planned and not recorded. `off` are
    those with it, `before` those without."""

    setting: str
    value: str
    off: int
    before: int


def nearer_plan(
    story: Story, placement: Placement, request: tuple[Model, Run, Device], torch: tuple[int, int], shared: Shared
) -> Nearer | None:
    """The setting with which the fewest allocations are off; None where none is much better than what there is."""
    model, run, device = request
    before = off(placement)
    best: Nearer | None = None
    for name, value, changed, rules in _others(model, run, device, torch):
        try:
            program = Program(shared.ledger(model, changed, backend_of(device, rules), trace))
        except MemplanError:
            continue
        now = off(Placement(story, program))
        if now * BETTER <= before and (best is None or now < best.off):
            best = Nearer(name, value, now, before)
    return best


def off(placement: Placement) -> int:
    """How many allocations are recorded and not planned, or planned and not recorded, over all steps. Of a step that
    the trace begins or ends within, only what lies within counts."""
    program, lives = placement.program, placement.story.lives
    found: dict[int, list[int]] = {}
    for number, match in placement.matches.items():
        if lives[number].born >= 0:
            found.setdefault(match.step, []).append(match.tensor)
    steps = [step for step in found if step != BEFORE]
    planned = len(program.before.births) if placement.from_start else len(found.get(BEFORE, ()))
    for step in range(max(steps, default=-1) + 1):
        track = placement.track(step)
        order = {track.numbers[place]: count for count, place in enumerate(track.births)}
        places = [order[tensor] for tensor in found.get(step, ())]
        first = min(places, default=0) if step == 0 and not placement.from_start else 0
        last = max(places, default=-1) if step == max(steps) else len(order) - 1
        planned += last - first + 1
    return placement.story.births + planned - 2 * sum(len(each) for each in found.values())


def _others(
    model: Model, run: Run, device: Device, torch: tuple[int, int]
) -> Iterator[tuple[str, str, Run, tuple[int, int]]]:
    """Runs that differ in one setting, or in the release whose rules they follow."""
    seen = {run}
    for name in FIELDS:
        for value in choices_of(type(run), name) if name in type(run).__slots__ else ():
            try:
                changed = validate_run(model, replace(run, **{name: value}), device)  # type: ignore[arg-type]
            except MemplanError:
                continue
            if changed not in seen:
                seen.add(changed)
                yield name, str(getattr(changed, name)), changed, torch
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        if (NEWEST[0], minor) != torch:
            yield "torch", f"{NEWEST[0]}.{minor}", run, (NEWEST[0], minor)
