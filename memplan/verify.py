"""An estimate beside a record of the real run: the residual of every phase and component. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.estimate import Estimate, estimate
from memplan.ops.backend import release
from memplan.profiles import Record


@dataclass(frozen=True, slots=True)
class Residual:
    """One figure, predicted and measured, in bytes."""

    estimated: int
    measured: int

    @property
    def difference(self) -> int:
        """Estimate less measurement."""
        return self.estimated - self.measured


@dataclass(frozen=True, slots=True)
class PhaseVerification:
    """One phase: its peak, what is alive at its end, and both by component."""

    name: str
    peak: Residual
    end: Residual
    at_peak: dict[str, Residual]
    at_end: dict[str, Residual]

    @property
    def residuals(self) -> list[Residual]:
        """Every figure of the phase."""
        return [self.peak, self.end, *self.at_peak.values(), *self.at_end.values()]


@dataclass(frozen=True, slots=True)
class Verification:
    """One configuration: its estimate, the record of its run, and what differs."""

    estimate: Estimate
    record: Record
    phases: tuple[PhaseVerification, ...]

    @property
    def peak(self) -> PhaseVerification:
        """The phase with the highest estimated peak."""
        return max(self.phases, key=lambda phase: phase.peak.estimated)

    @property
    def expected_kernels(self) -> list[str]:
        """The kernels of scaled_dot_product_attention that should have run: none where attention is written out."""
        return [] if self.estimate.run.attention == "naive" else [self.estimate.run.attention]

    @property
    def worst(self) -> int:
        """The largest residual of any phase or component, without its sign."""
        return max(abs(residual.difference) for phase in self.phases for residual in phase.residuals)

    @property
    def exact(self) -> bool:
        """Whether every figure agrees to the byte, and the right attention kernel ran."""
        return self.worst == 0 and self.record["sdpa_kernels"] == self.expected_kernels


def verify(model: Transformer, run: TrainingRun, device: Device, record: Record) -> Verification:
    """Estimate the request by the rules of the PyTorch that ran it, and lay the record beside it.

    Raises MeasurementError for a record that does not hold the phases of a training step.
    """
    predicted = estimate(model, run, device, release(record["environment"]["torch"]))
    measured = {phase["name"]: phase for phase in record.get("phases", ())}
    missing = [phase.name for phase in predicted.phases if phase.name not in measured]
    if missing:
        raise MeasurementError(f"the record has no phase {', '.join(missing)}")
    phases = tuple(
        PhaseVerification(
            name=phase.name,
            peak=Residual(phase.peak_allocated_bytes, measured[phase.name]["peak_allocated_bytes"]),
            end=Residual(phase.end_allocated_bytes, measured[phase.name]["end_allocated_bytes"]),
            at_peak=_beside(phase.at_peak, measured[phase.name]["at_peak"]),
            at_end=_beside(phase.at_end, measured[phase.name]["at_end"]),
        )
        for phase in predicted.phases
    )
    return Verification(predicted, record, phases)


def _beside(estimated: dict[str, int], measured: dict[str, int]) -> dict[str, Residual]:
    """Every component that either side knows."""
    names = [*estimated, *(name for name in measured if name not in estimated)]
    return {name: Residual(estimated.get(name, 0), measured.get(name, 0)) for name in names}
