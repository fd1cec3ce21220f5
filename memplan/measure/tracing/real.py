"""The same step run for real on the CPU and recorded by PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError, MemplanError
from memplan.measure.attribution import attribute
from memplan.measure.course import course
from memplan.measure.probes import MemoryEvent, mark, record_memory
from memplan.measure.run import MARK, PHASES, environment
from memplan.measure.timing import Timed, times
from memplan.measure.tracing.owners import owned
from memplan.measure.tracing.step import STEPS, training_step, without_onednn
from memplan.measure.tracing.subject import make_subject, told
from memplan.reference.optimizers import build


def measure_step(
    name: str,
    factory: Callable[..., Any],
    keywords: dict[str, Any],
    run: TrainingRun,
    device: Device,
    over_time: bool = False,
) -> dict[str, Any]:
    """Two real steps, of which the second is told by phase and component, with the environment that ran them; with
    `over_time` every event of it as well (memplan/measure/course.py)."""
    events, marks, owners = record_step(name, factory, keywords, run, device.threads)
    start = [index for index, (_, phase) in enumerate(marks) if phase == "zero_grad"][-1]
    phases = attribute(events, marks[start:], owners)
    return {
        "environment": environment(device),
        "phases": [phases[phase].to_record() for phase in PHASES],
        **({"memory_over_time": course(events, marks[start:])} if over_time else {}),
    }


def time_step(
    name: str, factory: Callable[..., Any], keywords: dict[str, Any], run: TrainingRun, device: Device, runs: int
) -> dict[str, Any]:
    """So many steps at least on the clock (memplan/measure/timing.py). What a module's tokens are its factory alone
    knows: none are counted."""
    before = torch.get_num_threads()
    torch.set_num_threads(device.threads)
    try:
        subject = make_subject(name, factory, keywords, run.precision)
        optimizer = build(run.optimizer, subject.module.parameters(), run)
        return times(Timed(lambda mark: training_step(subject, optimizer, run, mark), 0), device, run.precision, runs)
    except MemplanError:
        raise
    except Exception as error:
        raise MeasurementError(f"the real run of {name} failed: {told(error)}") from error
    finally:
        torch.set_num_threads(before)


def record_step(
    name: str, factory: Callable[..., Any], keywords: dict[str, Any], run: TrainingRun, threads: int
) -> tuple[list[MemoryEvent], list[tuple[int, str]], dict[int, str]]:
    """Every memory event, the times at which phases begin, and address -> component of what is alive at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    alive: list[Any] = []

    def train() -> None:
        subject = make_subject(name, factory, keywords, run.precision)
        optimizer = build(run.optimizer, subject.module.parameters(), run)
        alive.extend((subject, optimizer))
        for _ in range(STEPS):
            training_step(subject, optimizer, run, lambda phase: mark(MARK + phase))

    try:
        with without_onednn():
            events, regions = record_memory(train)
    except MemplanError:
        raise
    except Exception as error:
        raise MeasurementError(f"the real run of {name} failed: {told(error)}") from error
    finally:
        torch.set_num_threads(before)
    marks = [(each.start, each.name.removeprefix(MARK)) for each in regions if each.name.startswith(MARK)]
    start = [time for time, phase in marks if phase == "zero_grad"][-1]
    owners = dict.fromkeys(_outliving(events, start), "inputs")
    for claim in owned(*alive):
        owners[claim.tensor.untyped_storage().data_ptr()] = claim.component
    return events, marks, owners


def _outliving(events: list[MemoryEvent], start: int) -> set[int]:
    """Addresses of what exists when the step begins and still does when it ends."""
    addresses: set[int] = set()
    for event in events:
        if event.size < 0:
            addresses.discard(event.address)
        elif event.time < start:
            addresses.add(event.address)
    return addresses
