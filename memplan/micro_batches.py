"""Gradient accumulation over more than two micro-batches: from the second one on they are all alike."""

from __future__ import annotations

from memplan.errors import NotModelledError
from memplan.expansion import Expansion, uncertain

PHASES = ("forward", "loss", "backward")


def repeat_micro_batch(step: Expansion, times: int) -> None:
    """Run the second micro-batch of a step `times` more. What it frees of the one before (the loss) was born there at
    the same place. Raises NotModelledError where that does not fit."""
    begins = [place for place, (name, _) in enumerate(step.phases) if name == PHASES[0]]
    if len(begins) != 2:
        raise NotModelledError("more than two micro-batches are spelled out from a ledger that holds two")
    place = begins[1]
    after = place
    while after < len(step.phases) and step.phases[after][0] in PHASES:
        after += 1
    begin = step.phases[place][1]
    end = step.phases[after][1] if after < len(step.phases) else len(step.events)
    before = _births(step, 0, step.phases[begins[0]][1])
    base = _births(step, 0, begin)
    count = _births(step, begin, end)
    until_backward = base + _births(step, begin, step.phases[after - 1][1])

    body, births = step.events[begin:end], step.births
    again: list[int] = []
    for turn in range(times):
        for event in body:
            if event < 0:
                again.append(event)
            elif event >= base:
                again.append(event + (turn + 1) * count)
            else:
                twin = event - before + base
                if twin >= until_backward or births[twin].operation != births[event].operation:
                    raise uncertain(births[event])
                again.append(twin + turn * count)

    added, later = len(again), times * count
    step.events[end:] = again + [event + later if event >= base else event for event in step.events[end:]]
    births[base + count : base + count] = births[base : base + count] * times
    repeated = range(1, times + 1)
    phases = step.phases[place:after]
    step.phases[after:] = [(name, start + turn * len(body)) for turn in repeated for name, start in phases] + [
        (name, start + added) for name, start in step.phases[after:]
    ]
    step.created = [
        (phase + times * len(phases), event + added, index) if phase >= after else (phase, event, index)
        for phase, event, index in step.created
    ]
    low = next(at for at, visit in enumerate(step.visits) if visit.phase - 1 == place)
    high = next((at for at, visit in enumerate(step.visits) if visit.phase - 1 == after), len(step.visits))
    starts = step.starts
    starts[high:] = [start + turn * count for turn in repeated for start in starts[low:high]] + [
        start + later for start in starts[high:]
    ]
    step.visits[high:high] = step.visits[low:high] * times


def _births(step: Expansion, start: int, stop: int) -> int:
    return sum(event < 0 for event in step.events[start:stop])
