"""States of the random number generator, which activation checkpointing keeps: the dispatcher does not see them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from memplan.measure.tracing.tracker import Tracker


@contextmanager
def states_seen_by(tracker: Tracker) -> Iterator[None]:
    """Within, every state that is asked for is a birth."""
    ask = torch.get_rng_state

    def get_rng_state() -> torch.Tensor:
        state = ask()
        tracker.adopt([state], "torch.get_rng_state")
        return state

    torch.get_rng_state = torch.random.get_rng_state = get_rng_state
    try:
        yield
    finally:
        torch.get_rng_state = torch.random.get_rng_state = ask
