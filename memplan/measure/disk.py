"""Whether a checkpoint can be written for real here. Torch-free."""

from __future__ import annotations

import shutil

from memplan.checkpoint.sizes import Checkpoint
from memplan.errors import MeasurementError
from memplan.report.words import exact

LARGEST = 8 * 2**30
"""Bytes of the largest checkpoint that is written: larger ones are better checked by a model of fewer layers."""

SPARE = 2**28  # what is left free


def check_room(checkpoint: Checkpoint, folder: str) -> None:
    """Raises MeasurementError where the checkpoint is larger than LARGEST, or than what is free in `folder`. One saving
    is written at a time."""
    needed = max(saving.size for saving in checkpoint.training_state.values())
    if needed > LARGEST:
        raise MeasurementError(
            f"the checkpoint of {exact(needed)} is larger than the {exact(LARGEST)} that are written for real",
            "take fewer layers, such as --set num_layers=2",
        )
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise MeasurementError(
            f"the checkpoint needs {exact(needed)}, and {exact(free)} are free where temporary files go",
            "TMPDIR names another folder",
        )
