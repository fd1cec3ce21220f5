"""A model of the library and its twin on the sizes-only operations: every birth of a training step, to the byte."""

from __future__ import annotations

import os

import pytest

from memplan.config.library.model import validate_library_model
from memplan.config.run import TrainingRun

from .small import SMALL

pytest.importorskip("transformers")
from .compare import OTHER, runs, same, show


@pytest.mark.parametrize("name", SMALL)
def test_every_birth_of_a_step(name: str) -> None:
    """With attention written out and in PyTorch's kernel, in three precisions, padded, recomputed, accumulated: one of
    each (MEMPLAN_THOROUGH=1 takes every combination)."""
    config = validate_library_model(SMALL[name])
    every = runs(config)
    for run in every if "MEMPLAN_THOROUGH" in os.environ else spread(every):
        assert same(config, run) or show(config, run), run


def spread(every: list[TrainingRun]) -> list[TrainingRun]:
    """A few of the runs, in which each setting is there with each way to attend or in each precision. Neighbours in
    the list differ in the last setting, so that a step by one more than there are of these changes all."""
    others = len(OTHER) if len(every) % len(OTHER) == 0 else len(every) // 6
    return every[:: others + 1]
