"""A run beside its plan, in sentences. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memplan.measure.watching.findings import Finding
from memplan.measure.watching.plan import Difference, Plan
from memplan.measure.watching.readings import WINDOW, Reading
from memplan.measure.watching.record import Kept
from memplan.units import human
from memplan.verify import Residual

if TYPE_CHECKING:
    from memplan.estimate import Estimate

SETTLED = 2
"""So many steps may need less than planned: the first one begins without the optimizer's states, and the allocator
settles in the second."""

STEPS_AHEAD = 10_000
"""Growth is told where it makes at least a hundredth of what is there in so many steps."""

LEAST_OF_A_PROCESS = 32 * 2**20
"""Growth of a whole process is told from so many bytes on: caches and threads come and go."""


def residuals_of(
    plan: Plan, phases: Iterable[Mapping[str, Any]], tiers: Mapping[str, int | None]
) -> dict[str, Residual]:
    """Every figure that both sides know, by name: `forward: peak`, `reserved tier`; of the components those that
    differ. `tiers` are those of a record."""
    measured = {str(phase["name"]): phase for phase in phases}
    figures: dict[str, Residual] = {}
    for phase in plan.estimate.phases:
        seen = measured.get(phase.name)
        if seen is not None:
            figures[f"{phase.name}: peak"] = Residual(phase.peak_allocated_bytes, seen["peak_allocated_bytes"])
            figures[f"{phase.name}: end"] = Residual(phase.end_allocated_bytes, seen["end_allocated_bytes"])
            for moment, components in (("peak", phase.at_peak), ("end", phase.at_end)):
                measured_at: Mapping[str, int] = seen.get(f"at_{moment}") or {}
                for name in {**components, **measured_at} if measured_at else ():
                    residual = Residual(components.get(name, 0), measured_at.get(name, 0))
                    if residual.difference:
                        figures[f"{phase.name}: {name} at the {moment}"] = residual
    planned = estimated_tiers(plan.estimate)
    for name, size in tiers.items():
        tier = name.removesuffix("_bytes")
        if size is not None and tier in planned:
            figures[f"{tier} tier"] = Residual(planned[tier], size)
    return figures


def estimated_tiers(estimate: Estimate) -> dict[str, int]:
    """The tiers that an estimate knows, in bytes."""
    tiers = estimate.tiers
    sizes = {"allocated": tiers.allocated_bytes, "reserved": tiers.reserved_bytes, "device": tiers.device_bytes}
    return {name: size for name, size in sizes.items() if size is not None}


def drift(
    step: int, tier: str, residual: Residual, limit: float, phase: str = "", why: Iterable[str] = ()
) -> Finding | None:
    """A finding where a tier is off by more than `limit`, a share of the measurement. `why` says what is known of
    that."""
    if abs(residual.error) <= limit:
        return None
    more = residual.difference < 0
    where = f" in {phase.replace('_', ' ')}" if phase else ""
    message = (
        f"step {step}: {tier} memory peaks{where} at {human(residual.measured)}: {human(abs(residual.difference))} "
        f"({_share(residual):.1f} %) {'more' if more else 'less'} than the {human(residual.estimated)} that are planned"
    )
    message = "; ".join([message, *why])
    return Finding("drift", step, message, tier, residual.estimated, residual.measured)


def _share(residual: Residual) -> float:
    """The difference in percent of what was planned."""
    return 100 * abs(residual.difference) / max(residual.estimated, 1)


def reasons(carried: Mapping[str, int], differing: Sequence[Difference]) -> list[str]:
    """What makes a peak differ: what the step before has left (`carried`: bytes of gradients, and others), and then the
    blocks that differ most."""
    said = []
    if carried.get("gradients"):
        said.append(
            f"{human(carried['gradients'])} are gradients of the step before, which optimizer.zero_grad() would free "
            "before the forward pass"
        )
    if carried.get("other"):
        said.append(
            f"{human(carried['other'])} are left from the step before, such as outputs that a variable still holds"
        )
    if differing:
        said.append(f"alive there: {', '.join(str(each) for each in differing[:3])}")
    return said


def drift_of_reading(plan: Plan, reading: Reading, limit: float) -> list[Finding]:
    """What a reading behind a step of a card says, by tier."""
    planned = estimated_tiers(plan.estimate)
    measured = {"allocated": reading.allocated_peak, "reserved": reading.reserved_peak, "device": reading.device}
    found = []
    for tier, size in measured.items():
        if size is None or tier not in planned:
            continue
        residual = Residual(planned[tier], size)
        finding = drift(reading.step, tier, residual, limit)
        if finding is not None and (residual.difference < 0 or reading.step > SETTLED):
            found.append(finding)
    return found


def does_not_fit(plan: Plan, step: int) -> Finding | None:
    """A finding where the plan says that the card has too little, whatever the first step needs."""
    fit, device = plan.estimate.fit, plan.estimate.device
    if fit is None or fit.verdict != "does_not_fit":
        return None
    needed = plan.estimate.tiers.device_bytes
    assert needed is not None
    when = "this run" if step == 0 else f"behind step {step} this run"
    message = (
        f"will not fit: {when} needs {human(needed)} in {plan.estimate.peak.name.replace('_', ' ')}, {device.name} has "
        f"{human(fit.capacity_bytes)} ({human(needed - fit.capacity_bytes)} short). `memplan plan` ranks what would fit"
    )
    return Finding("does_not_fit", step, message, "device", needed, fit.capacity_bytes)


def growth(step: int, tier: str, size: int, per_step: float, capacity: int = 0) -> Finding | None:
    """A finding where what every step leaves behind matters."""
    whole = tier == "process"
    matters = per_step * WINDOW >= LEAST_OF_A_PROCESS if whole else per_step * STEPS_AHEAD >= size / 100
    if not matters:
        return None
    what = "the resident memory of the process, which is more than its tensors," if whole else f"{tier} memory"
    message = (
        f"step {step}: {what} has grown behind each of the last {WINDOW} readings, by {human(round(per_step))} a step: "
        "something is kept from step to step, such as a loss without .item() or .detach()"
    )
    if capacity > size:
        message += f". The card is full in {(capacity - size) / per_step:,.0f} steps"
    return Finding("growth", step, message, tier, None, size)


def planned(plan: Plan) -> str:
    """A plan in a sentence."""
    tiers = ", ".join(f"{human(size)} {tier}" for tier, size in estimated_tiers(plan.estimate).items())
    return f"{plan.estimate.model.name} is planned to need {tiers}, in {plan.estimate.peak.name.replace('_', ' ')}"


def of_recorded(step: int, residual: Residual, phase: str) -> str:
    """The recorded step in a sentence."""
    where = phase.replace("_", " ")
    if not residual.difference:
        return f"step {step}: as planned to the byte, {residual.measured:,} bytes at the peak, in {where}"
    way = "more" if residual.difference < 0 else "fewer"
    return (
        f"step {step}: {residual.measured:,} bytes at the peak, in {where}, {abs(residual.difference):,} "
        f"({_share(residual):.3f} %) {way} than planned"
    )


def summary(kept: Kept) -> str:
    """All that came of a run, a line each."""
    lines = [f"{kept.steps:,} steps watched"]
    if kept.plan is None:
        lines.append(f"no plan: {kept.why_no_plan or 'nothing was known of the run'}")
    else:
        lines.append(planned(kept.plan))
    residual = kept.residuals.get("allocated tier")
    if residual is not None and kept.recorded_step is not None:
        highest = max(kept.phases, key=lambda phase: int(phase["peak_allocated_bytes"]))
        lines.append(of_recorded(kept.recorded_step, residual, str(highest["name"])))
    lines += [finding.message for finding in kept.findings]
    return "\n".join(lines)
