"""A composed ledger, spelled out, is the ledger of all layers traced one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.expansion import Expansion, expand
from memplan.ledger import INITIAL, Allocation, Ledger, Repeat
from memplan.ops.backend import Backend
from memplan.transformer import training
from memplan.transformer.program import trace_training

from .strategies import Case, cases

EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
BACKENDS = st.sampled_from([Backend("cpu", 2), Backend("cuda")])


class Birth(NamedTuple):
    """What an allocation is, whichever copy of it, and what has died since the one before (ordinals, in order)."""

    phase: str
    size: int
    operation: str
    module: str
    component: str
    dead: tuple[int, ...]


def story(expansion: Expansion) -> list[Birth]:
    """Every birth of the step in order; the last entry is its end."""
    phase_of = [""] * len(expansion.events)
    for name, start in expansion.phases:
        phase_of[start:] = [name] * (len(phase_of) - start)
    result: list[Birth] = []
    dead: list[int] = []
    for phase, event in zip(phase_of, expansion.events, strict=True):
        if event >= 0:
            assert event < len(result), "nothing dies before it is born"
            dead.append(event)
            continue
        born = expansion.births[len(result)]
        assert born.size == -event
        result.append(Birth(phase, -event, born.operation, born.module, born.component, tuple(dead)))
        dead = []
    return [*result, Birth("end", 0, "", "", "", tuple(dead))]


def true_story(ledger: Ledger) -> list[Birth]:
    """The same, read off a ledger in which every layer is traced."""
    assert all(segment.copies == 1 for segment in ledger.segments)
    result: list[Birth] = []
    ordinals: dict[Allocation, int] = {}
    dead: list[int] = []
    for segment in ledger.segments:
        if segment.phase == INITIAL:
            continue
        for allocation, birth in ledger.events[segment.start : segment.stop]:
            if not birth:
                dead.append(ordinals[allocation])
                continue
            ordinals[allocation] = len(result)
            made = (allocation.size, allocation.operation, allocation.module, allocation.component)
            result.append(Birth(segment.phase, *made, tuple(dead)))
            dead = []
    return [*result, Birth("end", 0, "", "", "", tuple(dead))]


def initial_story(ledger: Ledger) -> list[tuple[int, str, str, str]]:
    stop = max(segment.stop for segment in ledger.segments if segment.phase == INITIAL)
    return described([allocation for allocation, _ in ledger.events[:stop]])


def described(allocations: list[Allocation]) -> list[tuple[int, str, str, str]]:
    return [(each.size, each.operation, each.module, each.component) for each in allocations]


def layers(expansion: Expansion) -> list[int | None]:
    return [expansion.layer(ordinal) for ordinal in range(len(expansion.births))]


def assert_spelled_out(composed: Ledger, full: Ledger) -> None:
    """`expand` of a composed ledger is the full one: every birth, every death, and which copy dies. The frees between
    two births have the same order too."""
    expansion, truth = expand(composed), expand(full)
    ours, theirs = story(expansion), true_story(full)
    assert len(ours) == len(theirs)
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert (number, mine) == (number, other)
    assert described(expansion.initial) == initial_story(full)
    assert layers(expansion) == layers(truth)
    assert layers(expansion.first_step()) == layers(truth.first_step())
    for name in ("phases", "created", "carried", "dropped", "events"):
        assert getattr(expansion, name) == getattr(truth, name), name


@EXAMPLES
@given(case=cases(most_layers=9), backend=BACKENDS, scaled=st.booleans())
def test_the_layers_of_a_composed_ledger_are_those_traced_one_by_one(
    case: Case, backend: Backend, scaled: bool
) -> None:
    assume(max(case.model.num_layers, case.model.num_encoder_layers) > 3)
    run = replace(case.run, precision="fp16-mixed") if scaled and case.run.precision == "bf16-mixed" else case.run
    composed, full = (trace_training(case.model, run, backend, every_layer) for every_layer in (False, True))
    composed.micro_batches = full.micro_batches = 1  # only what is recorded
    assert_spelled_out(composed, full)


@EXAMPLES
@given(case=cases(most_layers=5), micro_batches=st.integers(3, 5), every_layer=st.booleans(), backend=BACKENDS)
def test_the_second_micro_batch_again_is_the_third(
    case: Case, micro_batches: int, every_layer: bool, backend: Backend
) -> None:
    run = replace(case.run, gradient_accumulation_steps=micro_batches)
    composed = trace_training(case.model, run, backend, every_layer)
    assert composed.micro_batches == micro_batches
    with patch.object(training, "min", lambda wanted, limit: wanted, create=True):
        full = trace_training(case.model, run, backend, every_layer=True)
    full.micro_batches = 1  # it holds all of them
    assert_spelled_out(composed, full)


@EXAMPLES
@given(case=cases(most_layers=6), backend=BACKENDS)
def test_the_first_step_is_the_steady_one_and_what_it_makes(case: Case, backend: Backend) -> None:
    expansion = expand(trace_training(case.model, case.run, backend))
    first = expansion.first_step()
    made = {first.births[ordinal] for ordinal in first.made}
    assert made == {each for each in expansion.initial if each.component in ("optimizer_state", "workspace")}
    assert len(first.initial) + len(first.made) == len(expansion.initial)
    kept = [birth for birth in story(first) if birth.component not in ("optimizer_state", "workspace")]
    assert [birth[:5] for birth in kept] == [birth[:5] for birth in story(expansion)]
    assert not {event for event in first.events if event >= 0} & set(first.made)
    assert [name for name, _ in first.phases] == [name for name, _ in expansion.phases]
    for birth in story(first):  # a scale is first needed when the loss is scaled
        if birth.component == "optimizer_state" and not birth.operation.startswith("GradScaler"):
            assert birth.phase == "optimizer_step"


# ---- by hand


def block(operation: str, size: int = 8, component: str = "temporaries") -> Allocation:
    allocation = Allocation(size, operation, (size,), "uint8", "stack.*", "", 1, 0)
    allocation.component = component
    return allocation


class Hand:
    """A ledger written by hand: `born` and `dead` after `enter`."""

    def __init__(self, middle: int) -> None:
        self.ledger = Ledger()
        firsts = (0, 1, middle + 1)
        self.stack = [Repeat(at, (1, middle, 1)[at], "stack", firsts[at]) for at in range(3)]

    def enter(self, phase: str, position: int | None = None) -> Hand:
        repeat = None if position is None else self.stack[position]
        self.ledger.enter(phase, 1 if repeat is None else repeat.copies, repeat)
        return self

    def born(self, *allocations: Allocation) -> Hand:
        self.ledger.events += [(allocation, True) for allocation in allocations]
        return self

    def dead(self, *allocations: Allocation) -> Hand:
        self.ledger.events += [(allocation, False) for allocation in allocations]
        return self

    def expand(self) -> Expansion:
        self.ledger.close()
        return expand(self.ledger)


def test_layers_hand_their_output_on_and_free_what_they_saved() -> None:
    """Five layers: each saves one tensor for the backward pass and frees the output of the one before."""
    saved, out = [block("save", 1 + layer) for layer in range(3)], [block("out", 10) for _ in range(3)]
    hand = Hand(3)
    for layer in range(3):
        hand.enter("forward", layer).born(saved[layer], out[layer])
        if layer:
            hand.dead(out[layer - 1])
    for layer in (2, 1, 0):
        hand.enter("backward", layer).dead(saved[layer])
        if layer == 2:
            hand.dead(out[2])
    expansion = hand.expand()
    assert expansion.events == [
        -1, -10,  # births 0 and 1
        -2, -10, 1,
        -2, -10, 3,
        -2, -10, 5,
        -3, -10, 7,
        8, 9,
        6, 4, 2,
        0,
    ]  # fmt: skip
    assert expansion.phases == [("forward", 0), ("backward", 14)]
    assert layers(expansion) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert expansion.carried == expansion.dropped == []


def test_gradients_are_handed_down() -> None:
    """The last layer's gradient dies in the middle one, each middle one's in the one below."""
    gradient = [block("gradient", 10 + layer) for layer in range(3)]
    gradient[1].shape = gradient[2].shape
    hand = Hand(2)
    hand.enter("backward", 2).born(gradient[2])
    hand.enter("backward", 1).born(gradient[1]).dead(gradient[2])
    hand.enter("backward", 0).born(gradient[0]).dead(gradient[1])
    hand.enter("backward").dead(gradient[0])
    expansion = hand.expand()
    assert expansion.events == [-12, -11, 0, -11, 1, -10, 2, 3]
    assert layers(expansion) == [3, 2, 1, 0]


def test_twins_that_look_alike_are_told_apart_by_their_order() -> None:
    """Two equal tensors are handed on; the middle layer frees the second one first, the last layer the first one."""
    one, two = [block("pair") for _ in range(2)], [block("pair") for _ in range(2)]
    fresh = [block("fresh", 2), block("fresh", 3)]
    hand = Hand(3)
    hand.enter("forward", 0).born(one[0], two[0])
    hand.enter("forward", 1).dead(two[0]).born(one[1], two[1], fresh[0]).dead(one[0])
    hand.enter("forward", 2).dead(one[1]).born(fresh[1]).dead(two[1])
    expansion = hand.expand()
    assert expansion.events == [
        -8, -8,  # births 0 and 1
        1, -8, -8, -2, 0,
        3, -8, -8, -2, 2,
        6, -8, -8, -2, 5,
        8, -3, 9,
    ]  # fmt: skip


def test_outside_of_the_stack_the_latest_dies() -> None:
    kept = [block("a"), block("a"), block("b")]
    hand = Hand(4)
    for layer in range(3):
        hand.enter("forward", layer).born(kept[layer])
    hand.enter("loss").dead(kept[1])
    expansion = hand.expand()
    assert expansion.events == [-8] * 6 + [4]
    assert expansion.dropped == [0, 1, 2, 3, 5]


def test_states_are_made_where_the_optimizer_step_begins() -> None:
    """And a library's workspace at its first use: in the middle layer's segment in its first pass."""
    workspace, weight, state = block("workspace", 100, "workspace"), block("w", 4, "parameters"), block("s", 6)
    state.component = "optimizer_state"
    scratch = [block("scratch", size) for size in (1, 2, 3)]
    hand = Hand(2)
    hand.born(workspace)
    hand.enter(INITIAL, 1).born(weight, state)
    for layer in range(3):
        hand.enter("forward", layer).born(scratch[layer])
        if layer == 1:
            hand.ledger.first_use[workspace] = len(hand.ledger.events)
        hand.dead(scratch[layer])
    hand.enter("optimizer_step")
    hand.enter("end")
    expansion = hand.expand()
    assert [each.operation for each in expansion.initial] == ["workspace", "w", "s", "w", "s"]
    assert expansion.events == [-1, 0, -2, 1, -2, 2, -3, 3]
    assert expansion.created == [(0, 3, 0), (1, 8, 2), (1, 8, 4)]
    first = expansion.first_step()
    assert [each.operation for each in first.initial] == ["w", "w"]
    assert first.events == [-1, 0, -2, -100, 1, -2, 3, -3, 4, -6, -6]
    assert first.made == [2, 5, 6]
    assert first.phases == [("forward", 0), ("optimizer_step", 9), ("end", 11)]
    assert layers(first) == [0, 1, None, 2, 3, 1, 2]


@pytest.mark.parametrize("upwards", [True, False])
def test_a_first_use_in_each_layer_is_made_in_that_layer(upwards: bool) -> None:
    state, scratch = block("s", 6, "optimizer_state"), block("scratch", 1)
    hand = Hand(3)
    hand.enter(INITIAL, 1).born(state)
    hand.enter("optimizer_step", 0 if upwards else 2)
    hand.enter("optimizer_step", 1).born(scratch)
    hand.ledger.first_use[state] = len(hand.ledger.events)
    hand.dead(scratch)
    expansion = hand.expand()
    assert expansion.events == [-1, 0, -1, 1, -1, 2]
    assert expansion.created == [
        (0, event, index) for event, index in zip((1, 3, 5), (0, 1, 2) if upwards else (2, 1, 0), strict=True)
    ]
    assert layers(expansion.first_step()) == ([1, 1, 2, 2, 3, 3] if upwards else [3, 3, 2, 2, 1, 1])


def test_what_the_middle_layers_cannot_all_free_is_refused() -> None:
    """Once for every copy, an allocation of one time; a neighbour's that no middle layer makes; one of before."""
    once, twin = block("once"), block("twin")
    with pytest.raises(NotModelledError, match="cannot tell which layer's once of stack"):
        Hand(2).enter("forward").born(once).enter("forward", 0).enter("forward", 1).dead(once).expand()
    with pytest.raises(NotModelledError, match="cannot tell which layer's twin of stack"):
        Hand(2).enter("forward", 0).born(twin).enter("forward", 1).dead(twin).expand()
    with pytest.raises(NotModelledError, match="cannot tell which layer's once"):
        Hand(2).born(once).enter("forward").dead(once).expand()
    with pytest.raises(NotModelledError, match="cannot tell which layer's twin"):
        Hand(2).enter("forward").born(twin).dead(twin, twin).expand()


def test_three_micro_batches_need_two_in_the_ledger() -> None:
    hand = Hand(2).enter("forward").enter("loss").enter("backward")
    hand.ledger.micro_batches = 3
    with pytest.raises(NotModelledError, match="a ledger that holds two"):
        hand.expand()


def test_a_run_of_the_model_with_a_single_layer_has_nothing_to_spell_out() -> None:
    """Whatever is traced as it runs keeps its events."""
    from memplan.config.load import load_model

    model = replace(load_model("gpt2"), num_layers=1)
    ledger = trace_training(model, TrainingRun(sequence_length=8), Backend("cpu", 1))
    expansion = expand(ledger)
    assert len(expansion.initial) + len(expansion.events) == len(ledger.events)
    assert expansion.initial + expansion.births == list(ledger.births())
