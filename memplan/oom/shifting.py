"""A run that holds more than its configuration needs, or less: a second model, an average of the weights, buckets.

Such a run fails elsewhere than the configuration alone would. Each candidate says how much is held besides, if it is
the one: with so much less memory, does the replay fail at it, with what was asked for and what was reserved and
unallocated as the message says?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from memplan.allocator import Settings
from memplan.oom.asking import Asking
from memplan.oom.candidates import Candidate, place_of
from memplan.oom.failing import SEGMENTS, Failure, run
from memplan.oom.message import Message
from memplan.oom.printed import Printed
from memplan.oom.steps import Steps

MOST_TRIED = 12
"""Candidates that are tried, those nearest to the message."""

NEAR = 10
"""No more than one part in so many of what is allocated is held besides."""

ROUND = (0, 1, -1, 2, -2, 3, -3)
"""Segments by which the printed figures, and the slack of blocks, leave it open."""


def shifted(
    message: Message, steps: Steps, settings: Settings, found: Sequence[Candidate], rooms: Sequence[int]
) -> list[Candidate]:
    """The candidates, those first that a replay fails at if so much is held besides (`Candidate.besides`)."""
    said = message.allocated
    if said is None or message.asked is None or message.loose is None or message.free is None or not rooms:
        return list(found)
    asking = Asking(message, settings)
    least, most = message.loose
    loose = Printed("", least, most)
    kept, moved = [], []
    # What is held besides is likelier than what is held less.
    near = sorted(found, key=lambda each: each.apart * (3 if each.allocated > said.high else 1))[:MOST_TRIED]
    chosen = {id(each) for each in near if each.apart * NEAR <= said.high}
    for each in found:
        failure = _failure(message, steps, settings, each, rooms[0], asking, loose) if id(each) in chosen else None
        if failure is None:
            kept.append(each)
        else:
            besides = said.middle - failure.allocated
            moved.append(replace(each, besides=besides, failure=failure, allocated=failure.allocated))
    moved.sort(key=lambda each: (-each.traceback, abs(each.besides or 0)))
    return [*moved, *kept]


def _failure(
    message: Message,
    steps: Steps,
    settings: Settings,
    each: Candidate,
    room: int,
    asking: Asking,
    loose: Printed,
) -> Failure | None:
    """The replay that fails at a candidate with so much less memory; None where none does."""
    said = message.allocated
    assert said is not None
    besides = said.middle - each.allocated
    for step in ROUND:
        left = room - besides + step * SEGMENTS
        if left <= 0:
            continue
        failure = run(steps.expansion, settings, left).failure
        if failure is None or place_of(failure, steps) != (each.step, each.number):
            continue
        if asking.matches(failure.size) and failure.reserved - failure.allocated in loose:
            return failure
    return None
