"""Configuration in, Estimate out: phases, peak, components, tiers, interval, verdict. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from memplan.assumptions import assumptions, setup_assumptions
from memplan.config.device import DEFAULT_CPU_THREADS, Device
from memplan.config.kernels import generation_of
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.interval import Interval, interval_for, verdict
from memplan.ledger import SKIPPED, Allocation, Ledger, Moment
from memplan.ops.backend import CURRENT, Backend
from memplan.ops.size import spell
from memplan.units import ITEM_BYTES, human

if TYPE_CHECKING:
    from memplan.config.models import Model
    from memplan.config.runs import Run
    from memplan.sharing import Shared
    from memplan.tiers import CardTiers

PHASES = TrainingRun.phases
"""Of a training step."""

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
    died: str  # phase in which it is freed; "" where it outlives the step, or the run that writes
    module: str  # dotted module path, "decoder.layers.*.attention"
    operation: str  # the PyTorch operation that allocates it
    formula: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhaseEstimate:
    """One phase of a step, in its steady state. Sizes are bytes of the allocated tier, but for the one that says so; on
    a card they are those of the allocator's blocks."""

    name: str
    peak_allocated_bytes: int
    end_allocated_bytes: int
    at_peak: dict[str, int]  # every component, sums to peak_allocated_bytes
    at_end: dict[str, int]  # every component, sums to end_allocated_bytes
    peak_module: str  # module path of the allocation that makes the peak
    peak_operation: str
    peak_reserved_bytes: int | None = None  # None on the CPU


@dataclass(frozen=True, slots=True)
class Totals:
    """Closed-form totals, read off the same ledger."""

    parameter_count: int  # weights, trained or frozen, adapters among them; a quantised weight is one as well
    parameters_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    saved_activations_bytes: int  # alive when the backward pass starts
    kv_cache_bytes: int = 0  # at the end of a run that writes
    trainable_parameter_count: int = 0  # those that get gradients


@dataclass(frozen=True, slots=True)
class Tiers:
    """Bytes at the peak of the step; None for a tier that the device does not have."""

    allocated_bytes: int
    reserved_bytes: int | None = None
    device_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether the job fits a card: the highest tier against what the card can give. `headroom_bytes` is negative where
    the estimate itself exceeds that."""

    device: str
    capacity_bytes: int
    headroom_bytes: int
    verdict: Literal["fits", "tight", "does_not_fit"]
    reason: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run needs, and where: one training step, or writing tokens. Component dictionaries hold every name of
    COMPONENTS, in that order."""

    model: Model
    run: Run
    device: Device
    phases: tuple[PhaseEstimate, ...]  # forward, loss, backward, optimizer_step; or prefill, decode
    tiers: Tiers  # at the peak of all
    totals: Totals
    largest: tuple[LedgerLine, ...]  # alive at the peak, largest total (size * copies) first
    interval: Interval
    fit: Fit | None
    assumptions: tuple[str, ...]
    sdpa_kernels: tuple[str, ...] = ()  # of scaled_dot_product_attention, where PyTorch chooses among them
    largest_batch: int | None = None  # of a run that writes on a card: sequences that fit (memplan/capacity.py)

    @property
    def peak(self) -> PhaseEstimate:
        """The phase with the highest peak (the earliest of equals)."""
        return highest_of(self.phases)

    @property
    def at_peak(self) -> dict[str, int]:
        """Bytes by component at the peak of the step; they add up to the peak exactly."""
        return self.peak.at_peak


def estimate(
    model: Model,
    run: Run,
    device: Device,
    torch: tuple[int, int] = CURRENT,
    allocator_settings: str = "",
    steps: int | None = None,
    shared: Shared | None = None,
) -> Estimate:
    """Estimate one training step, or a run that writes, under the rules of the release `torch` of PyTorch. On a card
    `allocator_settings` is the text of PYTORCH_ALLOC_CONF, and `steps` how many steps are run where they are not as
    many as it takes for the allocator to settle. `shared` keeps what other estimates have in common with this one.

    Raises ConfigurationError for a contradictory request and NotModelledError for what has no rule.
    """
    model, run = validate_model(model), validate_run(model, run, device)
    backend = backend_of(device, torch)
    ledger = trace(model, run, backend) if shared is None else shared.ledger(model, run, backend, trace)
    moments = ledger.moments()
    card: CardTiers | None = None
    if device.backend == "cpu":
        phases = tuple(phase_of(ledger, name, *moments[name]) for name in run.phases if name in moments)
    else:
        from memplan.allocator import parse_settings
        from memplan.tiers import on_card

        card = on_card(ledger, device, parse_settings(allocator_settings, torch), steps, shared)
        phases = tuple(_phase_on_card(card, name) for name in run.phases if name in moments)
    highest = highest_of(phases)
    tiers = Tiers(highest.peak_allocated_bytes) if card is None else Tiers(*card.tiers)
    totals = totals_of(ledger, moments)
    certain = totals.parameters_bytes + totals.gradients_bytes + totals.optimizer_state_bytes
    context = None if card is None else (card.context.low, card.context.widest)
    interval = interval_for(model, run, device, tiers, torch, certain=certain, context=context)
    return Estimate(
        model=model,
        run=run,
        device=device,
        phases=phases,
        tiers=tiers,
        totals=totals,
        largest=largest_of(ledger, moments[highest.name][0]),
        interval=interval,
        fit=_fit(tiers, interval, device),
        assumptions=(
            *assumptions(model, run, device, torch, card, allocator_settings, ledger),
            *setup_assumptions(run, device, ledger),
        ),
        sdpa_kernels=tuple(sorted(ledger.sdpa_kernels)),
    )


def trace(model: Model, run: Run, backend: Backend, every_layer: bool = False) -> Ledger:
    """The ledger of one steady step, or of writing, by the wing of the model's implementation. `model` and `run` have
    been validated."""
    if not isinstance(run, TrainingRun):
        if not isinstance(model, Transformer):
            from memplan.huggingface.generation import trace_library_generation

            return trace_library_generation(model, run, backend, every_layer)
        from memplan.transformer.program import trace_generation

        return trace_generation(model, run, backend, every_layer)
    if isinstance(model, Transformer):
        from memplan.transformer.program import trace_training

        return trace_training(model, run, backend, every_layer)
    from memplan.huggingface.program import trace_library_training

    return trace_library_training(model, run, backend, every_layer)


def ledger_lines(model: Model, run: Run, device: Device, torch: tuple[int, int] = CURRENT) -> list[LedgerLine]:
    """Every line of the ledger of one steady step, in the order of birth (for `--explain`). A line of a repeated layer
    stands for all its copies."""
    model, run = validate_model(model), validate_run(model, run, device)
    ledger = trace(model, run, backend_of(device, torch))
    return [line_of(allocation, allocation.copies) for allocation in ledger.births()]


def backend_of(device: Device, torch: tuple[int, int] = CURRENT) -> Backend:
    """The operation rules a device is estimated with."""
    if device.backend == "cpu":
        return Backend("cpu", device.threads or DEFAULT_CPU_THREADS, torch)
    return Backend("cuda", 1, torch, generation_of(device), device.multiprocessors)


def highest_of(phases: tuple[PhaseEstimate, ...]) -> PhaseEstimate:
    """The phase with the highest peak (the earliest of equals)."""
    return max(phases, key=lambda phase: phase.peak_allocated_bytes)


def phase_of(ledger: Ledger, name: str, peak: Moment, end: Moment) -> PhaseEstimate:
    """The phase `name` of a ledger on the CPU, by its two moments."""
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


def _phase_on_card(card: CardTiers, name: str) -> PhaseEstimate:
    from memplan.replay import module_of

    phase = card.replay.phases[name]
    at = phase.peak_allocation
    return PhaseEstimate(
        name=name,
        peak_allocated_bytes=phase.peak_allocated,
        end_allocated_bytes=phase.end_allocated,
        peak_reserved_bytes=phase.peak_reserved,
        at_peak=_every(phase.at_peak),
        at_end=_every(phase.at_end),
        peak_module=module_of(at, phase.peak_layer) if at is not None else "",
        peak_operation=at.operation if at is not None else f"the beginning of {name}",
    )


def _components(moment: Moment) -> dict[str, int]:
    return _every(moment.components)


def _every(sizes: dict[str, int]) -> dict[str, int]:
    """Each component, those that hold nothing too."""
    return {component: sizes.get(component, 0) for component in COMPONENTS}


def totals_of(ledger: Ledger, moments: dict[str, tuple[Moment, Moment]]) -> Totals:
    """Read where each total is complete: gradients at the end of the backward pass, activations where it starts, a
    cache when all is written."""
    last = moments.get("decode", moments.get("prefill"))
    if last is None:
        saved, held = moments["loss"][1].components, moments["backward"][1].components
    else:
        saved, held = {}, last[1].components
    count = trained = 0
    for allocation in ledger.births():
        if allocation.component == "parameters":
            each = allocation.size // ITEM_BYTES[allocation.dtype] if allocation.weights is None else allocation.weights
            weights = each * allocation.copies
            count += weights
            trained += 0 if allocation.frozen else weights
    return Totals(
        parameter_count=count,
        trainable_parameter_count=trained if last is None else 0,
        parameters_bytes=held.get("parameters", 0),
        gradients_bytes=held.get("gradients", 0),
        optimizer_state_bytes=held.get("optimizer_state", 0),
        saved_activations_bytes=saved.get("activations", 0),
        kv_cache_bytes=held.get("kv_cache", 0),
    )


def largest_of(ledger: Ledger, moment: Moment) -> tuple[LedgerLine, ...]:
    """What is alive at a moment, largest total first."""
    alive = sorted(ledger.alive(moment).items(), key=lambda item: -item[0].size * item[1])
    return tuple(line_of(allocation, count) for allocation, count in alive)


def line_of(allocation: Allocation, copies: int) -> LedgerLine:
    """An allocation of the ledger, ready to be shown."""
    factors = [spell(size) for size in allocation.shape if spell(size) != "1"]
    return LedgerLine(
        size=allocation.size,
        copies=copies,
        component=allocation.component,
        born=_shown(allocation.phase),
        died=_shown(allocation.died),
        module=allocation.module,
        operation=allocation.operation,
        formula=" * ".join([*factors, f"{ITEM_BYTES[allocation.dtype]} B"]),
        reason=_reason(allocation),
    )


def _shown(phase: str) -> str:
    """A phase as a reader knows it: the steps of decode that are not traced are steps of decode."""
    return "decode" if phase == SKIPPED else phase


def _reason(allocation: Allocation) -> str:
    component = allocation.component
    if allocation.frozen:
        return "weights that are not trained"
    if component in _REASONS:
        return _REASONS[component]
    if component == "activations" and allocation.saved_by:
        return f"saved for {allocation.saved_by}"
    if component == "activations":
        return "held until the backward pass"
    return f"freed in {_shown(allocation.died)}" if allocation.died else "held to the end of the step"


_REASONS = {
    "parameters": "trained weights",
    "gradients": "the optimizer step needs it",
    "optimizer_state": "kept from step to step",
    "inputs": "the micro-batch",
    "kv_cache": "keys and values of earlier tokens",
}


def _fit(tiers: Tiers, interval: Interval, device: Device) -> Fit | None:
    """`fits` is said on the interval's upper end, `does_not_fit` on its lower one."""
    bounds = interval.device_bytes
    if not device.capacity_bytes or tiers.device_bytes is None or bounds is None:
        return None
    room = device.available_bytes
    low, high = bounds
    said = verdict(low, high, room)
    given = "capacity" if room == device.capacity_bytes else "room that others leave"
    if said == "fits":
        reason = f"the upper end of the interval, {human(high)}, is within the {given}"
    elif said == "does_not_fit":
        reason = f"the lower end of the interval, {human(low)}, exceeds the {given}"
    else:
        reason = f"the {given} lies within the interval, {human(low)} to {human(high)}"
    return Fit(device.name, room, room - tiers.device_bytes, said, reason)
