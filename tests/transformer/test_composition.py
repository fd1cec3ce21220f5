"""Layers traced once and composed give what all of them traced one by one give."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.estimate import PHASES, backend_of
from memplan.ledger import Ledger, Moment
from memplan.ops.backend import Backend
from memplan.transformer.program import trace_training

from ..strategies import Case, cases

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def alive_bytes(ledger: Ledger, moment: Moment) -> dict[str, int]:
    """Bytes alive by component, added up from the single allocations."""
    total: Counter[str] = Counter()
    for allocation, count in ledger.alive(moment).items():
        total[allocation.component] += allocation.size * count
    return {component: size for component, size in total.items() if size}


def nonzero(components: dict[str, int]) -> dict[str, int]:
    return {component: size for component, size in components.items() if size}


@EXAMPLES
@given(case=cases(most_layers=8))
def test_composed_layers_are_the_layers_one_by_one(case: Case) -> None:
    backend = backend_of(case.device)
    composed = trace_training(case.model, case.run, backend)
    expanded = trace_training(case.model, case.run, backend, every_layer=True)
    ours, theirs = composed.moments(), expanded.moments()
    assert ours.keys() == theirs.keys()
    for phase in ours:
        for when, mine, other in zip(("peak", "end"), ours[phase], theirs[phase], strict=True):
            assert (phase, when, mine.size) == (phase, when, other.size)
            assert (phase, when, nonzero(mine.components)) == (phase, when, nonzero(other.components))


@EXAMPLES
@given(case=cases(most_layers=8), every_layer=st.booleans())
def test_what_is_alive_adds_up(case: Case, every_layer: bool) -> None:
    """At each peak and each end, the single allocations add up to the bytes of every component."""
    ledger = trace_training(case.model, case.run, backend_of(case.device), every_layer)
    for phase in PHASES:
        for moment in ledger.moments()[phase]:
            assert sum(moment.components.values()) == moment.size
            assert alive_bytes(ledger, moment) == nonzero(moment.components)
            assert all(count > 0 for count in ledger.alive(moment).values())


@EXAMPLES
@given(case=cases(most_layers=8))
def test_a_composed_stack_has_no_more_than_three_layers(case: Case) -> None:
    """The cost of a trace does not grow with the depth: eight and eighty layers have the same number of events."""
    backend = Backend("cpu", 2)
    deep = replace(case.model, num_layers=8, num_encoder_layers=8 if case.model.num_encoder_layers else 0)
    deeper = replace(case.model, num_layers=80, num_encoder_layers=80 if case.model.num_encoder_layers else 0)
    few, many = (trace_training(model, case.run, backend) for model in (deep, deeper))
    assert len(few.events) == len(many.events)
