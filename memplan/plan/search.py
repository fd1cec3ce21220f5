"""The largest size that fits. Memory that does not grow with a size is looked for, not assumed away.

What the allocator reserves depends on the order of things and can fall where a size grows; what tensors take does not.
So the sizes whose tensors alone would fit are found first, by bisection, which costs little. Where those that may fit
are few, each is looked at, from the top. Where they are many, one that fits while the next does not is found by
bisection, and then sizes all over the rest are looked at, and round the largest of those that fits the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MOST_LOOKED_AT = 48
"""Sizes whose whole need is looked at one by one."""

SPREAD = 16
"""Sizes that are looked at where there are too many for that."""

Need = Callable[[int], int | None]
"""Bytes by size; None for a size that cannot be had, such as one beyond a model's positions: then no larger one can."""


@dataclass(frozen=True, slots=True)
class Found:
    """The largest size that fits (0: none), what it needs in bytes, and what is to be said of it."""

    size: int
    upper: int
    gaps: tuple[int, ...] = ()
    """Smaller sizes that do not fit although this one does: memory is not monotone there."""
    certain: bool = True
    """Whether every larger size was looked at, or has tensors that alone are too many."""


def largest(floor: Need, upper: Need, limit: int, most: int) -> Found:
    """The largest size from 1 to `most` whose `upper` is within `limit` bytes. `floor` is what tensors take: no more
    than `upper`, and never less for a larger size."""
    floors: dict[int, bool] = {}
    uppers: dict[int, int | None] = {}

    def may_fit(size: int) -> bool:
        if size not in floors:
            need = floor(size)
            floors[size] = need is not None and need <= limit
        return floors[size]

    def fits(size: int) -> bool:
        if size not in uppers:
            uppers[size] = upper(size)
        need = uppers[size]
        return need is not None and need <= limit

    top = _last(may_fit, 0, most)
    best = 0
    while top - best > MOST_LOOKED_AT:
        # `best` fits, or is 0; what lies beyond and up to `top` is not known.
        better = _last(fits, best, top)
        step = -(-(top - better) // SPREAD)
        beyond = next((size for size in range(top, better, -step) if fits(size)), 0) if step > 1 else 0
        if not beyond:
            if better > best:
                best = better
                continue
            return Found(best, uppers.get(best) or 0, _gaps(fits, best), certain=False)
        best = beyond
    best = next((size for size in range(top, best, -1) if fits(size)), best)
    return Found(best, uppers.get(best) or 0, _gaps(fits, best))


def _last(holds: Callable[[int], bool], first: int, most: int) -> int:
    """A size from `first` to `most` for which something holds while it does not for the next one, where it holds for
    `first` (which is not asked for); the last one, where it holds up to a size and never beyond."""
    low, stride = first, 1
    while low + stride <= most and holds(low + stride):
        low, stride = low + stride, stride * 2
    high = min(low + stride, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


NEXT = 3


def _gaps(fits: Callable[[int], bool], size: int) -> tuple[int, ...]:
    """Of the few sizes right below, those that do not fit."""
    return tuple(each for each in range(max(size - NEXT, 1), size) if not fits(each))
