"""How a run is watched: what was asked for, checked. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memplan.config.fields import did_you_mean, show
from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.measure.watching.findings import OnDrift

LOOPS = ("own", "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See memplan.measure.watching.watch, whose arguments these are."""

    record: str | os.PathLike[str] | None = None
    warn: float = 0.02
    on_drift: OnDrift = "warn"
    recorded_step: int = 2
    reset_peaks: bool = False
    loop: Literal["own", "reference"] = "own"
    save_every: float = 60.0

    @property
    def target(self) -> Path | None:
        """Where the record goes."""
        return None if self.record is None else Path(self.record)


def checked(values: Mapping[str, Any]) -> Settings:
    """Settings of these values. Raises one ConfigurationError that names every one that is wrong."""
    known = Settings.__dataclass_fields__
    problems = [f"{name}: is not a known argument{did_you_mean(name, known)}" for name in values if name not in known]
    given = {name: value for name, value in values.items() if name in known}
    problems += [text for name, value in given.items() if (text := _problem(name, value))]
    if problems:
        raise ConfigurationError("watch: " + "; ".join(problems))
    return Settings(**given)


def _problem(name: str, value: Any) -> str:
    """What is wrong with a value, "" where nothing is."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    right: dict[str, tuple[bool, str]] = {
        "record": (value is None or isinstance(value, (str, os.PathLike)), "a path"),
        "warn": (number and 0 < value < 1, "a share between 0 and 1, such as 0.02"),
        "on_drift": (value in ("warn", "raise") or callable(value), "warn, raise or a function of a finding"),
        "recorded_step": (
            isinstance(value, int) and number and value >= 0 and value != 1,
            "0 for none, or at least 2: the first step begins without the optimizer's states",
        ),
        "reset_peaks": (isinstance(value, bool), "true or false"),
        "loop": (value in LOOPS, f"one of {', '.join(LOOPS)}"),
        "save_every": (number and value > 0, "a number of seconds"),
    }
    holds, what = right[name]
    return "" if holds else f"{name}: must be {what}, not {show(value)}"
