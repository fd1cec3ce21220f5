"""Which recorded steps the known places are of: a chain that goes through the planned step again and again."""

from __future__ import annotations

from collections.abc import Sequence

from memplan.explain.alignment import Pair

LOOK_BACK = 64
"""Rows before a row that it may follow."""

SHARE = 3
"""A step of its own has at least one in so many of the places that a whole one would show."""

FEWEST = 2


class _Row:
    """Known places in a row: `count` of them from `at` and `place` on."""

    __slots__ = ("at", "before", "count", "fresh", "last", "place", "places", "score")

    def __init__(self, at: int, place: int) -> None:
        self.at = at
        self.place = self.last = place
        self.places: list[Pair] = [(at, place)]
        self.score = 0
        self.before: _Row | None = None
        self.fresh = False  # begins a step


def in_steps(found: Sequence[Pair], possible: int) -> list[tuple[int, int, int]]:
    """The places of the best chain as (recorded place, step, planned place). Within a step the planned places rise; to
    begin a new one costs what a share of a step's `possible` places is worth, so that a few that are found elsewhere
    by chance make none."""
    rows = _rows(found)
    price = max(possible // SHARE, FEWEST)
    for number, row in enumerate(rows):
        row.score = len(row.places) - price
        row.fresh = True
        for other in rows[max(number - LOOK_BACK, 0) : number]:
            fresh = other.last >= row.place
            score = other.score + len(row.places) - (price if fresh else 0)
            if score > row.score or (score == row.score and not fresh):
                row.score, row.before, row.fresh = score, other, fresh
    best = max(rows, key=lambda row: row.score, default=None)
    if best is None:
        return []
    chain = [best]
    while (before := chain[-1].before) is not None:
        chain.append(before)
    steps: list[tuple[int, int, int]] = []
    step = -1
    for row in reversed(chain):
        step += row.fresh
        steps += [(at, step, place) for at, place in row.places]
    return steps


def _rows(found: Sequence[Pair]) -> list[_Row]:
    """Places that lie behind each other equally far apart on both sides, together."""
    rows: list[_Row] = []
    for at, place in found:
        if rows and place > rows[-1].last and place - rows[-1].place == at - rows[-1].at:
            rows[-1].places.append((at, place))
            rows[-1].last = place
        else:
            rows.append(_Row(at, place))
    return rows
