"""Configuration in, Estimate out: phases, peak, components, tiers, interval, verdict. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun

COMPONENTS = (
    "parameters", "gradients", "optimizer_state", "activations", "temporaries", "kv_cache", "inputs", "workspace",
    "buffers",
)  # fmt: skip
"""Every byte belongs to exactly one. `buffers` are the model's tensors that are not trained."""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One allocation of the ledger (or `copies` equal ones, one per repeated layer), ready to be shown.

    `size` is the bytes of one copy; `formula` spells it in the configuration's own terms; `reason` says why it is alive.
    """

    size: int
    copies: int
    component: str
    born: str  # phase in which it is allocated
    died: str  # phase in which it is freed; "" where it outlives the step
    module: str  # dotted module path, "decoder.layers.*.attention"
    operation: str  # the PyTorch operation that allocates it
    formula: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhaseEstimate:
    """One phase of a step, in its steady state (the second step). Sizes are bytes of the allocated tier."""

    name: str
    peak_allocated_bytes: int
    end_allocated_bytes: int
    at_peak: dict[str, int]  # every component, sums to peak_allocated_bytes
    at_end: dict[str, int]  # every component, sums to end_allocated_bytes
    peak_module: str  # module path of the allocation that makes the peak
    peak_operation: str


@dataclass(frozen=True, slots=True)
class Totals:
    """Closed-form totals, read off the same ledger."""

    parameter_count: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    saved_activations_bytes: int  # alive when the backward pass starts


@dataclass(frozen=True, slots=True)
class Interval:
    """Honest bounds round the estimate, in bytes; None where the tier cannot be known."""

    allocated_bytes: tuple[int, int]
    reserved_bytes: tuple[int, int] | None
    device_bytes: tuple[int, int] | None
    basis: str


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether the job fits a card. `headroom_bytes` is negative where it does not."""

    device: str
    capacity_bytes: int
    headroom_bytes: int
    verdict: Literal["fits", "tight", "does_not_fit"]
    reason: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one training step needs, and where. Component dictionaries hold every name of COMPONENTS, in that order."""

    model: Transformer
    run: TrainingRun
    device: Device
    phases: tuple[PhaseEstimate, ...]  # forward, loss, backward, optimizer_step
    totals: Totals
    largest: tuple[LedgerLine, ...]  # alive at the peak, largest total (size * copies) first
    interval: Interval
    fit: Fit | None
    assumptions: tuple[str, ...]

    @property
    def peak(self) -> PhaseEstimate:
        """The phase with the highest peak (the earliest of equals)."""
        return max(self.phases, key=lambda phase: phase.peak_allocated_bytes)

    @property
    def at_peak(self) -> dict[str, int]:
        """Bytes by component at the peak of the step; they add up to the peak exactly."""
        return self.peak.at_peak


def estimate(model: Transformer, run: TrainingRun, device: Device) -> Estimate:
    """Estimate one training step. Raises NotModelledError for what has no rule."""
    raise NotImplementedError


def ledger_lines(model: Transformer, run: TrainingRun, device: Device) -> list[LedgerLine]:
    """Every line of the ledger of one steady step, in the order of birth (for `--explain`)."""
    raise NotImplementedError
