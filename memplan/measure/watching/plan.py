"""The plan that a run is held against: the estimate of its request, made for the loop that runs it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memplan.estimate import Estimate, estimate
from memplan.ledger import Allocation
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.run import TrainingRun
    from memplan.ledger import Ledger
    from memplan.measure.watching.loops import Loop
    from memplan.ops.backend import Backend

REFERENCE = "reference"
"""The loop that estimates are made for: gradients are dropped first, and each step is a function that holds what the
model returns."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of every step from the second one on. `loop` is the name of the loop it was made for."""

    estimate: Estimate
    loop: str
    ledger: Ledger
    assumptions: tuple[str, ...]

    def at_peak(self, phase: str) -> dict[Allocation, int]:
        """What is expected to be alive at the peak of a phase, and how many copies of each."""
        return self.ledger.alive(self.ledger.moments()[phase][0])

    def to_record(self) -> dict[str, Any]:
        """As a record holds it, in bytes."""
        tiers, interval, fit = self.estimate.tiers, self.estimate.interval, self.estimate.fit
        return {
            "loop": self.loop,
            "peak_phase": self.estimate.peak.name,
            "tiers": {
                "allocated_bytes": tiers.allocated_bytes,
                "reserved_bytes": tiers.reserved_bytes,
                "device_bytes": tiers.device_bytes,
            },
            "interval": {
                "allocated_bytes": None if interval.allocated_bytes is None else list(interval.allocated_bytes),
                "reserved_bytes": None if interval.reserved_bytes is None else list(interval.reserved_bytes),
                "device_bytes": None if interval.device_bytes is None else list(interval.device_bytes),
            },
            "phases": [
                {
                    "name": phase.name,
                    "peak_allocated_bytes": phase.peak_allocated_bytes,
                    "end_allocated_bytes": phase.end_allocated_bytes,
                }
                for phase in self.estimate.phases
            ],
            "fit": None if fit is None else {"verdict": fit.verdict, "headroom_bytes": fit.headroom_bytes},
            "assumptions": list(self.assumptions),
        }


def make_plan(
    model: Model,
    run: TrainingRun,
    device: Device,
    torch: tuple[int, int],
    allocator_settings: str = "",
    loop: Loop | None = None,
) -> Plan:
    """The plan of a run under the rules of a release of PyTorch. `loop` is None for the one that estimates are made
    for. Raises ConfigurationError and NotModelledError as an estimate does."""
    shared = _OfLoop(loop)
    made = estimate(model, run, device, torch, allocator_settings, shared=shared)
    assert shared.made is not None
    if loop is None:
        return Plan(made, REFERENCE, shared.made, made.assumptions)
    # What an estimate says of the loop is of another one.
    kept = [line for line in made.assumptions if "a loop of one's own" not in line]
    return Plan(replace(made, assumptions=()), loop.name, shared.made, (*loop.tells, *kept))


class _OfLoop(Shared):
    """Has an estimate made of another loop's ledger, and keeps that."""

    def __init__(self, loop: Loop | None) -> None:
        super().__init__()
        self.loop = loop
        self.made: Ledger | None = None

    def ledger(self, model: Model, run: Any, backend: Backend, make: Callable[[Any, Any, Backend], Ledger]) -> Ledger:
        if self.loop is None:
            self.made = make(model, run, backend)
        else:
            from memplan.measure.watching.loops import trace_loop

            self.made = trace_loop(model, run, backend, self.loop)  # type: ignore[arg-type]
        return self.made


@dataclass(frozen=True, slots=True)
class Difference:
    """Blocks of one size of which another number is alive at the peak than was planned. `count` is how many more there
    are (fewer where it is negative); `operations` are those that allocated what there is too much of, or would have
    allocated what is missing."""

    size: int
    count: int
    operations: tuple[str, ...]

    def to_record(self) -> dict[str, Any]:
        """As a record holds it."""
        return {"bytes_each": self.size, "more": self.count, "operations": list(self.operations)}

    def __str__(self) -> str:
        what = "more" if self.count > 0 else "fewer"
        made = f" ({', '.join(self.operations)})" if self.operations else ""
        return f"{abs(self.count):,} {what} of {self.size:,} bytes{made}"


MOST = 12
"""Differences that are told, the largest first."""


def differences(planned: dict[Allocation, int], alive: Iterable[tuple[int, str]]) -> tuple[Difference, ...]:
    """What is alive at a peak, as (bytes, operation), beside what was planned to be. Blocks are known by their size."""
    expected: dict[int, dict[str, int]] = {}
    for allocation, count in planned.items():
        by_operation = expected.setdefault(allocation.size, {})
        by_operation[allocation.operation] = by_operation.get(allocation.operation, 0) + count
    found: dict[int, dict[str, int]] = {}
    for size, operation in alive:
        by_operation = found.setdefault(size, {})
        by_operation[operation] = by_operation.get(operation, 0) + 1
    result = []
    for size in {*expected, *found}:
        planned_here, found_here = expected.get(size, {}), found.get(size, {})
        more = sum(found_here.values()) - sum(planned_here.values())
        if more:
            side, other = (found_here, planned_here) if more > 0 else (planned_here, found_here)
            names = [name for name, count in side.items() if name and count > other.get(name, 0)]
            result.append(Difference(size, more, tuple(sorted(names))))
    result.sort(key=lambda each: (-abs(each.size * each.count), each.size))
    return tuple(result[:MOST])
