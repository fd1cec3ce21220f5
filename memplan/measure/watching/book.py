"""What is known of a watched run, filled in as it shows: its request, its plan, and the step that was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from memplan.config.library.model import LibraryModel
from memplan.errors import MemplanError
from memplan.measure.tracing.subject import told
from memplan.measure.watching import judging
from memplan.measure.watching.findings import LOGGER, Finding
from memplan.measure.watching.place import device_at, environment_of
from memplan.measure.watching.plan import differences
from memplan.measure.watching.record import Kept
from memplan.measure.watching.seams import Input, Observed

if TYPE_CHECKING:
    from memplan.measure.watching.oncard import OnCard
    from memplan.measure.watching.profiled import Seen
    from memplan.measure.watching.settings import Settings
    from memplan.measure.watching.subject import Subject
    from memplan.measure.watching.window import Recorded


class Book:
    """Fills in `kept`. What it returns are findings to be told."""

    def __init__(self, subject: Subject, settings: Settings, kept: Kept, card: OnCard | None) -> None:
        self.subject = subject
        self.settings = settings
        self.kept = kept
        self.card = card
        self._planned_for: Sequence[Input] = ()

    def begin(self) -> None:
        """What the bytes can depend on here, as far as that is known."""
        with suppress(MemplanError):  # it is said where it stands in the way of a plan
            device = self.subject.device or device_at(self.subject.where())
            self.kept.environment = environment_of(device, self.card, None)

    def plan(self, observed: Observed) -> list[Finding]:
        """Make the plan. What cannot be planned stops no training, and is tried once."""
        kept, subject = self.kept, self.subject
        if kept.why_no_plan:
            return []
        self._planned_for = observed.inputs
        try:
            request = subject.request(observed)
            kept.request = request
            library = request.model if isinstance(request.model, LibraryModel) else None
            kept.environment = environment_of(request.device, self.card, library)
            settings = str(kept.environment.get("allocator_settings") or "")
            kept.plan = subject.plan(request, observed, settings)
        except Exception as error:
            hint = ""
            if isinstance(error, MemplanError):
                kept.why_no_plan = error.message
                hint = f" ({error.hint})" if error.hint else ""
            else:  # a fault of memplan's own, for which nobody's training should end
                kept.why_no_plan = told(error)
                LOGGER.debug("the plan failed", exc_info=True)
            message = f"{subject.name} is watched without a plan: {kept.why_no_plan}{hint}"
            return [Finding("no_plan", kept.steps, message)]
        LOGGER.info(judging.planned(kept.plan))
        finding = judging.does_not_fit(kept.plan, kept.steps)
        return [] if finding is None else [finding]

    def recorded(self, recorded: Recorded, observed: Observed) -> list[Finding]:
        """A step was recorded: what it says of the plan, which is made again where that step had another batch."""
        kept = self.kept
        found: list[Finding] = []
        shapes, planned = ([each.shape for each in inputs] for inputs in (observed.inputs, self._planned_for))
        if kept.plan is None or (not self.subject.known and shapes != planned):
            found += self.plan(observed)
        if not recorded.phases:
            return found
        kept.recorded_step, kept.phases = recorded.step, recorded.phases
        if recorded.seen is not None:
            finding = self._seen(recorded.step, recorded.seen)
            found += [] if finding is None else [finding]
        return found

    def _seen(self, step: int, seen: Seen) -> Finding | None:
        """A step that the profiler saw."""
        kept = self.kept
        kept.sdpa_kernels = list(seen.sdpa_kernels)
        kept.carried = {
            "gradients": sum(each.size for each in seen.carried if each.component == "gradients"),
            "other": sum(each.size for each in seen.carried if not each.component),
        }
        kept.left_bytes = seen.left_bytes
        kept.left = [{"bytes": each.size, "operation": each.operation, "phase": each.born} for each in seen.left]
        if kept.plan is None:
            return None
        planned = kept.plan.at_peak(seen.peak_phase)
        kept.differences = differences(planned, [(each.size, each.operation) for each in seen.at_peak])
        highest = max(int(phase["peak_allocated_bytes"]) for phase in kept.phases)
        kept.residuals = judging.residuals_of(kept.plan, kept.phases, {"allocated_bytes": highest})
        residual = kept.residuals["allocated tier"]
        LOGGER.info(judging.of_recorded(step, residual, seen.peak_phase))
        why = judging.reasons(kept.carried, kept.differences)
        return judging.drift(step, "allocated", residual, self.settings.warn, seen.peak_phase, why)
