"""A training step on fake tensors, written down as a ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils._python_dispatch import _disable_current_modes

from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, MemplanError
from memplan.ledger import INITIAL, Allocation, Ledger
from memplan.measure.tracing.fakes import FakeMode, convertible, quiet, unnoticed
from memplan.measure.tracing.generator import states_seen_by
from memplan.measure.tracing.owners import Claim, owned
from memplan.measure.tracing.places import Places
from memplan.measure.tracing.sharing import Sharing
from memplan.measure.tracing.step import STEPS, training_step, without_onednn
from memplan.measure.tracing.subject import make_subject, told
from memplan.measure.tracing.tracker import Tracker
from memplan.reference.optimizers import build


class TracedStep(NamedTuple):
    """The ledger of one steady step, the module's name and parameters, and the operations that have no rule."""

    ledger: Ledger
    class_name: str
    parameter_count: int
    unknown: dict[str, str]  # operation -> the module that called it first


def trace_step(
    name: str, factory: Callable[..., Any], keywords: dict[str, Any], run: TrainingRun, threads: int
) -> TracedStep:
    """Run two steps on fake tensors of the CPU; the second one is the ledger. Nothing is computed or allocated."""
    places, sharing = Places(), Sharing()
    tracker = Tracker(threads, places, sharing)
    marks: list[tuple[int, str]] = []

    def mark(phase: str) -> None:
        tracker.settle_number()
        tracker.phase = phase
        marks.append((len(tracker.events), phase))

    with without_onednn(), quiet(), FakeMode(), convertible(), sharing, tracker:
        sharing.calibrate()
        subject = make_subject(name, factory, keywords, run.precision)
        optimizer = build(run.optimizer, subject.module.parameters(), run)
        tracker.adopt([claim.tensor for claim in owned(subject, optimizer)], "copy.deepcopy")
        with places.of(subject.module), unnoticed(), states_seen_by(tracker):
            for _ in range(STEPS):
                try:
                    training_step(subject, optimizer, run, mark)
                except MemplanError:
                    raise
                except Exception as error:
                    raise ConfigurationError(f"a step of {name} failed: {told(error)}") from error
        with _disable_current_modes():
            claims = [(tracker.allocation_of(claim.tensor), claim) for claim in owned(subject, optimizer)]
    ledger = _ledger(tracker.events, marks, claims)
    return TracedStep(ledger, type(subject.module).__name__, subject.parameter_count, tracker.unknown)


def _ledger(
    events: list[tuple[Allocation, bool]], marks: list[tuple[int, str]], claims: list[tuple[Allocation | None, Claim]]
) -> Ledger:
    """The last step's events, after the births of all that it began with."""
    start, stop = [at for at, phase in marks if phase == "zero_grad"][-1], marks[-1][0]
    alive: dict[Allocation, None] = {}
    for allocation, birth in events[:start]:
        if birth:
            alive[allocation] = None
        else:
            del alive[allocation]
    ended = {allocation for allocation, birth in events[start:stop] if not birth}
    ledger = Ledger()
    for allocation in alive:
        allocation.component = "temporaries" if allocation in ended else "inputs"
        allocation.phase = INITIAL
    for claimed, claim in claims:
        if claimed is not None:
            claimed.component = claim.component
            claimed.frozen = claim.frozen
            if claim.component != "gradients":  # those are born in the step: the operation says more
                claimed.module, claimed.operation = claim.place, claim.kind
    ledger.events = [(allocation, True) for allocation in alive]
    steps = [(at, phase) for at, phase in marks if at >= start and phase != "end"]
    # A mark at the same event as the last step's beginning may be the end of the step before.
    steps = steps[[phase for _, phase in steps].index("zero_grad") :]
    for (at, phase), (following, _) in zip(steps, [*steps[1:], (stop, "end")], strict=True):
        ledger.enter(phase, 1)
        ledger.events += events[at:following]
    ledger.close()
    _by_lifetime(ledger)
    return ledger


def _by_lifetime(ledger: Ledger) -> None:
    """Born in the forward pass or with the loss and alive when the backward pass begins: activations; else
    temporaries (as memplan/measure/attribution.py has it)."""
    for allocation, birth in ledger.events:
        if birth and not allocation.component:
            forward = allocation.phase in ("forward", "loss")
            kept = forward and allocation.died not in ("forward", "loss")
            allocation.component = "activations" if kept else "temporaries"
