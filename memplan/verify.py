"""An estimate beside a record of the real run: the residual of every tier, phase and component. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan.config.context import context_of
from memplan.config.device import Device
from memplan.errors import MeasurementError
from memplan.estimate import Estimate, estimate
from memplan.interval import Interval, interval_for
from memplan.ops.backend import release
from memplan.profiles import Record, outcome_of
from memplan.residuals import Line

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run

TIERS = ("allocated", "reserved", "device")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is asked of a tier, in thousandths of the measurement: no more than `most` in any record, and no more than
    `usual` in at least `share` percent of them."""

    backend: str
    tier: str
    usual: int
    share: int
    most: int


TOLERANCES = (
    Tolerance("cpu", "allocated", usual=0, share=100, most=0),  # and every phase and component at 0 bytes as well
    Tolerance("cuda", "allocated", usual=0, share=95, most=2),
    Tolerance("cuda", "reserved", usual=10, share=95, most=30),
    Tolerance("cuda", "device", usual=20, share=100, most=20),
)
"""The one place that states how near an estimate has to be. On a card, beside these: no run that runs out of memory is
predicted to fit, and see LARGEST_SHARE."""

LARGEST_SHARE = 90
"""Percent of the boundaries (a micro-batch that fits and one more that runs out) that are predicted to the sequence."""


@dataclass(frozen=True, slots=True)
class Residual:
    """One figure, predicted and measured, in bytes."""

    estimated: int
    measured: int

    @property
    def difference(self) -> int:
        """Estimate less measurement."""
        return self.estimated - self.measured

    @property
    def error(self) -> float:
        """The difference as a share of the measurement."""
        return self.difference / max(self.measured, 1)

    def within(self, thousandths: int) -> bool:
        """Whether the difference is no more than so many thousandths of the measurement."""
        return abs(self.difference) * 1000 <= self.measured * thousandths


@dataclass(frozen=True, slots=True)
class PhaseVerification:
    """One phase: its peak, what is alive at its end, and both by component, where the record knows them."""

    name: str
    peak: Residual
    end: Residual | None
    reserved: Residual | None  # at its peak
    at_peak: dict[str, Residual]
    at_end: dict[str, Residual]

    @property
    def figures(self) -> dict[str, Residual]:
        """Every figure of the phase by name, `forward: activations at the peak`."""
        figures = {f"{self.name}: peak": self.peak}
        if self.end is not None:
            figures[f"{self.name}: end"] = self.end
        if self.reserved is not None:
            figures[f"{self.name}: reserved"] = self.reserved
        for moment, components in (("peak", self.at_peak), ("end", self.at_end)):
            figures.update({f"{self.name}: {name} at the {moment}": each for name, each in components.items()})
        return figures

    @property
    def residuals(self) -> list[Residual]:
        """Every figure of the phase."""
        return list(self.figures.values())


@dataclass(frozen=True, slots=True)
class Verification:
    """One configuration: its estimate, the record of its run, and what differs."""

    estimate: Estimate
    record: Record
    phases: tuple[PhaseVerification, ...]
    tiers: dict[str, Residual]  # by name of TIERS, those that both sides know

    @property
    def peak(self) -> PhaseVerification:
        """The phase with the highest estimated peak."""
        return max(self.phases, key=lambda phase: phase.peak.estimated)

    @property
    def expected_kernels(self) -> list[str]:
        """The kernels of scaled_dot_product_attention that should have run: none where attention is written out. Of a
        library's sdpa the estimate says which (memplan/huggingface/attention.py), layer by layer."""
        attention = self.estimate.run.attention
        if attention == "naive":
            return []
        return list(self.estimate.sdpa_kernels) if attention == "sdpa" else [attention]

    @property
    def worst(self) -> int:
        """The largest residual of any tier, phase or component, without its sign."""
        figures = [residual for phase in self.phases for residual in phase.residuals]
        return max(abs(residual.difference) for residual in [*self.tiers.values(), *figures])

    @property
    def right_kernel(self) -> bool:
        """Whether PyTorch ran the attention kernel that was asked for, as far as the record knows."""
        return self.record["sdpa_kernels"] in (None, self.expected_kernels)

    @property
    def exact(self) -> bool:
        """Whether every figure agrees to the byte, and the right attention kernel ran."""
        return self.worst == 0 and self.right_kernel

    @property
    def holds(self) -> bool:
        """Whether every tier is within the tolerance of its device, and the right attention kernel ran; on the CPU,
        whether it is exact."""
        backend = self.estimate.device.backend
        if backend == "cpu":
            return self.exact
        limits = {each.tier: each.most for each in TOLERANCES if each.backend == backend}
        return self.right_kernel and all(each.within(limits[tier]) for tier, each in self.tiers.items())


def verify(model: Model, run: Run, device: Device, record: Record) -> Verification:
    """Estimate the request by the rules of the PyTorch that ran it, and lay the record beside it.

    Raises MeasurementError for a record of a run that did not end, or that does not hold the phases of the run.
    """
    if outcome_of(record) != "ran":
        raise MeasurementError(f"the run of {model.name} did not end: {outcome_of(record).replace('_', ' ')}")
    predicted = predict(model, run, device, record)
    measured = {phase["name"]: phase for phase in record.get("phases", ())}
    missing = [phase.name for phase in predicted.phases if phase.name not in measured]
    if missing:
        raise MeasurementError(f"the record has no phase {', '.join(missing)}")
    phases = []
    for phase in predicted.phases:
        seen = measured[phase.name]
        phases.append(
            PhaseVerification(
                name=phase.name,
                peak=Residual(phase.peak_allocated_bytes, seen["peak_allocated_bytes"]),
                end=_residual(phase.end_allocated_bytes, seen.get("end_allocated_bytes")),
                reserved=_residual(phase.peak_reserved_bytes, seen.get("peak_reserved_bytes")),
                at_peak=_beside(phase.at_peak, seen.get("at_peak")),
                at_end=_beside(phase.at_end, seen.get("at_end")),
            )
        )
    return Verification(predicted, record, tuple(phases), _tiers(predicted, record))


def predict(model: Model, run: Run, device: Device, record: Record) -> Estimate:
    """The estimate of a recorded run, by the rules of the PyTorch that ran it and the settings its allocator had."""
    environment = record["environment"]
    settings = environment.get("allocator_settings") or ""
    steps = len(record.get("steps") or ()) if outcome_of(record) == "ran" else 0
    return estimate(model, run, device, release(environment["torch"]), settings, steps or None)


def estimated_tiers(predicted: Estimate) -> dict[str, int]:
    """The tiers that the estimate knows, by name of TIERS, in bytes."""
    tiers = predicted.tiers
    sizes = (tiers.allocated_bytes, tiers.reserved_bytes, tiers.device_bytes)
    return {name: size for name, size in zip(TIERS, sizes, strict=True) if size is not None}


def held_out_interval(predicted: Estimate, record: Record, recorded: Sequence[Line]) -> Interval:
    """The interval of a recorded request by the residuals in `recorded` less its own."""
    totals = predicted.totals
    context = None
    if predicted.device.backend == "cuda":
        whole = context_of(predicted.device)
        context = (whole.low, whole.widest)
    return interval_for(
        predicted.model,
        predicted.run,
        predicted.device,
        predicted.tiers,
        release(record["environment"]["torch"]),
        certain=totals.parameters_bytes + totals.gradients_bytes + totals.optimizer_state_bytes,
        context=context,
        recorded=recorded,
        hold_out=True,
    )


def _tiers(predicted: Estimate, record: Record) -> dict[str, Residual]:
    highest = max(phase["peak_allocated_bytes"] for phase in record["phases"])
    measured = {"allocated_bytes": highest, **(record.get("tiers") or {})}
    tiers = {}
    for tier, estimated in estimated_tiers(predicted).items():
        residual = _residual(estimated, measured.get(f"{tier}_bytes"))
        if residual is not None:
            tiers[tier] = residual
    return tiers


def _residual(estimated: int | None, measured: int | None) -> Residual | None:
    return None if estimated is None or measured is None else Residual(estimated, measured)


def _beside(estimated: dict[str, int], measured: dict[str, int] | None) -> dict[str, Residual]:
    """Every component that either side knows; none where the record has no components."""
    if not measured:
        return {}
    names = [*estimated, *(name for name in measured if name not in estimated)]
    return {name: Residual(estimated.get(name, 0), measured.get(name, 0)) for name in names}
