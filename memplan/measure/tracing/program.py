"""`memplan trace` from a factory's name to an estimate, and to a real run beside it."""

from __future__ import annotations

from typing import Any

import torch

from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.ledger import Ledger
from memplan.measure.tracing.real import measure_step, time_step
from memplan.measure.tracing.subject import find_factory
from memplan.measure.tracing.trace import trace_step
from memplan.profiled import Side, course_of, times_of
from memplan.timeline import timeline_of
from memplan.traced import TracedModule, TraceEstimate, TraceVerification, compare, estimate_of


def trace_module(
    name: str, inputs: dict[str, Any], run: TrainingRun, device: Device, assume_outputs_only: bool, verify: bool
) -> tuple[TraceEstimate, Ledger, TraceVerification | None]:
    """Trace a step of what the factory `name` makes when it is given `inputs`; with `verify` run it for real as well,
    if it can be estimated. Raises MemplanError for whatever cannot be done."""
    factory = find_factory(name)
    step = trace_step(name, factory, inputs, run, device.threads)
    module = TracedModule(name, step.class_name, step.parameter_count, inputs)
    estimate = estimate_of(step.ledger, module, run, device, torch.__version__, step.unknown, assume_outputs_only)
    verification = None
    if verify:
        verification = compare(estimate, measure_step(name, factory, inputs, run, device))
    return estimate, step.ledger, verification


def profile_module(name: str, inputs: dict[str, Any], run: TrainingRun, device: Device, runs: int) -> Side:
    """A step traced, and run for real: over time, and where `runs` is not 0 by so many runs more on the clock. Raises
    MemplanError for whatever cannot be done."""
    factory = find_factory(name)
    step = trace_step(name, factory, inputs, run, device.threads)
    module = TracedModule(name, step.class_name, step.parameter_count, inputs)
    estimate = estimate_of(step.ledger, module, run, device, torch.__version__, step.unknown, False)
    measured = measure_step(name, factory, inputs, run, device, over_time=True)
    if runs:
        measured["times"] = time_step(name, factory, inputs, run, device, runs)
    return Side(
        name=step.class_name,
        estimate=estimate,
        timeline=timeline_of(step.ledger),
        verification=compare(estimate, measured),
        course=course_of(measured),
        times=times_of(measured),
    )
