"""Steps on a card, told by the caching allocator's counters: they are always there, and reading them waits for nothing.

A counter of a peak holds the most since the process began, or since anybody reset it. What a step needed shows in it
only where that was more than ever before; to see every step and its phases, the peaks have to be reset at each of
their boundaries, which whoever else reads them has to allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memplan.config.run import TrainingRun
from memplan.measure.watching.marks import Mark, folded
from memplan.measure.watching.readings import Reading

Counters = Mapping[str, int]
"""Names as torch.cuda.memory_stats() has them."""

PHASES = TrainingRun.phases

ALLOCATED, RESERVED = "allocated_bytes.all", "reserved_bytes.all"


class CountedSteps:
    """`read` returns the counters. `reset` makes every peak what is allocated now; it is None where that is not
    allowed."""

    def __init__(self, read: Callable[[], Counters], reset: Callable[[], None] | None) -> None:
        self.read = read
        self.reset = reset
        self.first = dict(read())
        self.peak_allocated = self.peak_reserved = 0
        self._since = [0, 0]  # the peaks since the last reading, allocated and reserved
        self._closed: list[tuple[Mark, Counters]] = []  # each with the counters at its end
        self._open: Mark | None = None
        if reset is not None:
            reset()

    def reading(self, step: int, device: int | None = None) -> Reading:
        """What the counters say behind a step. Without resetting, the peaks are left out where earlier ones hide
        them."""
        counters = self._look()
        allocated, reserved = self._since
        self._since = [0, 0]
        return Reading(
            step=step,
            allocated_peak=self._shown(allocated, ALLOCATED),
            reserved_peak=self._shown(reserved, RESERVED),
            allocated_end=counters[f"{ALLOCATED}.current"],
            device=device,
        )

    def mark(self, name: str, explicit: bool = False) -> None:
        """A phase begins here. Only with resetting can anything be said of it."""
        if self.reset is None:
            return
        self._close()
        self._open = Mark(name, explicit)

    def phases(self, last: str) -> list[dict[str, int | str]]:
        """The phases of the last step that was marked, ready for a record; none without resetting. It goes from the
        last mark `begin` to the last one called `last` behind it. A phase that comes again has the highest of its peaks
        and its last end."""
        names = [mark.name for mark, _ in self._closed]
        if "begin" not in names:
            return []
        start = _last(names, "begin")
        stop = _last(names, last) if last in names[start:] else len(names)
        step = self._closed[start:stop]
        begun = dict(folded([(place, mark) for place, (mark, _) in enumerate(step)]))
        found: dict[str, dict[str, int | str]] = {}
        current = ""
        for place, (_, counters) in enumerate(step):
            current = begun.get(place, current)
            phase = found.setdefault(current, {"name": current})
            for name, counter in (("peak_allocated_bytes", ALLOCATED), ("peak_reserved_bytes", RESERVED)):
                phase[name] = max(int(phase.get(name, 0)), counters[f"{counter}.peak"])
            phase["end_allocated_bytes"] = counters[f"{ALLOCATED}.current"]
            phase["end_reserved_bytes"] = counters[f"{RESERVED}.current"]
        return [found[name] for name in PHASES if name in found]

    def most(self) -> tuple[int | None, int | None]:
        """The most that was allocated and reserved since this began; None where an earlier peak hides it."""
        return self._shown(self.peak_allocated, ALLOCATED), self._shown(self.peak_reserved, RESERVED)

    def _shown(self, peak: int, counter: str) -> int | None:
        return peak if self.reset is not None or peak > self.first[f"{counter}.peak"] else None

    def forget(self) -> None:
        """Keep nothing of the marks so far."""
        self._closed.clear()
        self._open = None

    def counted(self) -> dict[str, int]:
        """What the allocator did since this began, as a record's `allocator` holds it."""
        counters = self._look()
        names = ("num_alloc_retries", "num_ooms", "num_device_alloc", "num_device_free")
        since = {name: counters.get(name, 0) - self.first.get(name, 0) for name in names}
        return {"peak_allocated_bytes": self.peak_allocated, "peak_reserved_bytes": self.peak_reserved, **since}

    def _close(self) -> None:
        counters = self._look()
        if self._open is not None:
            self._closed.append((self._open, counters))

    def _look(self) -> Counters:
        counters = dict(self.read())
        self.peak_allocated = max(self.peak_allocated, counters[f"{ALLOCATED}.peak"])
        self.peak_reserved = max(self.peak_reserved, counters[f"{RESERVED}.peak"])
        self._since = [
            max(self._since[0], counters[f"{ALLOCATED}.peak"]),
            max(self._since[1], counters[f"{RESERVED}.peak"]),
        ]
        if self.reset is not None:
            self.reset()
        return counters


def _last(names: list[str], name: str) -> int:
    return len(names) - 1 - names[::-1].index(name)
