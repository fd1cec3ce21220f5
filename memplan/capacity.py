"""How many sequences of a length a card can write at once. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from memplan.estimate import estimate
from memplan.ops.backend import CURRENT

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run

MOST = 1 << 20
"""Nobody writes more sequences at once."""


def largest_batch(
    model: Model, run: Run, device: Device, torch: tuple[int, int] = CURRENT, allocator_settings: str = ""
) -> int:
    """The largest micro_batch_size with which the upper end of the estimate's interval is within what the card has to
    give; 0 where there is none. MOST at most, which a device without a fixed capacity holds too. Raises what `estimate`
    raises."""
    if not device.capacity_bytes:
        return MOST

    def needed(batch: int) -> int:
        found = estimate(model, replace(run, micro_batch_size=batch), device, torch, allocator_settings)
        bounds = found.interval.device_bytes or found.interval.allocated_bytes
        assert bounds is not None
        return bounds[1]

    return most_within(needed, device.available_bytes, MOST)


def most_within(needed: Callable[[int], int], room: int, most: int) -> int:
    """The largest count from 0 to `most` whose need is within `room`, for a need that grows with the count: nearly in a
    line, so that few counts are asked for."""
    fits, below = 1, needed(1)
    if below > room:
        return 0
    beyond = most + 1
    guess = 2
    while beyond - fits > 1:
        guess = min(max(guess, fits + 1), beyond - 1)
        need = needed(guess)
        slope = (need - below) / (guess - fits)
        if need <= room:
            fits, below = guess, need
        else:
            beyond = guess
        guess = fits + int((room - below) / slope) if slope > 0 else 2 * fits
    return fits
