"""A caching allocator's counters, read at the boundaries of a step's phases.

The counters live on the host and change with each call of the allocator, so reading them waits for no kernel. Peaks
are reset at each boundary, which makes them peaks of the phase; what that would lose of the whole run is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memplan.measure.run import PHASES

Counters = Mapping[str, int]
"""Names as torch.cuda.memory_stats() has them."""

Phase = dict[str, int]


class Meter:
    """Bytes by phase of each step. `mark` is what training_step (memplan/reference/training.py) is given."""

    def __init__(self, read: Callable[[], Counters], reset: Callable[[], None]) -> None:
        self.read = read
        self.reset = reset
        self.steps: list[dict[str, Phase]] = []
        self.marks: list[tuple[int, str, int]] = []  # step, phase, allocations made before it
        self.phase = "build"
        self.first = dict(read())
        self.peak_allocated = 0
        self.peak_reserved = 0
        reset()

    def mark(self, name: str) -> None:
        """The phase `name` begins; a step begins with zero_grad."""
        counters = self._close()
        if name == "zero_grad":
            self.steps.append({})
        self.phase = name
        made = counters["allocation.all.allocated"] - self.first["allocation.all.allocated"]
        self.marks.append((len(self.steps), name, made))

    def stop(self) -> Counters:
        """The last phase ends. Returns the counters as they are."""
        counters = self._close()
        self.phase = "stopped"
        return counters

    def since_start(self, counter: str) -> int:
        """How often something has happened since this meter was made."""
        return self.read().get(counter, 0) - self.first.get(counter, 0)

    def phases(self) -> list[dict[str, int | str]]:
        """The phases of the last step, ready for a record. One that comes again (gradient accumulation) has the
        highest of its peaks and its last end."""
        return [{"name": name, **self.steps[-1][name]} for name in PHASES]

    def peaks(self) -> list[dict[str, int]]:
        """The peaks of every step: from the second one on they should be alike."""
        names = ("peak_allocated_bytes", "peak_reserved_bytes")
        return [{name: max(phase[name] for phase in step.values()) for name in names} for step in self.steps if step]

    def _close(self) -> Counters:
        counters = self.read()
        self.peak_allocated = max(self.peak_allocated, counters["allocated_bytes.all.peak"])
        self.peak_reserved = max(self.peak_reserved, counters["reserved_bytes.all.peak"])
        if self.steps and self.phase != "end":
            _merge(self.steps[-1].setdefault(self.phase, {}), counters)
        self.reset()
        return counters


_PEAKS = {
    "peak_allocated_bytes": "allocated_bytes.all.peak",
    "peak_requested_bytes": "requested_bytes.all.peak",
    "peak_active_bytes": "active_bytes.all.peak",
    "peak_reserved_bytes": "reserved_bytes.all.peak",
    "peak_inactive_split_bytes": "inactive_split_bytes.all.peak",
}
_ENDS = {"end_allocated_bytes": "allocated_bytes.all.current", "end_reserved_bytes": "reserved_bytes.all.current"}


def _merge(phase: Phase, counters: Counters) -> None:
    for name, counter in _PEAKS.items():
        phase[name] = max(phase.get(name, 0), counters[counter])
    for name, counter in _ENDS.items():
        phase[name] = counters[counter]
