"""The steps that are looked at: two in a row that were both taken, of which the second is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.measure.tracing.subject import told
from memplan.measure.watching.claims import Claim, claims_of
from memplan.measure.watching.counted import CountedSteps
from memplan.measure.watching.findings import LOGGER
from memplan.measure.watching.profiled import ProfiledSteps, Seen
from memplan.measure.watching.seams import Observed, Seams

PHASES = TrainingRun.phases

IN_A_ROW = 2
"""The first step that is taken makes the optimizer's states; from the second one on every step is alike."""

PATIENCE = 20
"""With scaled gradients a step may be skipped, and needs less than one that is taken: so many are waited for."""


class Recorded(NamedTuple):
    """The step that was recorded. `seen` is what the profiler saw of it, None on a card; `phases` are ready for a
    record, and empty where nothing can be said of them."""

    step: int
    phases: list[dict[str, Any]]
    seen: Seen | None


class Window:
    """Looks from `open` on, until `recorded` is there or `given_up` says why it will not be. `step` is the first one
    that may be recorded, 0 where none is to be. On the CPU `counted` is None, and the profiler looks."""

    def __init__(
        self, step: int, counted: CountedSteps | None, called: Callable[[], None], stepped: Callable[[], None]
    ) -> None:
        self.step = step
        self.observed = Observed()
        self.recorded: Recorded | None = None
        self.given_up = ""
        self.is_open = False
        self._marks: ProfiledSteps | CountedSteps = ProfiledSteps() if counted is None else counted
        self._stepped = stepped
        self._seams = Seams(self.observed, self._marks.mark, called, self._after_update)
        self._taken = 0  # steps in a row
        self._number = 0  # of the step that runs
        self._before: list[Claim] = []  # of where the step begins
        self._after: list[Claim] = []  # of where it ends
        self._says_end = False  # whether the loop marks that itself

    @property
    def over(self) -> bool:
        """Whether nothing is looked at any more, and will not be."""
        return not self.step or self.recorded is not None or bool(self.given_up)

    def begin(self, model: nn.Module | None) -> None:
        """The training begins. `model` is the module that is trained, where it is known."""
        if self.step and self._first == 1:
            self._open(1, model)

    def end_step(self, number: int, model: nn.Module | None) -> None:
        """Step `number` is over."""
        if self.is_open:
            self._end_step()
        elif not self.over and number == self._first - 1:
            self._open(number + 1, model)

    def begin_step(self) -> None:
        """The step that comes begins here, and not where the last one ended."""
        if self.is_open:
            self._marks.mark("begin")

    def mark(self, name: str) -> None:
        """The loop says itself where a phase begins, or with `end` that the step is over."""
        if self.is_open:
            self._marks.mark(name, explicit=True)
            if name == "end":
                self._says_end = True
                self._take_claims()

    def close(self) -> None:
        """Look no more."""
        if not self.is_open:
            return
        self.is_open = False
        self._seams.leave()
        if isinstance(self._marks, ProfiledSteps):
            self._marks.stop()

    def forget(self) -> None:
        """Hold nothing of the run any more."""
        self.observed = Observed(inputs=self.observed.inputs)
        self._before, self._after = [], []

    @property
    def _first(self) -> int:
        """The step with which looking begins."""
        return max(self.step - IN_A_ROW + 1, 1)

    def _open(self, number: int, model: nn.Module | None) -> None:
        self._number = number
        if isinstance(self._marks, ProfiledSteps):
            try:
                self._marks.start()
            except MeasurementError as error:
                self.given_up = error.message
                return
        self.is_open = True
        self._seams.listen(model)
        self._begin()

    def _end_step(self) -> None:
        if not self._says_end:
            self._marks.mark("end")
        self._taken = self._taken + 1 if self.observed.stepped else 0
        if self._number >= self.step and self._taken >= IN_A_ROW:
            try:
                self._record()
            except Exception as error:  # a fault of memplan's own, for which nobody's training should end
                self.given_up = told(error)
                LOGGER.debug("reading the recorded step failed", exc_info=True)
        elif self._number >= self._last_chance():
            self.close()
            self.given_up = "no optimizer of torch.optim took its step twice in a row"
        else:
            self._number += 1
            self._begin()

    def _last_chance(self) -> int:
        return self.step + (PATIENCE if self.observed.autocast is torch.float16 else 0)

    def _begin(self) -> None:
        self.observed.next_step()
        self._says_end = False
        if not isinstance(self._marks, ProfiledSteps):
            self._marks.forget()
        elif self._number >= self.step:
            self._before = self._claims()
        self._marks.mark("begin")

    def _claims(self) -> list[Claim]:
        observed = self.observed
        return claims_of(observed.modules, observed.optimizers, observed.scalers)

    def _after_update(self) -> None:
        if not self._says_end:
            self._take_claims()
        self._stepped()

    def _take_claims(self) -> None:
        """What is known of what is alive now, which may be the end of the step."""
        if isinstance(self._marks, ProfiledSteps) and self._number >= self.step:
            given = [each.claim for each in self.observed.given if each.alive]
            self._after = [*self._claims(), *given]

    def _record(self) -> None:
        """The step ends where the loop says so, or else where the optimizer had taken its step: what follows, such as
        gradients that are dropped, belongs to the next one."""
        last = "end" if self._says_end else "stepped"
        self.close()
        if isinstance(self._marks, ProfiledSteps):
            given = [each.claim for each in self.observed.given]
            seen = self._marks.seen(self._after, self._before, given, last)
            self._marks.forget()
            phases = [seen.phases[name].to_record() for name in PHASES if name in seen.phases]
            self.recorded = Recorded(self._number, phases, seen)
        else:
            self.recorded = Recorded(self._number, self._marks.phases(last), None)
