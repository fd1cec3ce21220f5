"""How often to look, so that looking costs next to nothing. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.004
"""Of the time of a run: what looking may take. Under 1 %, with room for what a look costs beside itself."""


class Pace:
    """Says whether it is time for another look: when the last one has cost no more than SHARE of the time since."""

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share = share
        self.clock = clock
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether a look can be afforded now."""
        return self.clock() >= self._next

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Round a look: how long it takes says when the next one is due."""
        start = self.clock()
        try:
            yield
        finally:
            stop = self.clock()
            self._next = stop + (stop - start) / self.share
