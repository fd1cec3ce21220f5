"""The promise memplan rests on, for every way to set the optimizer step up."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings

from memplan.config.devices import load_device
from memplan.measure.suites.case import Task
from memplan.measure.suites.setups import optimizers, precision

from .strategies import FRESH, Case, setup_cases

pytest.importorskip("torch")

from .test_exactness import residuals

EXAMPLES = 100
DEVICE = load_device("cpu:2")
LIBRARY = [task for suite in (optimizers, precision) for task in suite.tasks(DEVICE) if "library" in task.title]
FEW = LIBRARY if "MEMPLAN_THOROUGH" in os.environ else LIBRARY[::7]
"""The others are recorded in profiles/cpu."""


# Fresh examples on each run, and nothing remembered from the last one: a failure prints the configuration as Python.
@settings(FRESH, max_examples=EXAMPLES)
@given(case=setup_cases())
def test_the_estimate_is_the_run(case: Case) -> None:
    assert residuals(case) == {}


@pytest.mark.parametrize("task", FEW, ids=lambda task: task.title)
def test_models_of_the_library(task: Task) -> None:
    pytest.importorskip("transformers")
    if "8bit" in task.title:
        pytest.importorskip("bitsandbytes")
    assert residuals(Case(task.case.model, task.case.run, DEVICE)) == {}  # type: ignore[arg-type]
