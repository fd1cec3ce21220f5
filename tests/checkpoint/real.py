"""Checkpoints beside files that are really written."""

from __future__ import annotations

from pathlib import Path

from memplan.checkpoint.sizes import checkpoint
from memplan.config.models import Model
from memplan.config.run import TrainingRun
from memplan.measure.checkpoint import write_checkpoint

Sizes = dict[tuple[str, str, str], int]


def both(
    model: Model, run: TrainingRun, folder: Path, step: int = 1000, shard: int = 50 * 10**9
) -> tuple[Sizes, Sizes]:
    """Every file's bytes by memplan, and on disk."""
    return checkpoint(model, run, step, shard).sizes, write_checkpoint(model, run, step, shard, str(folder))
