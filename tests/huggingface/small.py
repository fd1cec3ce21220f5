"""The small models of the suite `families`."""

from __future__ import annotations

from memplan.measure.suites.library import small_models, small_run
from memplan.measure.suites.library_generation import small_generation

SMALL = small_models()

__all__ = ["SMALL", "small_generation", "small_run"]
