"""Ledgers of every set-up of the step: composed as spelled out, and replayed on cards."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import HealthCheck, given, settings

from memplan.config.devices import load_device
from memplan.config.library.model import validate_library_model
from memplan.config.validate import validate_run
from memplan.estimate import backend_of, estimate
from memplan.expansion import expand
from memplan.measure.suites.library import small_models
from memplan.measure.suites.setups import optimizers, precision
from memplan.ops.backend import Backend
from memplan.replay import replay
from memplan.transformer.program import trace_training

from .strategies import Case, setup_cases

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def nonzero(components: dict[str, int]) -> dict[str, int]:
    return {component: size for component, size in components.items() if size}


def backends(case: Case) -> list[Backend]:
    """Experts have rules on the CPU alone."""
    return [backend_of(case.device), *([] if case.model.num_experts else [Backend("cuda")])]


@EXAMPLES
@given(case=setup_cases(most_layers=8))
def test_composed_layers_are_the_layers_one_by_one(case: Case) -> None:
    for backend in backends(case):
        composed, expanded = (
            trace_training(case.model, case.run, backend, every_layer) for every_layer in (False, True)
        )
        ours, theirs = composed.moments(), expanded.moments()
        for phase in theirs:
            for mine, other in zip(ours[phase], theirs[phase], strict=True):
                assert (phase, mine.size, nonzero(mine.components)) == (phase, other.size, nonzero(other.components))


@EXAMPLES
@given(case=setup_cases(most_layers=8))
def test_a_composed_ledger_spells_out_every_event(case: Case) -> None:
    """Of the first step, which makes the states, and of every later one."""
    for backend in backends(case):
        composed, expanded = (
            expand(trace_training(case.model, case.run, backend, every_layer)) for every_layer in (False, True)
        )
        assert composed.events == expanded.events
        assert composed.first_step().events == expanded.first_step().events


@EXAMPLES
@given(case=setup_cases(most_layers=4))
def test_a_replay_settles(case: Case) -> None:
    for backend in backends(case):
        assert replay(trace_training(case.model, case.run, backend)).steady


@EXAMPLES
@given(case=setup_cases(most_layers=4))
def test_the_first_step_makes_states_where_parameters_are_updated(case: Case) -> None:
    expected = "backward" if case.run.optimizer_in_backward else "optimizer_step"
    for backend in backends(case):
        first = expand(trace_training(case.model, case.run, backend)).first_step()
        starts = [start for _, start in first.phases]
        places = [number for number, event in enumerate(first.events) if event < 0]  # of each birth
        for ordinal in first.made:
            allocation = first.births[ordinal]
            if allocation.component == "optimizer_state" and not allocation.operation.startswith("GradScaler"):
                assert first.phases[bisect_right(starts, places[ordinal]) - 1][0] == expected


def test_master_weights_are_there_before_the_first_step() -> None:
    """And what the optimizer makes of them is not."""
    task = next(task for task in precision.tasks(load_device("cpu")) if "deepspeed" in task.title)
    ledger = trace_training(task.case.model, task.case.run, Backend("cuda"))  # type: ignore[arg-type]
    first = expand(ledger).first_step()
    weights = sum(each.size for each in first.initial if each.component == "parameters")
    masters = sum(each.size for each in first.initial if each.component == "optimizer_state")
    assert masters == 2 * weights
    assert sum(first.births[ordinal].size for ordinal in first.made) >= 2 * masters


def test_every_setup_of_the_suites_has_an_estimate_on_a_card() -> None:
    card = load_device("h100-80gb")
    tasks = [*optimizers.tasks(card), *precision.tasks(card)]
    assert len(tasks) > 100
    for task in tasks:
        found = estimate(task.case.model, task.case.run, card)
        assert found.tiers.reserved_bytes is not None
        assert found.tiers.reserved_bytes >= found.tiers.allocated_bytes


def test_the_library_is_in_the_suites() -> None:
    small = validate_library_model(small_models()["llama"])
    tasks = [task for task in optimizers.tasks(load_device("cpu")) if "library llama" in task.title]
    assert tasks
    for task in tasks:
        validate_run(small, task.case.run, load_device("cpu"))
