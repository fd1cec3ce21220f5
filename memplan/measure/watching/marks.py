"""Where the phases of a step begin: what has been marked, and what is made of it. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NAMES = ("zero_grad", "forward", "loss", "backward", "optimizer_step", "end")
"""What can be marked by whoever writes the loop. `end` is where the step is over."""


class Mark(NamedTuple):
    """One mark: `explicit` where the loop has set it itself, else it was seen from outside. Beside NAMES there are
    `begin`, where a step begins; `backward_end`, where a backward pass returns; and `stepped`, where an optimizer has
    taken its step."""

    name: str
    explicit: bool = False


def folded(marks: Sequence[tuple[int, Mark]]) -> list[tuple[int, str]]:
    """The phases of one step, which is all between its `begin` and its `end`, as (where it begins, its name).

    What the loop marks itself counts, and what was seen of the same phase does not. An optimizer step begins where the
    last backward pass returns.
    """
    own = {mark.name for _, mark in marks if mark.explicit}
    last = max((index for index, (_, mark) in enumerate(marks) if mark.name in ("forward", "backward")), default=-1)
    phases: list[tuple[int, str]] = []
    for index, (place, mark) in enumerate(marks):
        name = mark.name
        if name == "begin":
            name = "zero_grad"
        elif name == "backward_end":
            if index < last:
                continue
            name = "optimizer_step"
        elif name == "stepped":
            continue
        if not mark.explicit and name in own and mark.name != "begin" and name != "end":
            continue
        phases.append((place, name))
    return phases
