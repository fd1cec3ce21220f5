"""What can be read behind every step without touching it, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from memplan.measure.watching import judging
from memplan.measure.watching.claims import tensors_in
from memplan.measure.watching.findings import Finding
from memplan.measure.watching.process import resident_bytes
from memplan.measure.watching.readings import Growth, Reading

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from memplan.measure.watching.oncard import OnCard
    from memplan.measure.watching.record import Kept
    from memplan.measure.watching.seams import Input


class Reader:
    """Reads a card's counters, or on the CPU the memory of the process, and keeps what it reads in `kept`."""

    def __init__(self, kept: Kept, card: OnCard | None, limit: float) -> None:
        self.kept = kept
        self.card = card
        self.limit = limit
        self._growth: dict[str, Growth] = {}
        self._planned: tuple[Input, ...] = ()
        self._others = False  # whether the model was called with other shapes since the last reading
        self._hook: RemovableHandle | None = None

    def read(self) -> list[Finding]:
        """What the memory behind the last step says: that it grows, or on a card that it differs from the plan."""
        kept, card, step = self.kept, self.card, self.kept.steps
        if card is None:
            reading = Reading(step, process=resident_bytes())
            grows = ("process", reading.process)
        else:
            reading = card.counted.reading(step, card.device_bytes())
            grows = ("allocated", reading.allocated_end)
            self.sum_up()
        kept.readings.add(reading)
        others, self._others = self._others, False
        if others:
            kept.other_shapes += 1
            return []
        found = [self._grown(step, *grows)]
        if card is not None and kept.plan is not None:
            found += judging.drift_of_reading(kept.plan, reading, self.limit)
        return [each for each in found if each is not None]

    def sum_up(self) -> None:
        """The most that a card was seen to need so far, and that beside the plan."""
        kept, card = self.kept, self.card
        if card is None:
            return
        kept.tiers, kept.allocator = card.tiers(), card.counted.counted()
        if kept.recorded_step is None and kept.tiers["allocated_bytes"] is not None:
            kept.phases = [{"name": "step", "peak_allocated_bytes": kept.tiers["allocated_bytes"]}]
        if kept.plan is not None:
            kept.residuals = judging.residuals_of(kept.plan, kept.phases, kept.tiers)

    def follow(self, model: nn.Module, planned: tuple[Input, ...]) -> None:
        """Notice from now on when a model is called with other shapes than those that are planned for: what such a step
        needs says nothing of the plan."""
        self._planned = planned
        self._hook = model.register_forward_pre_hook(self._called, with_kwargs=True)

    def close(self) -> None:
        """Notice nothing any more."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _called(self, module: nn.Module, arguments: Any, keywords: Any) -> None:
        shapes = [tuple(each.shape) for _, each in tensors_in((arguments, keywords))]
        self._others |= shapes != [each.shape for each in self._planned]

    def _grown(self, step: int, tier: str, size: int | None) -> Finding | None:
        if size is None:
            return None
        rate = self._growth.setdefault(tier, Growth()).add(step, size)
        if rate is None:
            return None
        capacity = self.kept.request[2].capacity_bytes if self.kept.request is not None else 0
        return judging.growth(step, tier, size, rate, capacity)
