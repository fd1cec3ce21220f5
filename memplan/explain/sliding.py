"""Which of several equal allocations in a row is the one too many: that which lifetimes and frames speak against."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.explain.evidence import Evidence
from memplan.explain.layout import Life
from memplan.explain.matches import Match


def slide(order: Sequence[int], lives: Sequence[Life], matches: dict[int, Match], evidence: Evidence) -> None:
    """Move every row of unmatched allocations along equal ones to where the evidence puts it. `order` are the numbers
    of the allocations as they were made."""
    at = 0
    while at < len(order):
        if order[at] in matches:
            at += 1
            continue
        stop = at
        while stop < len(order) and order[stop] not in matches:
            stop += 1
        shift = _best(order, at, stop - at, lives, matches, evidence)
        for number in range(shift):
            matches[order[at + number]] = matches.pop(order[stop + number])
        for number in range(-shift):
            matches[order[stop - 1 - number]] = matches.pop(order[at - 1 - number])
        at = max(stop, stop + shift)


def _best(
    order: Sequence[int],
    at: int,
    width: int,
    lives: Sequence[Life],
    matches: dict[int, Match],
    evidence: Evidence,
) -> int:
    """By how many places a row of `width` from `at` on is to be moved; negative towards the beginning."""
    best, best_gain = 0, 0
    for step in (1, -1):
        gain, place = 0, at
        while True:
            # Towards the end the row's first takes the match behind it, else its last the one in front of it.
            mover, holder = (place, place + width) if step > 0 else (place + width - 1, place - 1)
            if not 0 <= holder < len(order) or order[holder] not in matches:
                break
            one, other = order[mover], order[holder]
            if lives[one].requested != lives[other].requested:
                break
            tensor = matches[other].tensor
            gain += evidence.score(one, tensor) - evidence.score(other, tensor)
            place += step
            if gain > best_gain:
                best, best_gain = place - at, gain
    return best
