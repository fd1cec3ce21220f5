"""What was read behind the steps, of which a record keeps some, and whether it grows. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FIRST, LAST, BETWEEN = 8, 16, 64
"""How many readings are kept: the first ones, the last ones, and every n-th of those between."""

WINDOW = 10
"""So many readings in a row have to grow before anything is said of it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read behind a step, in bytes; None where there is none of the kind. On a card peaks are those since the
    reading before; on the CPU there is the process alone."""

    step: int
    allocated_peak: int | None = None
    reserved_peak: int | None = None
    allocated_end: int | None = None
    device: int | None = None
    process: int | None = None

    def to_record(self) -> dict[str, int]:
        """What there is of it, by the names a record has for it."""
        named = {
            "step": self.step,
            "peak_allocated_bytes": self.allocated_peak,
            "peak_reserved_bytes": self.reserved_peak,
            "end_allocated_bytes": self.allocated_end,
            "device_bytes": self.device,
            "process_bytes": self.process,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def size(self) -> int:
        """What readings are compared by."""
        return next((size for size in (self.allocated_peak, self.process) if size is not None), 0)


class Readings:
    """The readings of a run of any length, in a place that does not grow."""

    def __init__(self) -> None:
        self.worst: Reading | None = None
        self.latest: Reading | None = None
        self.count = 0
        self._first: list[Reading] = []
        self._between: list[Reading] = []
        self._last: list[Reading] = []
        self._stride = 1
        self._passed = 0  # readings that have gone through _last

    def add(self, reading: Reading) -> None:
        """One more."""
        self.count += 1
        self.latest = reading
        if self.worst is None or reading.size > self.worst.size:
            self.worst = reading
        if len(self._first) < FIRST:
            self._first.append(reading)
            return
        self._last.append(reading)
        if len(self._last) > LAST:
            passing = self._last.pop(0)
            if self._passed % self._stride == 0:
                self._between.append(passing)
            self._passed += 1
            if len(self._between) > BETWEEN:
                self._stride *= 2
                self._between = self._between[::2]

    def kept(self) -> list[Reading]:
        """What is kept, in order, the one with the most among it."""
        kept = [*self._first, *self._between, *self._last]
        if self.worst is not None and self.worst not in kept:
            kept.append(self.worst)
            kept.sort(key=lambda reading: reading.step)
        return kept

    def to_record(self) -> dict[str, Any]:
        """As a record holds it."""
        return {
            "read": self.count,
            "worst": None if self.worst is None else self.worst.to_record(),
            "kept": [reading.to_record() for reading in self.kept()],
        }


class Growth:
    """Whether what is alive behind each step grows from one reading to the next, for WINDOW readings in a row."""

    def __init__(self) -> None:
        self._run: list[tuple[int, int]] = []  # (step, bytes), each larger than the one before

    def add(self, step: int, size: int) -> float | None:
        """Bytes a step, where the last readings have all grown; else None."""
        if self._run and size <= self._run[-1][1]:
            self._run.clear()
        self._run.append((step, size))
        if len(self._run) <= WINDOW:
            return None
        self._run.pop(0)
        (first, low), (last, high) = self._run[0], self._run[-1]
        return (high - low) / (last - first)
