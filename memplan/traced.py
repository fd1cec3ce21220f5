"""A traced step of any module: its estimate, and the real run beside it. Torch-free; what has torch makes the ledger
(memplan/measure/tracing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.estimate import (
    PHASES,
    LedgerLine,
    PhaseEstimate,
    Tiers,
    Totals,
    highest_of,
    largest_of,
    line_of,
    phase_of,
    totals_of,
)
from memplan.interval import Interval
from memplan.ledger import Ledger
from memplan.verify import PhaseVerification, Residual

TOLERANCE = 10
"""Thousandths of the measured peak by which a traced one may differ."""


@dataclass(frozen=True, slots=True)
class TracedModule:
    """What was traced: `module:factory`, the class it made, its trained parameters, and the factory's arguments."""

    name: str
    class_name: str
    parameter_count: int
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TraceEstimate:
    """What one training step of a module needs, and where; the counterpart of memplan.estimate.Estimate."""

    module: TracedModule
    run: TrainingRun
    device: Device
    phases: tuple[PhaseEstimate, ...]
    tiers: Tiers
    totals: Totals
    largest: tuple[LedgerLine, ...]
    interval: Interval
    outputs_only: tuple[str, ...]  # operations without a rule, counted by their outputs
    assumptions: tuple[str, ...]

    @property
    def peak(self) -> PhaseEstimate:
        """The phase with the highest peak (the earliest of equals)."""
        return highest_of(self.phases)

    @property
    def at_peak(self) -> dict[str, int]:
        """Bytes by component at the peak of the step; they add up to the peak exactly."""
        return self.peak.at_peak


@dataclass(frozen=True, slots=True)
class TraceVerification:
    """A traced step beside the real one. `environment` is what ran the real one."""

    estimate: TraceEstimate
    phases: tuple[PhaseVerification, ...]
    environment: dict[str, Any]

    @property
    def peak(self) -> Residual:
        """The peak of the step on both sides, in whichever phase each has it."""
        return Residual(
            max(phase.peak.estimated for phase in self.phases), max(phase.peak.measured for phase in self.phases)
        )

    @property
    def exact(self) -> bool:
        """Whether every phase's peak and end is the same, in all and by component."""
        return not any(residual.difference for phase in self.phases for residual in phase.residuals)

    @property
    def holds(self) -> bool:
        """Whether the peak is within the tolerance."""
        return self.peak.within(TOLERANCE)


def estimate_of(
    ledger: Ledger,
    module: TracedModule,
    run: TrainingRun,
    device: Device,
    torch: str,
    unknown: Mapping[str, str],
    assume_outputs_only: bool,
) -> TraceEstimate:
    """The estimate that a traced ledger gives. `unknown` maps operations without a rule to where they are called.

    Raises NotModelledError where there are such operations, unless they are to be counted by their outputs.
    """
    if unknown and not assume_outputs_only:
        listed = ", ".join(f"{name} (in {place or 'the model itself'})" for name, place in sorted(unknown.items()))
        raise NotModelledError(
            f"no rule says what memory these operations take inside: {listed}",
            "--assume-outputs-only counts their outputs alone",
        )
    moments = ledger.moments()
    phases = tuple(phase_of(ledger, name, *moments[name]) for name in PHASES)
    highest = highest_of(phases)
    size = highest.peak_allocated_bytes
    basis = "by operation rules held against real runs; `memplan trace --verify` runs this one"
    if unknown:
        basis = "some operations are counted by their outputs alone; `memplan trace --verify` runs this one"
    return TraceEstimate(
        module=module,
        run=run,
        device=device,
        phases=phases,
        tiers=Tiers(size),
        totals=totals_of(ledger, moments),
        largest=largest_of(ledger, moments[highest.name][0]),
        interval=Interval(None if unknown else (size, size), None, None, basis),
        outputs_only=tuple(sorted(unknown)),
        assumptions=_assumptions(device, torch, tuple(sorted(unknown))),
    )


def lines_of(ledger: Ledger) -> list[LedgerLine]:
    """Every line of the ledger in the order of birth."""
    return [line_of(allocation, 1) for allocation in ledger.births()]


def compare(estimate: TraceEstimate, measured: Mapping[str, Any]) -> TraceVerification:
    """The estimate beside a measured step (memplan/measure/tracing/real.py)."""
    seen = {phase["name"]: phase for phase in measured["phases"]}
    phases = tuple(
        PhaseVerification(
            name=phase.name,
            peak=Residual(phase.peak_allocated_bytes, seen[phase.name]["peak_allocated_bytes"]),
            end=Residual(phase.end_allocated_bytes, seen[phase.name]["end_allocated_bytes"]),
            reserved=None,
            at_peak=_beside(phase.at_peak, seen[phase.name]["at_peak"]),
            at_end=_beside(phase.at_end, seen[phase.name]["at_end"]),
        )
        for phase in estimate.phases
    )
    return TraceVerification(estimate, phases, dict(measured["environment"]))


def _beside(estimated: Mapping[str, int], measured: Mapping[str, int]) -> dict[str, Residual]:
    names = [*estimated, *(name for name in measured if name not in estimated)]
    return {name: Residual(estimated.get(name, 0), measured.get(name, 0)) for name in names}


def _assumptions(device: Device, torch: str, unknown: tuple[str, ...]) -> tuple[str, ...]:
    lines = [
        "steady state: the second step and later, when optimizer states exist",
        "eager PyTorch; the module's output and the loss are held until the step ends",
        f"operation rules of the CPU's kernels with {device.threads} threads and oneDNN off; PyTorch {torch}",
        "reserved_bytes and device_bytes are null: the CPU has no caching allocator and no driver",
    ]
    lines += [f"{name} has no rule: what it takes inside, beside its outputs, is not counted" for name in unknown]
    return tuple(lines)
