"""Allocations alive at one moment, put together: by the line of code that made them, and by size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from memplan.explain.frames import Origin, Stacks
from memplan.explain.layout import Life


@dataclass(frozen=True, slots=True)
class Group:
    """`count` allocations that take `size` bytes of blocks together; `requested` is what each asked for, 0 where they
    differ. `origin` is where they come from, None where no frame tells."""

    size: int
    count: int
    requested: int
    origin: Origin | None


def by_origin(lives: Iterable[Life], stacks: Stacks) -> tuple[Group, ...]:
    """By line of code, the largest first."""
    return _grouped(lives, stacks, sizes=False)


def by_size(lives: Iterable[Life], stacks: Stacks) -> tuple[Group, ...]:
    """By size and line of code, the largest together first."""
    return _grouped(lives, stacks, sizes=True)


def _grouped(lives: Iterable[Life], stacks: Stacks, sizes: bool) -> tuple[Group, ...]:
    found: dict[tuple[Origin | None, int], list[Life]] = {}
    for life in lives:
        found.setdefault((stacks.origin(life.frames), life.requested if sizes else 0), []).append(life)
    groups = []
    for (origin, _), members in found.items():
        asked = {life.requested for life in members}
        size = sum(life.size for life in members)
        groups.append(Group(size, len(members), asked.pop() if len(asked) == 1 else 0, origin))
    return tuple(sorted(groups, key=_order))


def _order(group: Group) -> tuple[int, int, str]:
    return (-group.size, -group.requested, group.origin.frame.short if group.origin else "")
