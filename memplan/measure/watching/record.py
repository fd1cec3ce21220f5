"""What is kept of a run that was watched: a record (memplan/profiles.py) with one part more, `watched`. Torch-free."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memplan import __version__
from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.measure.watching.findings import Finding
from memplan.measure.watching.plan import REFERENCE, Difference, Plan
from memplan.measure.watching.readings import Readings
from memplan.profiles import SCHEMA_VERSION, Record, make_record, record_path, write_text
from memplan.verify import Residual

if TYPE_CHECKING:
    from memplan.config.models import Model

Request = tuple["Model", "TrainingRun", Device]


@dataclass(slots=True)
class Ending:
    """How a run ended: one of memplan.profiles.OUTCOMES, and what a record says of it beside. While it runs, and where
    it is never said how it ended, it counts as killed."""

    outcome: str = "killed"
    told: dict[str, Any] = field(default_factory=dict)
    finished: bool = False


@dataclass(slots=True)
class Kept:
    """All that a record is made of. Sizes are bytes."""

    loop: str
    request: Request | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    recorded_step: int | None = None
    phases: list[dict[str, Any]] = field(default_factory=list)
    sdpa_kernels: list[str] | None = None
    tiers: dict[str, int | None] | None = None
    allocator: dict[str, int] | None = None
    plan: Plan | None = None
    why_no_plan: str = ""
    residuals: dict[str, Residual] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    carried: dict[str, int] = field(default_factory=dict)
    left_bytes: int | None = None
    left: list[dict[str, Any]] = field(default_factory=list)
    readings: Readings = field(default_factory=Readings)
    other_shapes: int = 0
    process: dict[str, int | None] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    ending: Ending = field(default_factory=Ending)

    @property
    def not_graded(self) -> list[str]:
        """Why the bytes of this run say nothing about the estimator, in words; none where they do."""
        reasons = []
        if self.loop != REFERENCE:
            reasons.append(f"the loop is {_LOOPS.get(self.loop, self.loop)}, and estimates are made for another one")
        lacking = [name for name in TrainingRun.phases if name not in {phase["name"] for phase in self.phases}]
        if lacking and self.ending.outcome == "ran":
            reasons.append(f"nothing is known of its phase {', '.join(lacking)}")
        on_cpu = self.request is not None and self.request[2].backend == "cpu"
        if on_cpu and self.environment.get("onednn"):
            reasons.append("oneDNN was on, and estimates of the CPU are made for runs without it")
        if on_cpu and self.ending.outcome == "out_of_memory":
            reasons.append("the CPU has no fixed capacity")
        return reasons


_LOOPS = {"own": "one of the run's own"}


def to_record(kept: Kept) -> Record:
    """The document. One without a request, of a run that nothing is known of, is none that memplan.profiles reads."""
    ending = kept.ending
    outcome, told = ending.outcome, dict(ending.told)
    if outcome == "ran" and not kept.phases:
        outcome, told = "failed", {"error": "the training ended well, and no step of it was recorded"}
    measured: dict[str, Any] = {"environment": kept.environment, "outcome": outcome, **told}
    measured |= {"sdpa_kernels": kept.sdpa_kernels if kept.phases else [], "phases": kept.phases}
    if kept.tiers is not None:
        measured["tiers"] = kept.tiers
    if kept.allocator is not None:
        measured["allocator"] = kept.allocator
    measured["watched"] = _watched(kept)
    if kept.request is not None:
        return make_record(*kept.request, measured)
    head = {"schema_version": SCHEMA_VERSION, "memplan_version": __version__, "kind": "training_step", "request": None}
    return {**head, **measured}


def _watched(kept: Kept) -> dict[str, Any]:
    reasons = kept.not_graded
    return {
        "loop": kept.loop,
        "finished": kept.ending.finished,
        "graded": not reasons,
        "not_graded_because": reasons,
        "steps": kept.steps,
        "recorded_step": kept.recorded_step,
        "plan": {"why_not": kept.why_no_plan} if kept.plan is None else kept.plan.to_record(),
        "residuals": {
            name: {"estimated": each.estimated, "measured": each.measured, "difference": each.difference}
            for name, each in kept.residuals.items()
        },
        "differences_at_peak": [each.to_record() for each in kept.differences],
        "carried_at_peak": kept.carried,
        "left_by_recorded_step": {"bytes": kept.left_bytes, "blocks": kept.left},
        "readings": kept.readings.to_record(),
        "readings_of_other_shapes": kept.other_shapes,
        "process": kept.process,
        "findings": [
            {
                "kind": each.kind,
                "step": each.step,
                "tier": each.tier,
                "message": each.message,
                "estimated_bytes": each.estimated_bytes,
                "measured_bytes": each.measured_bytes,
            }
            for each in kept.findings
        ],
    }


def write(kept: Kept, target: Path) -> Path:
    """Write the record to a file, or, where `target` is a folder, to where profiles/ would have it below that. Raises
    MeasurementError where it cannot."""
    record = to_record(kept)
    if target.is_dir():
        named = record_path(record) if kept.request is not None else "watched.json"
        target = target / named
    write_text(target, json.dumps(record, indent=1) + "\n", "the record")
    return target
