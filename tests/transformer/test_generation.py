"""A run that writes, traced in part, is the run traced whole."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from memplan.estimate import backend_of
from memplan.transformer import steps
from memplan.transformer.program import trace_generation

from ..strategies import Case, generation_cases
from .test_composition import alive_bytes, nonzero

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])


@pytest.fixture(autouse=True)
def hardly_any_step_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "FEW", 0)


@EXAMPLES
@given(case=generation_cases(most_layers=6, most_new=40))
def test_telling_steps_and_composed_layers_are_all_steps_of_all_layers(case: Case) -> None:
    backend = backend_of(case.device)
    told = trace_generation(case.model, case.run, backend)
    whole = trace_generation(case.model, case.run, backend, every_layer=True, every_step=True)
    ours, theirs = told.moments(), whole.moments()
    for phase in case.run.phases:
        assert (phase in ours) == (phase in theirs)
        if phase not in ours:
            continue
        for when, mine, other in zip(("peak", "end"), ours[phase], theirs[phase], strict=True):
            assert (phase, when, mine.size) == (phase, when, other.size)
            assert (phase, when, nonzero(mine.components)) == (phase, when, nonzero(other.components))
            assert alive_bytes(told, mine) == nonzero(mine.components)
