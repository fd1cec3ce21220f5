"""Places: no two tensors share memory, all lie in segments, and the figures are those of the estimate."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from memplan.allocator import Settings
from memplan.allocator.trace import GAINS
from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, NotModelledError
from memplan.estimate import Estimate, backend_of, estimate, trace
from memplan.exporting.fresh import BETWEEN
from memplan.exporting.placed import PlacedTimeline, place, placed, placed_on_cpu
from memplan.ledger import INITIAL
from memplan.timeline import Timeline, timeline, timeline_of
from tests.strategies import Case, card_cases, cases, generation_cases

from .configurations import CONFIGURATIONS, LAYERS, NAIVE, model_of, placed_as

SETTINGS = st.sampled_from(["", "expandable_segments:True", "max_split_size_mb:64", "roundup_power2_divisions:4"])


def facts(line: Timeline) -> list[object]:
    """What makes two timelines of two traces the same."""
    tensors = [(each.title, each.component, each.size, each.born, each.died) for each in line.tensors]
    return [tensors, line.events, line.phases]


def check_places(over: PlacedTimeline) -> None:
    """At every event: alive blocks do not overlap, and each lies in memory that is held."""
    pages = {piece.address: piece.size for piece in over.found}
    calls = list(reversed(over.segments))
    blocks: list[tuple[int, int]] = []

    def put(number: int) -> None:
        address, size = over.addresses[number], over.blocks[number]
        assert size >= over.timeline.tensors[number].size
        at = bisect_left(blocks, (address, 0))
        assert at == 0 or sum(blocks[at - 1]) <= address
        assert at == len(blocks) or address + size <= blocks[at][0]
        insort(blocks, (address, size))
        if over.on_card:
            start, end = address, address + size
            while start < end:  # ranges of an expandable segment touch
                holder = max((page for page in pages if page <= start), default=-1)
                assert holder >= 0 and start < holder + pages[holder]
                start = holder + pages[holder]

    for number, tensor in enumerate(over.timeline.tensors):
        if tensor.born < 0:
            put(number)
    for place_, event in enumerate(over.timeline.events):
        while calls and calls[-1].before == place_:
            call = calls.pop()
            if call.action in GAINS:
                pages[call.address] = call.size
            else:
                assert not any(call.address <= address < call.address + call.size for address, _ in blocks)
                assert pages.pop(call.address) == call.size
        if event >= 0:
            put(event)
        else:
            blocks.remove((over.addresses[~event], over.blocks[~event]))
    assert not calls


def check_figures(over: PlacedTimeline, expected: Estimate) -> None:
    line, reserved = over.allocated(), over.reserved()
    assert max(line) == expected.tiers.allocated_bytes
    peaks: dict[str, int] = {}
    for name, start, stop in over.timeline.spans:
        peaks[name] = max(peaks.get(name, 0), *line[start : stop + 1])
    assert all(peaks[phase.name] == phase.peak_allocated_bytes for phase in expected.phases)
    if reserved is None:
        assert expected.tiers.reserved_bytes is None
        return
    assert len(reserved) == len(line)
    assert all(low <= high for low, high in zip(line, reserved, strict=True))
    assert reserved[-1] == sum(segment.size for segment in over.held())
    for phase in expected.phases:
        spans = [(start, stop) for name, start, stop in over.timeline.spans if name == phase.name]
        assert max(max(reserved[start : stop + 1]) for start, stop in spans) == phase.peak_reserved_bytes


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_steady_step_is_the_timeline_with_places(name: str) -> None:
    model, run, device, allocator = CONFIGURATIONS[name]
    over = placed_as(name)
    assert facts(over.timeline) == facts(timeline(model_of(model), run, load_device(device)))
    assert over.starts == (0,) and over.steps >= 2
    check_places(over)
    check_figures(over, estimate(model_of(model), run, load_device(device), allocator_settings=allocator))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_all_steps_end_in_the_steady_one(name: str) -> None:
    whole, last = placed_as(name, every_step=True), placed_as(name)
    check_places(whole)
    assert whole.found == () and whole.timeline.phases[0] == (INITIAL, 0)
    assert len(whole.starts) == whole.steps == last.steps
    start, length = whole.starts[-1], len(last.timeline.events)
    assert len(whole.timeline.events) == start + length
    assert whole.allocated()[0] == 0
    assert whole.allocated()[start:] == last.allocated()
    reserved = whole.reserved()
    assert (reserved and reserved[start:]) == last.reserved()
    for mine, theirs in zip(whole.timeline.events[start:], last.timeline.events, strict=True):
        assert (mine < 0) == (theirs < 0)
        mine, theirs = max(mine, ~mine), max(theirs, ~theirs)
        assert whole.timeline.tensors[mine].title == last.timeline.tensors[theirs].title
        assert whole.blocks[mine] == last.blocks[theirs]
        assert whole.addresses[mine] == last.addresses[theirs] or not last.on_card
    ends = [[(s.address, s.size, s.small, s.expandable) for s in over.held()] for over in (whole, last)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["training, naive, card", "generation, card"])
def test_what_a_step_returns_is_dropped_before_the_next_one(name: str) -> None:
    whole = placed_as(name, every_step=True)
    between = [(start, stop) for phase, start, stop in whole.timeline.spans if phase == BETWEEN]
    assert len(between) == whole.steps - 1
    assert [stop for _, stop in between] == list(whole.starts[1:])
    assert all(event < 0 for start, stop in between for event in whole.timeline.events[start:stop])


def test_the_first_step_makes_the_states_of_the_optimizer() -> None:
    whole = placed_as("training, naive, card", every_step=True)
    states = [each for each in whole.timeline.tensors if each.component == "optimizer_state"]
    assert all(whole.starts[0] <= each.born < whole.starts[1] for each in states)
    assert {each.module for each in states} >= {f"decoder.layers.{n}.attention.output.weight" for n in range(LAYERS)}
    parameters = [each for each in whole.timeline.tensors if each.component == "parameters"]
    assert len(states) == 2 * len(parameters) and all(each.born < whole.starts[0] for each in parameters)


@pytest.mark.parametrize("name", ["training, naive, cpu", "encoder-decoder, cpu", "generation, cpu"])
def test_the_cpu_reserves_nothing(name: str) -> None:
    over = placed_as(name)
    assert not over.on_card and over.settings is None
    assert over.reserved() is None and over.held() == () and over.segments == ()
    assert list(over.blocks) == [each.size for each in over.timeline.tensors]
    assert over.allocated() == over.timeline.allocated()


def test_a_timeline_alone_is_placed_on_the_cpu() -> None:
    over = placed_as("training, naive, cpu")
    alone = placed_on_cpu(timeline(model_of("gpt2"), NAIVE, load_device("cpu")))
    check_places(alone)
    assert (alone.addresses, alone.blocks) == (over.addresses, over.blocks)
    assert len(set(alone.addresses)) < len(alone.addresses)  # memory that was given back is used again


def test_segments_say_who_asked_for_them() -> None:
    over = placed_as("training, naive, card", every_step=True)
    first = over.segments[0]
    assert (first.before, first.action, first.size) == (0, "segment_alloc", 148 * 2**20)
    assert first.cause.title == "head.projection.weight parameter [50257, 768] fp32"
    assert {each.cause.component for each in over.segments} >= {"parameters", "optimizer_state", "gradients"}
    assert {each.small for each in over.segments} == {True, False}


def test_a_card_that_is_a_little_too_small_gives_segments_back() -> None:
    run = TrainingRun(micro_batch_size=8, sequence_length=1024, attention="naive")
    model, card = load_model("gpt2", {"attention_dropout": 0}), load_device("h100-80gb")
    roomy = estimate(model, run, card).tiers.device_bytes
    assert roomy is not None
    small = replace(card, capacity_bytes=roomy - 2**20)
    whole = place(model, run, small, every_step=True)
    assert any(event.action == "segment_free" for event in whole.segments)
    check_places(whole)
    reserved = whole.reserved()
    assert reserved is not None
    squeezed = estimate(model, run, small).tiers
    assert (max(reserved), max(whole.allocated())) == (squeezed.reserved_bytes, squeezed.allocated_bytes)
    last = place(model, run, small)
    check_places(last)
    assert last.reserved() == reserved[whole.starts[-1] :]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_as_many_steps_as_are_asked_for(steps: int) -> None:
    model, card = model_of("gpt2"), load_device("h100-80gb")
    whole = place(model, NAIVE, card, steps=steps, every_step=True)
    assert whole.steps == len(whole.starts) == steps
    reserved = whole.reserved()
    assert reserved and max(reserved) == estimate(model, NAIVE, card, steps=steps).tiers.reserved_bytes
    alone = place(model, NAIVE, card, steps=steps)
    assert alone.starts == (whole.starts if steps == 1 else (0,))
    assert alone.allocated() == whole.allocated()[0 if steps == 1 else whole.starts[-1] :]


def test_a_ledger_is_placed_as_its_run_is() -> None:
    model, card = model_of("gpt2"), load_device("h100-80gb")
    ledger = trace(model, NAIVE, backend_of(card))
    over = placed(ledger, card, Settings())
    assert over.timeline == timeline_of(ledger)
    assert (over.addresses, over.blocks) == (placed_as("training, naive, card").addresses, over.blocks)


def test_bad_settings_of_the_allocator_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_splits"):
        place(model_of("gpt2"), NAIVE, load_device("h100-80gb"), allocator_settings="max_splits:3")


some_cases = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def check_case(case: Case, allocator: str) -> None:
    try:
        over = place(*case, allocator_settings=allocator)
    except NotModelledError as error:
        assume("cannot tell which layer's" not in error.message)
        raise
    check_figures(over, estimate(*case, allocator_settings=allocator))
    whole = place(*case, allocator_settings=allocator, every_step=True)
    check_places(whole)
    assert whole.allocated()[whole.starts[-1] :] == over.allocated()


@some_cases
@given(case=card_cases(), allocator=SETTINGS)
def test_any_training_on_a_card(case: Case, allocator: str) -> None:
    check_case(case, allocator)


@some_cases
@given(case=st.one_of(cases(), generation_cases()))
def test_anything_on_the_cpu(case: Case) -> None:
    check_case(case, "")
