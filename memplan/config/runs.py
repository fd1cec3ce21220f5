"""Any run that memplan knows."""

from __future__ import annotations

from memplan.config.inference import InferenceRun
from memplan.config.run import TrainingRun

Run = TrainingRun | InferenceRun

KINDS: dict[str, type[Run]] = {"train": TrainingRun, "generate": InferenceRun}
"""By the mode that asks for them."""
