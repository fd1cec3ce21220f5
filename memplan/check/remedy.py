"""What would fit: changes to a run, each tried before it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.errors import MemplanError
from memplan.estimate import Estimate, backend_of, estimate, trace
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.runs import Run


@dataclass(frozen=True, slots=True)
class Remedy:
    """Settings that would fit, and the upper end of the estimate with them, in bytes."""

    changes: Mapping[str, Any]
    upper: int


SWITCHES: tuple[dict[str, Any], ...] = (
    {"attention": "sdpa"},
    {"recompute": "full"},
    {"optimizer_implementation": "fused"},
    {"loss": "chunked"},
)
"""Changes that cost no accuracy, each tried alone and then one on top of the other."""

LENGTHS = ("sequence_length", "source_length", "target_length", "prompt_length")


def remedies_for(found: Estimate, limit: int, shared: Shared | None = None) -> Iterator[Remedy]:
    """Changes with which the upper end of the estimate is within `limit` bytes, the mildest first: single switches, or
    all of them where none alone will do; a large micro-batch and a large length, with all switches where neither alone
    will do."""
    trial = _Trial(found, limit, Shared() if shared is None else shared)
    switches = [remedy for change in SWITCHES if (remedy := trial.remedy(change)) is not None]
    together = {} if switches else trial.together()
    if len(together) > 1 and (remedy := trial.remedy(together)) is not None:
        switches = [remedy]
    yield from switches
    for name in ("micro_batch_size", *LENGTHS):
        remedy = trial.largest(name, {})
        if remedy is None and not switches and together:
            remedy = trial.largest(name, together)
        if remedy is not None:
            yield remedy


class _Trial:
    """Changes to one run, tried."""

    def __init__(self, found: Estimate, limit: int, shared: Shared) -> None:
        self.found = found
        self.limit = limit
        self.shared = shared

    def remedy(self, changes: Mapping[str, Any]) -> Remedy | None:
        """The changes, where they fit."""
        run = self.changed(changes)
        if run is None:
            return None
        upper = self.upper(run)
        return Remedy(self.differences(run, changes), upper) if upper is not None and upper <= self.limit else None

    def together(self) -> dict[str, Any]:
        """All switches that can be had together and that change anything."""
        changes: dict[str, Any] = {}
        before: Run = self.found.run
        for change in SWITCHES:
            run = self.changed({**changes, **change})
            if run is not None and run != before:
                changes.update(change)
                before = run
        return changes

    def largest(self, name: str, others: Mapping[str, Any]) -> Remedy | None:
        """A large value of a size that fits, below the present one: a multiple of about a hundredth of it, a power of
        two."""
        present = getattr(self.found.run, name, 0)
        if not isinstance(present, int) or present <= 1:
            return None
        step = 1 << max((present // STEPS).bit_length() - 1, 0)
        runs: dict[int, Run] = {}

        def upper(number: int) -> int | None:
            run = self.changed({**others, name: number * step})
            if run is None:
                return None
            runs[number] = run
            return self.upper(run)

        number, needs = last_within(upper, self.limit, (present - 1) // step)
        changes = {**others, name: number * step}
        return Remedy(self.differences(runs[number], changes), needs) if number else None

    def changed(self, changes: Mapping[str, Any]) -> Run | None:
        """The run with `changes`; None where they change nothing or cannot be had."""
        run = self.found.run
        if not isinstance(run, TrainingRun) and any(name not in type(run).__slots__ for name in changes):
            return None
        try:
            changed = validate_run(self.found.model, replace(run, **changes), self.found.device)
        except MemplanError:
            return None
        return None if changed == run else changed

    def differences(self, run: Run, changes: Mapping[str, Any]) -> dict[str, Any]:
        """What of `changes` is another setting than before, as the run has it."""
        before = self.found.run
        return {name: getattr(run, name) for name in changes if getattr(run, name) != getattr(before, name)}

    def upper(self, run: Run) -> int | None:
        """The upper end of a run's estimate. Where its tensors alone are too many, that is the size of those, which
        takes no replay; None for what has no rule."""
        from memplan.check.judge import upper_end

        model, device = self.found.model, self.found.device
        try:
            ledger = self.shared.ledger(model, run, backend_of(device), trace)
            tensors = max(peak.size for peak, _ in ledger.moments().values())
            if tensors > self.limit:
                return tensors
            return upper_end(estimate(model, run, device, shared=self.shared))
        except MemplanError:
            return None


STEPS = 64
"""Values of a size that are looked at: so many, or up to twice as many."""

BEYOND = 4
"""What the allocator reserves can fall where a size grows: so many larger values are looked at."""


def last_within(upper: Callable[[int], int | None], limit: int, most: int) -> tuple[int, int]:
    """A number from 1 to `most` whose `upper` is within `limit` while those of the next BEYOND are not, and what it
    needs; (0, 0) where not even that of 1 is.

    Memory is nearly linear in a size, so the next guess is where a line through the two nearest needs meets the limit.
    """
    needs: dict[int, int | None] = {}

    def fits(number: int) -> bool:
        if number not in needs:
            needs[number] = upper(number)
        need = needs[number]
        return need is not None and need <= limit

    if most < 1 or not fits(1):
        return 0, 0
    low, high = 1, most + 1
    if fits(most):
        low = most
    while high - low > 1:
        number = min(max(_crossing(needs, limit), low + 1), high - 1)
        if fits(number):
            low = number
        else:
            high = number
    while larger := [number for number in range(low + 1, min(low + BEYOND, most) + 1) if fits(number)]:
        low = larger[-1]
    return low, needs[low] or 0


def _crossing(needs: Mapping[int, int | None], limit: int) -> int:
    """Where the line through the two needs nearest the limit meets it, rounded down."""
    known = [(number, need) for number, need in needs.items() if need is not None]
    (first, here), *others = sorted(known, key=lambda item: abs(item[1] - limit))
    second, there = others[0] if others else (first, here)
    return first if here == there else first + (limit - here) * (second - first) // (there - here)
