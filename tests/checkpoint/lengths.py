"""Runs whose lengths do not matter."""

from __future__ import annotations

from memplan.config.models import Model
from memplan.config.run import TrainingRun


def any_length(model: Model, **options: object) -> TrainingRun:
    """A run of one token."""
    lengths: dict[str, int] = {"sequence_length": 1}
    if model.architecture == "encoder-decoder":
        lengths = {"source_length": 1, "target_length": 1}
    elif getattr(model, "tokens_of_an_image", 0):
        lengths = {}
    return TrainingRun(**{**lengths, **options})  # type: ignore[arg-type]
