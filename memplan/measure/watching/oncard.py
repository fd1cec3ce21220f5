"""A card that a run is watched on: its allocator's counters, and now and then what its driver counts."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import Any

import torch

from memplan.config.device import Device
from memplan.measure.card import Card
from memplan.measure.watching.counted import CountedSteps
from memplan.measure.watching.pace import SHARE, Pace

DRIVER_EVERY = 1.0
"""Seconds between two questions to the driver."""


class OnCard:
    """Card number `index` of this process."""

    def __init__(self, index: int, reset_peaks: bool) -> None:
        self.index = index
        self.counted = CountedSteps(self._read, self._reset if reset_peaks else None)
        self._most: tuple[int, int] | None = None  # what the driver counted at most, and what was reserved then
        self._asked = 0.0
        self._answer: int | None = None
        self._pace = Pace(SHARE / 2)
        self._driver = ExitStack()
        self._module: Any = None
        with suppress(Exception):  # no library, no permission: the other tiers are there all the same
            self._module = import_module("memplan.measure.driver")
            self._driver.enter_context(self._module.session())

    def environment(self, device: Device) -> dict[str, Any]:
        """What the bytes of a run can depend on here."""
        card = Card(device)
        card.target = torch.device("cuda", self.index)
        return card.environment()

    def tiers(self) -> dict[str, int | None]:
        """The most of the run in each tier, as a record holds it; None where that is not known."""
        allocated, reserved = self.counted.most()
        held = None if self._most is None else self._most[0]
        context = None if self._most is None else self._most[0] - self._most[1]
        return {
            "allocated_bytes": allocated,
            "reserved_bytes": reserved,
            "device_bytes": held,
            "context_bytes": context,
        }

    def ask_driver(self) -> None:
        """Ask what the driver counts for this process, at most once in DRIVER_EVERY seconds and when that can be
        afforded."""
        now = time.monotonic()
        if self._module is None or now - self._asked < DRIVER_EVERY or not self._pace.due:
            return
        self._asked = now
        with self._pace.looking(), suppress(Exception):  # some containers do not tell a process's share
            self._answer = self._module.process_memory_bytes(os.getpid(), self.index)
        if self._answer is not None and (self._most is None or self._answer > self._most[0]):
            self._most = (self._answer, torch.cuda.memory_reserved(self.index))

    def device_bytes(self) -> int | None:
        """What the driver has answered since this was called last; else None."""
        answer, self._answer = self._answer, None
        return answer

    def close(self) -> None:
        """Let go of the driver's library."""
        self._driver.close()

    def _read(self) -> dict[str, int]:
        return torch.cuda.memory_stats(self.index)

    def _reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.index)
