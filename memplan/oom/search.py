"""The search for the tensor that a message is about, in a run as it is configured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from memplan.allocator import Settings, parse_settings
from memplan.config.context import context_of
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import backend_of, trace
from memplan.expansion import expand
from memplan.oom.alive import Alive, alive_at
from memplan.oom.asking import Asking
from memplan.oom.candidates import Candidate, candidates
from memplan.oom.failing import Failure, failures, rooms, run
from memplan.oom.hints import Hints
from memplan.oom.message import Message
from memplan.oom.shares import held_by_others, own_context
from memplan.oom.shifting import shifted
from memplan.oom.steps import Steps
from memplan.sharing import Shared

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run

Verdict = Literal["one", "several", "other_moment", "no_such_size", "predicted", "none"]
"""Exactly one tensor is consistent with the message; several are; some have the size, but not at such a moment; none
has the size. Of a message without a size: where it is predicted to run out, or that it is not."""

SHOWN = 8
"""Candidates that are kept."""


@dataclass(frozen=True, slots=True)
class Search:
    """What was found. `candidates` are the likeliest ones of the `sized` whose size fits, of which `consistent` are at
    a moment like the message's. `room` is what the driver most likely had for segments, in bytes, None off a card;
    `expected` where the run fails with that, and `peak` what it reserves where it does not."""

    model: Model
    run: Run
    device: Device  # with the capacity that was had, and what others held of it
    allocator_settings: str
    torch: tuple[int, int]
    verdict: Verdict
    candidates: tuple[Candidate, ...]
    sized: int
    consistent: int
    alive: Alive | None  # before the first candidate
    room: int | None
    expected: Failure | None
    peak: int

    @property
    def best(self) -> Candidate | None:
        """The likeliest one."""
        return self.candidates[0] if self.candidates else None

    @property
    def exact(self) -> bool:
        """Whether a replay of the run fails at the first candidate with every figure of the message."""
        return self.best is not None and self.best.replayed > 0


def search(
    message: Message,
    hints: Hints,
    model: Model,
    run_: Run,
    device: Device,
    torch: tuple[int, int],
    allocator_settings: str = "",
    shared: Shared | None = None,
    besides: bool = False,
) -> Search:
    """Look for the tensor in one run on one device. With `besides`, the process may hold more than the run needs
    (shifting.py), which takes many more replays.

    Raises ConfigurationError for a contradictory request, and NotModelledError for what has no rule or cannot be
    spelled out.
    """
    shared = Shared() if shared is None else shared
    model, checked = validate_model(model), validate_run(model, run_, device)
    steps = Steps(expand(shared.ledger(model, checked, backend_of(device, torch), trace)))
    settings = parse_settings(allocator_settings, torch)
    if device.backend == "cpu":
        found = candidates(message, steps, settings, (), hints, ())
        return _result(message, model, checked, device, allocator_settings, torch, steps, found, (), None, None, 0)
    measured = own_context(message)
    if measured:
        device = replace(device, context_bytes=measured)  # type: ignore[call-arg]
    context = context_of(device)
    if message.capacity is not None or message.others or message.free is not None:
        held = min(held_by_others(message, context.bytes), device.capacity_bytes)
        device = replace(device, used_by_others_bytes=held)  # type: ignore[call-arg]
    sizes = rooms(message, device.capacity_bytes, context)
    failed = failures(steps, settings, sizes)
    unbounded = run(steps.expansion, settings, None, 3)
    found = candidates(message, steps, settings, failed, hints, unbounded.blocks)
    if besides and not any(candidate.replayed for candidate in found):
        found = shifted(message, steps, settings, found, sizes)
    room = sizes[0] if sizes else None
    expected = next((failure for failure in failed if failure.room == room), None)
    peak = unbounded.peak
    if expected is None and room is not None:
        peak = run(steps.expansion, settings, room).peak
    return _result(
        message, model, checked, device, allocator_settings, torch, steps, found, unbounded.blocks, room, expected, peak
    )


def _result(
    message: Message,
    model: Model,
    checked: Run,
    device: Device,
    allocator_settings: str,
    torch: tuple[int, int],
    steps: Steps,
    found: list[Candidate],
    unbounded: tuple[int, ...],
    room: int | None,
    expected: Failure | None,
    peak: int,
) -> Search:
    consistent = sum(candidate.consistent for candidate in found)
    return Search(
        model=model,
        run=checked,
        device=device,
        allocator_settings=allocator_settings,
        torch=torch,
        verdict=_verdict(message, found, consistent),
        candidates=tuple(found[:SHOWN]),
        sized=len(found),
        consistent=consistent,
        alive=alive_at(found[0], steps, unbounded) if found else None,
        room=room,
        expected=expected,
        peak=peak,
    )


def _verdict(message: Message, found: list[Candidate], consistent: int) -> Verdict:
    if message.asked is None:
        return "predicted" if found else "none"
    if not found:
        return "no_such_size"
    exact = sum(candidate.replayed > 0 for candidate in found)
    if exact == 1 or (not exact and consistent == 1):
        return "one"
    return "several" if consistent else "other_moment"


def asks_for_such_a_size(
    message: Message, model: Model, run_: Run, device: Device, torch: tuple[int, int], settings: Settings
) -> bool:
    """Whether a run asks for a tensor of the message's size anywhere. `run_` has been validated."""
    if message.asked is None:
        return False
    asking = Asking(message, settings)
    ledger = trace(model, run_, backend_of(device, torch))
    return any(asking.matches(size) for size in {allocation.size for allocation in ledger.births()})
