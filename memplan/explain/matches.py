"""What a recorded allocation is taken for."""

from __future__ import annotations

from typing import NamedTuple

BEFORE = -1
"""The number of the step that is none: what the run makes before the first one."""


class Match(NamedTuple):
    """A recorded allocation is this tensor of the plan, in this step (0 is the first that was recognised)."""

    tensor: int
    step: int
