"""Layers that are not all alike: runs of equal ones, and what comes every n layers, are traced three times and
composed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_run
from memplan.estimate import backend_of, trace
from memplan.expansion import expand
from memplan.ledger import Ledger
from memplan.ops.module import Module, Repeated
from memplan.ops.trace import Trace
from memplan.replay import module_of

from ..graph_cases import graph_card_cases, graph_cases
from ..strategies import Case

EXAMPLES = settings(
    max_examples=100, deadline=None, phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck)
)


def nonzero(components: dict[str, int]) -> dict[str, int]:
    return {component: size for component, size in components.items() if size}


def assert_same(case: Case) -> tuple[Ledger, Ledger]:
    """Composed and one by one: the same bytes at every peak and end, by component."""
    backend = backend_of(case.device)
    composed, single = trace(case.model, case.run, backend), trace(case.model, case.run, backend, every_layer=True)
    ours, theirs = composed.moments(), single.moments()
    assert ours.keys() == theirs.keys()
    for phase in ours:
        for when, mine, other in zip(("peak", "end"), ours[phase], theirs[phase], strict=True):
            assert (phase, when, mine.size) == (phase, when, other.size)
            assert (phase, when, nonzero(mine.components)) == (phase, when, nonzero(other.components))
    return composed, single


@EXAMPLES
@given(case=graph_cases(most_layers=12))
def test_composed_layers_are_the_layers_one_by_one(case: Case) -> None:
    assert_same(case)


@EXAMPLES
@given(case=graph_card_cases(most_layers=12))
def test_what_is_spelled_out_on_a_card_is_what_happens(case: Case) -> None:
    """Birth by birth and death by death, each of the very allocation that dies."""
    composed, single = assert_same(case)
    ours, theirs = expand(composed), expand(single)
    assert ours.events == theirs.events
    assert [each.size for each in ours.initial] == [each.size for each in theirs.initial]
    modules = [
        [module_of(each, expansion.layer(at)) for at, each in enumerate(expansion.births)]
        for expansion in (ours, theirs)
    ]
    assert modules[0] == modules[1]
    assert (ours.carried, ours.dropped, ours.created) == (theirs.carried, theirs.dropped, theirs.created)


class Layer(Module):
    """Knows its number."""

    def __init__(self, trace: Trace, number: int) -> None:
        super().__init__(trace)
        self.number = number


@pytest.mark.parametrize(
    ("kinds", "period", "numbers"),
    [
        ("aaaaaa", 1, [[0], [1, 2, 3, 4], [5]]),
        ("aab", 1, [[0], [1], [2]]),
        ("aaaabbbbb", 1, [[0], [1, 2], [3], [4], [5, 6, 7], [8]]),
        ("ababababa", 2, [[0], [1], [2, 4], [3, 5], [6], [7], [8]]),
        ("", 1, []),
    ],
)
def test_which_layers_stand_for_which(kinds: str, period: int, numbers: list[list[int]]) -> None:
    trace = Trace(backend_of(load_device("cpu")))
    stack = Repeated(trace, lambda number: Layer(trace, number), kinds, period)
    assert [list(each) for each in stack.numbers] == numbers
    assert [layer.number for layer in stack.layers] == [each[0] for each in numbers]  # type: ignore[attr-defined]


def test_the_first_layer_of_a_kind_by_itself() -> None:
    trace = Trace(backend_of(load_device("cpu")))
    stack = Repeated(trace, lambda number: Layer(trace, number), "aaaaaabbb", apart=True)
    assert [list(each) for each in stack.numbers] == [[0], [1], [2, 3, 4], [5], [6], [7], [8]]


@pytest.mark.parametrize(
    "changes", [{"frozen_layers": 20}, {"recompute": "full", "recompute_every": 4}, {"frozen": ("*.layers.7.*",)}]
)
def test_a_deep_stack_costs_no_more_than_its_runs(changes: dict[str, object]) -> None:
    model, device = load_model("llama-3-8b"), load_device("h100-80gb")
    run = validate_run(model, replace(TrainingRun(sequence_length=64), **changes), device)  # type: ignore[arg-type]
    deep, deeper = (
        len(trace(replace(model, num_layers=number), run, backend_of(device)).events) for number in (96, 128)
    )
    assert deep == deeper
