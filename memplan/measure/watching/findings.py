"""What a watch has to say while the training runs, and how it says it. Torch-free."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from memplan.errors import MemplanError

Kind = Literal["drift", "growth", "does_not_fit", "no_plan", "not_recorded"]
"""`drift`: the run differs from its plan; `growth`: every step leaves more behind; `does_not_fit`: a later step will
need more than the card has; `no_plan`: nothing can be said beforehand; `not_recorded`: no step could be looked at, or
the record could not be written."""

LOGGER = logging.getLogger("memplan.watch")


class MemoryWarning(UserWarning):
    """What a watch warns with: `warnings.filterwarnings("error", category=memplan.MemoryWarning)` stops a training."""


class DriftError(MemplanError):
    """Raised in the training where on_drift="raise" asks for it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, in a sentence. Sizes are bytes; None where there is none of the kind."""

    kind: Kind
    step: int  # behind which it was found; 0 before the first
    message: str
    tier: str = ""
    estimated_bytes: int | None = None
    measured_bytes: int | None = None


OnDrift = Literal["warn", "raise"] | Callable[[Finding], object]


class Findings:
    """Every finding so far. Each kind is told once for each tier."""

    def __init__(self, on_drift: OnDrift) -> None:
        self.on_drift = on_drift
        self.told: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Warn, raise DriftError or call, as it was asked for. What only says that the watch itself cannot do something
        is warned of, whatever was asked: it stops no training."""
        if any((each.kind, each.tier) == (finding.kind, finding.tier) for each in self.told):
            return
        self.told.append(finding)
        own = finding.kind in ("no_plan", "not_recorded")
        if LOGGER.hasHandlers():  # else Python's last resort would print it a second time
            LOGGER.warning(finding.message)
        if own or self.on_drift == "warn":
            warnings.warn(finding.message, MemoryWarning, stacklevel=_frames_of_ours() + 1)
        elif self.on_drift == "raise":
            raise DriftError(finding)
        elif callable(self.on_drift):
            self.on_drift(finding)


def _frames_of_ours() -> int:
    """How many frames up it is to code that is not memplan's: that is where a warning is shown."""
    frame, count = sys._getframe(1), 0
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("memplan."):
        frame, count = frame.f_back, count + 1
    return count
