"""Configuration in, Estimate out: phases, peak, components, tiers, interval, verdict. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from memplan.config.device import DEFAULT_CPU_THREADS, Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.ledger import Allocation, Ledger, Moment
from memplan.ops.backend import CURRENT, NEWEST, Backend
from memplan.ops.size import spell
from memplan.transformer.program import trace_training
from memplan.units import ITEM_BYTES

PHASES = ("forward", "loss", "backward", "optimizer_step")

COMPONENTS = (
    "parameters", "gradients", "optimizer_state", "activations", "temporaries", "kv_cache", "inputs", "workspace",
    "buffers",
)  # fmt: skip
"""Every byte belongs to exactly one. `buffers` are the model's tensors that are not trained."""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One allocation of the ledger (or `copies` equal ones, one per repeated layer), ready to be shown.

    `size` is the bytes of one copy, `formula` spells it in the configuration's own terms, `reason` says why it is kept.
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

    allocated_bytes: tuple[int, int] | None
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


def estimate(model: Transformer, run: TrainingRun, device: Device, torch: tuple[int, int] = CURRENT) -> Estimate:
    """Estimate one training step under the rules of the release `torch` of PyTorch.

    Raises ConfigurationError for a contradictory request and NotModelledError for what has no rule.
    """
    model, run = validate_model(model), validate_run(model, run, device)
    ledger = trace_training(model, run, backend_of(device, torch))
    moments = ledger.moments()
    phases = tuple(_phase(ledger, name, *moments[name]) for name in PHASES)
    highest = max(phases, key=lambda phase: phase.peak_allocated_bytes)
    return Estimate(
        model=model,
        run=run,
        device=device,
        phases=phases,
        totals=_totals(ledger, phases),
        largest=_largest(ledger, moments[highest.name][0]),
        interval=_interval(highest.peak_allocated_bytes, device),
        fit=_fit(phases, device),
        assumptions=_assumptions(run, device, torch),
    )


def ledger_lines(
    model: Transformer, run: TrainingRun, device: Device, torch: tuple[int, int] = CURRENT
) -> list[LedgerLine]:
    """Every line of the ledger of one steady step, in the order of birth (for `--explain`). A line of a repeated layer
    stands for all its copies."""
    model, run = validate_model(model), validate_run(model, run, device)
    ledger = trace_training(model, run, backend_of(device, torch))
    return [_line(allocation, allocation.copies) for allocation in ledger.births()]


def backend_of(device: Device, torch: tuple[int, int] = CURRENT) -> Backend:
    """The operation rules a device is estimated with. For a card these are the CPU's until CUDA's are written, and the
    estimate says so."""
    return Backend("cpu", device.threads or DEFAULT_CPU_THREADS, torch)


def _phase(ledger: Ledger, name: str, peak: Moment, end: Moment) -> PhaseEstimate:
    grows = peak.event >= ledger.segments[peak.segment].start  # else the peak is what the phase began with
    at = ledger.events[peak.event][0] if grows else None
    return PhaseEstimate(
        name=name,
        peak_allocated_bytes=peak.size,
        end_allocated_bytes=end.size,
        at_peak=_components(peak),
        at_end=_components(end),
        peak_module=at.module if at is not None else "",
        peak_operation=at.operation if at is not None else f"the beginning of {name}",
    )


def _components(moment: Moment) -> dict[str, int]:
    return {component: moment.components.get(component, 0) for component in COMPONENTS}


def _totals(ledger: Ledger, phases: tuple[PhaseEstimate, ...]) -> Totals:
    """Read where each total is complete: gradients at the end of the backward pass, activations where it starts."""
    loss, backward = phases[PHASES.index("loss")], phases[PHASES.index("backward")]
    count = 0
    for allocation in ledger.births():
        if allocation.component == "parameters":
            count += allocation.size // ITEM_BYTES[allocation.dtype] * allocation.copies
    return Totals(
        parameter_count=count,
        parameters_bytes=backward.at_end["parameters"],
        gradients_bytes=backward.at_end["gradients"],
        optimizer_state_bytes=backward.at_end["optimizer_state"],
        saved_activations_bytes=loss.at_end["activations"],
    )


def _largest(ledger: Ledger, moment: Moment) -> tuple[LedgerLine, ...]:
    alive = sorted(ledger.alive(moment).items(), key=lambda item: -item[0].size * item[1])
    return tuple(_line(allocation, count) for allocation, count in alive)


def _line(allocation: Allocation, copies: int) -> LedgerLine:
    factors = [spell(size) for size in allocation.shape if size != 1]
    return LedgerLine(
        size=allocation.size,
        copies=copies,
        component=allocation.component,
        born=allocation.phase,
        died=allocation.died,
        module=allocation.module,
        operation=allocation.operation,
        formula=" * ".join([*factors, f"{ITEM_BYTES[allocation.dtype]} B"]),
        reason=_reason(allocation),
    )


def _reason(allocation: Allocation) -> str:
    component = allocation.component
    if component in _REASONS:
        return _REASONS[component]
    if component == "activations" and allocation.saved_by:
        return f"saved for {allocation.saved_by}"
    if component == "activations":
        return "held until the backward pass"
    return f"freed in {allocation.died}" if allocation.died else "held to the end of the step"


_REASONS = {
    "parameters": "trained weights",
    "gradients": "the optimizer step needs it",
    "optimizer_state": "kept from step to step",
    "inputs": "the micro-batch",
}


def _interval(peak: int, device: Device) -> Interval:
    """On the CPU the estimate is the run. For a card no run has been recorded yet, so no bound is claimed."""
    if device.backend == "cpu":
        basis = "equal to the byte to measured CPU runs; `memplan verify` repeats them"
        return Interval((peak, peak), None, None, basis)
    return Interval(None, None, None, "no recorded run on this card yet: no bounds are claimed")


def _fit(phases: tuple[PhaseEstimate, ...], device: Device) -> Fit | None:
    """`fits` is said only where an upper bound is known; `does_not_fit` only where weights, gradients and optimizer
    state alone, which are the same on every device, exceed the card."""
    if not device.capacity_bytes:
        return None
    peak = max(phase.peak_allocated_bytes for phase in phases)
    after = phases[-1].at_end
    certain = after["parameters"] + after["gradients"] + after["optimizer_state"]
    capacity = device.capacity_bytes
    if certain > capacity:
        reason = "parameters, gradients and optimizer state alone exceed the card"
        return Fit(device.name, capacity, capacity - max(peak, certain), "does_not_fit", reason)
    headroom = capacity - peak
    side = "below" if headroom >= 0 else "above"
    reason = (
        f"the allocated tier is {side} the capacity by the CPU's rules; CUDA's own rules, the caching allocator's "
        "reserve and the driver's share are not modelled yet, so this is not proven to fit"
    )
    return Fit(device.name, capacity, headroom, "tight", reason)


def _assumptions(run: TrainingRun, device: Device, torch: tuple[int, int]) -> tuple[str, ...]:
    threads = backend_of(device).threads
    lines = [
        "steady state: the second step and later, when optimizer states exist",
        "memplan's reference transformer in eager PyTorch, with one micro-batch of inputs in memory",
        f"operation rules of PyTorch {torch[0]}.{torch[1]}'s CPU kernels with {threads} threads and oneDNN off",
    ]
    if torch > NEWEST:
        lines.append(
            f"PyTorch {torch[0]}.{torch[1]} has not been held against real runs: the rules of {NEWEST[0]}.{NEWEST[1]}"
        )
    if device.backend == "cuda":
        lines.append("CUDA's own rules are not written yet: a card's bytes differ from these")
        lines.append(
            "reserved_bytes and device_bytes are null: the caching allocator and the driver are not modelled yet"
        )
    else:
        lines.append("reserved_bytes and device_bytes are null: the CPU has no caching allocator and no driver")
    if run.recompute == "full":
        lines.append("torch.utils.checkpoint without reentrant autograd round each layer, generator state kept")
    return tuple(lines)
