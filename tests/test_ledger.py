"""Ledgers made by hand, whose peaks can be worked out on paper."""

from __future__ import annotations

import pytest

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.estimate import ledger_lines
from memplan.ledger import INITIAL, Allocation, Ledger, Moment
from memplan.ops.backend import Backend
from memplan.ops.tensor import empty
from memplan.ops.trace import Repeat, Trace


def block(size: int, component: str = "temporaries", copies: int = 1, operation: str = "op") -> Allocation:
    """An allocation of `size` bytes."""
    allocation = Allocation(size, operation, (size,), "uint8", "module", "forward", copies, 0)
    allocation.component = component
    return allocation


def ledger(*segments: tuple[str, int, list[tuple[Allocation, bool]]]) -> Ledger:
    """A closed ledger of these segments: phase, copies, events."""
    result = Ledger()
    for phase, copies, events in segments:
        result.enter(phase, copies)
        result.events.extend(events)
    result.close()
    return result


def sizes(moments: dict[str, tuple[Moment, Moment]]) -> dict[str, tuple[int, int]]:
    """Phase -> bytes at its peak and at its end."""
    return {phase: (peak.size, end.size) for phase, (peak, end) in moments.items()}


def nonzero(moment: Moment) -> dict[str, int]:
    return {component: size for component, size in moment.components.items() if size}


def test_an_empty_ledger() -> None:
    assert sizes(ledger(("forward", 1, [])).moments()) == {INITIAL: (0, 0), "forward": (0, 0)}


def test_births_and_deaths() -> None:
    weights, kept, scratch = block(100, "parameters"), block(30, "activations"), block(50)
    moments = ledger(
        (INITIAL, 1, [(weights, True)]),
        ("forward", 1, [(kept, True), (scratch, True), (scratch, False)]),
        ("backward", 1, [(kept, False)]),
    ).moments()
    assert sizes(moments) == {INITIAL: (100, 100), "forward": (180, 130), "backward": (130, 100)}
    assert nonzero(moments["forward"][0]) == {"parameters": 100, "activations": 30, "temporaries": 50}
    assert nonzero(moments["forward"][1]) == {"parameters": 100, "activations": 30}
    assert nonzero(moments["backward"][0]) == {"parameters": 100, "activations": 30}


def test_a_phase_that_only_frees_has_its_peak_where_it_begins() -> None:
    one, two = block(10), block(20)
    moments = ledger(
        ("forward", 1, [(one, True), (two, True)]), ("backward", 1, [(two, False), (one, False)])
    ).moments()
    peak, end = moments["backward"]
    assert (peak.size, end.size) == (30, 0)
    assert peak.event == 1  # nothing of the phase itself has happened yet


def test_of_equal_peaks_the_first_counts() -> None:
    """In one segment, among segments of a phase, and among passes."""
    first, second, third = block(7), block(7, "activations"), block(7, "gradients")
    moments = ledger(
        ("forward", 1, [(first, True), (first, False), (second, True), (second, False)]),
        ("forward", 5, [(third, True), (third, False)]),
    ).moments()
    peak, end = moments["forward"]
    assert (peak.size, peak.segment, peak.index, peak.event) == (7, 1, 0, 0)
    assert nonzero(peak) == {"temporaries": 7}
    assert end.size == 0


@pytest.mark.parametrize("copies", [1, 2, 80, 10**6])
def test_growing_copies_peak_in_the_last_pass(copies: int) -> None:
    """Each pass keeps 3 and has 10 more for a moment."""
    kept, scratch = block(3, "activations", copies), block(10, "temporaries", copies)
    moments = ledger(
        (INITIAL, 1, [(block(1000, "parameters"), True)]),
        ("forward", copies, [(kept, True), (scratch, True), (scratch, False)]),
    ).moments()
    peak, end = moments["forward"]
    assert (peak.size, peak.index, end.size) == (1000 + 3 * copies + 10, copies - 1, 1000 + 3 * copies)
    assert nonzero(peak) == {"parameters": 1000, "activations": 3 * copies, "temporaries": 10}
    assert nonzero(end) == {"parameters": 1000, "activations": 3 * copies}


@pytest.mark.parametrize("copies", [1, 2, 80, 10**6])
def test_shrinking_copies_peak_in_the_first_pass(copies: int) -> None:
    """Each pass has 4 for a moment, makes a gradient of 2 and frees an activation of 5."""
    kept, scratch, gradient = (
        block(5, "activations", copies), block(4, "temporaries", copies), block(2, "gradients", copies)
    )  # fmt: skip
    result = ledger(
        ("forward", copies, [(kept, True)]),
        ("backward", copies, [(scratch, True), (gradient, True), (scratch, False), (kept, False)]),
    )
    peak, end = result.moments()["backward"]
    assert (peak.size, peak.index, end.size) == (5 * copies + 6, 0, 2 * copies)
    assert nonzero(peak) == {"activations": 5 * copies, "temporaries": 4, "gradients": 2}
    assert nonzero(end) == {"gradients": 2 * copies}
    assert result.alive(peak) == {kept: copies, scratch: 1, gradient: 1}
    assert result.alive(end) == {gradient: copies}


def test_copies_without_a_net_peak_in_the_first_pass() -> None:
    scratch = block(9, copies=40)
    peak, end = ledger(("forward", 40, [(scratch, True), (scratch, False)])).moments()["forward"]
    assert (peak.size, peak.index, end.size) == (9, 0, 0)


def test_copies_equal_the_same_passes_written_out() -> None:
    """A segment of 6 copies, and 6 segments of one: same peaks, ends and components."""
    for grown, freed, scratch in ((3, 0, 10), (3, 8, 2), (5, 5, 7), (0, 4, 1)):
        composed, written = Ledger(), Ledger()
        for result, copies in ((composed, 6), (written, 1)):
            result.events.append((block(100, "inputs"), True))
            for _ in range(6 // copies):
                a, b, c = block(grown, "gradients"), block(freed, "inputs"), block(scratch)
                result.enter("backward", copies)
                result.events.extend([(c, True), (a, True), (c, False), (b, False)])
            result.close()
        for mine, other in zip(composed.moments()["backward"], written.moments()["backward"], strict=True):
            assert mine.size == other.size
            assert nonzero(mine) == nonzero(other)


def test_a_phase_that_comes_again_has_its_highest_peak_and_its_last_end() -> None:
    """Gradient accumulation: the second forward pass starts from gradients."""
    for first, second, peak in ((10, 4, 14), (25, 4, 25), (4, 10, 20), (20, 10, 20)):
        one, two, gradient = block(first), block(second), block(10, "gradients")
        moments = ledger(
            ("forward", 1, [(one, True), (one, False)]),
            ("backward", 1, [(gradient, True)]),
            ("forward", 1, [(two, True), (two, False)]),
            ("backward", 1, []),
        ).moments()
        assert sizes(moments)["forward"] == (peak, 10)
        assert sizes(moments)["backward"] == (10, 10)


def test_alive_tells_peak_from_end() -> None:
    weights, kept, scratch = block(100, "parameters"), block(30, "activations"), block(50)
    result = ledger(
        (INITIAL, 1, [(weights, True)]),
        ("forward", 1, [(kept, True), (scratch, True), (scratch, False)]),
        ("backward", 1, [(kept, False)]),
    )
    moments = result.moments()
    assert result.alive(moments["forward"][0]) == {weights: 1, kept: 1, scratch: 1}
    assert result.alive(moments["forward"][1]) == {weights: 1, kept: 1}
    assert result.alive(moments["backward"][1]) == {weights: 1}


def test_what_a_layer_frees_of_the_layer_before_is_counted_with_its_twin() -> None:
    """A middle layer (4 copies) frees the input that the layer before it made, and makes one for the next."""
    first, middle = block(8, "temporaries"), block(8, "temporaries", 4)
    result = ledger(
        ("forward", 1, [(first, True)]),
        ("forward", 4, [(middle, True), (first, False)]),
    )
    peak, end = result.moments()["forward"]
    assert (peak.size, end.size) == (16, 8)
    assert sum(allocation.size * count for allocation, count in result.alive(end).items()) == 8
    assert sum(allocation.size * count for allocation, count in result.alive(peak).items()) == 16


def test_births_are_told_in_order() -> None:
    one, two = block(1), block(2)
    result = ledger(("forward", 1, [(one, True), (two, True), (one, False)]), ("backward", 1, [(two, False)]))
    assert list(result.births()) == [one, two]


def test_components_follow_from_lifetimes() -> None:
    """Kept beyond its forward pass: activations. Gone within it, or born later: temporaries. What is known stays."""
    trace = Trace(Backend("cpu", 1))
    weight = empty(trace, (64,), "fp32", "parameter")
    assert weight.storage.allocation is not None
    weight.storage.allocation.component = "parameters"
    trace.enter_phase("forward")
    kept = empty(trace, (5,), "fp32", "kept")
    scratch = empty(trace, (7,), "fp32", "scratch")
    del scratch
    to_the_end = empty(trace, (1,), "fp32", "to the end")
    trace.enter_phase("loss")
    loss = empty(trace, (), "fp32", "loss")
    trace.enter_phase("backward")
    later = empty(trace, (9,), "bf16", "later")
    del kept, later, loss
    result = trace.close()
    assert {allocation.operation: allocation.component for allocation in result.births()} == {
        "parameter": "parameters", "kept": "activations", "scratch": "temporaries", "to the end": "activations",
        "loss": "activations", "later": "temporaries",
    }  # fmt: skip
    moments = result.moments()
    assert nonzero(moments["forward"][0]) == {"parameters": 256, "activations": 20, "temporaries": 28}
    assert sizes(moments)["backward"] == (256 + 20 + 4 + 4 + 18, 256 + 4)
    del weight, to_the_end  # after the ledger was closed nothing is recorded
    assert sizes(result.moments()) == sizes(moments)


def test_a_repeat_makes_a_segment_of_its_own() -> None:
    trace = Trace(Backend("cpu", 1))
    trace.enter_phase("forward")
    trace.enter_repeat(Repeat(1, 12))
    layer = empty(trace, (10,), "fp32", "layer")
    trace.enter_repeat(None)
    head = empty(trace, (3,), "fp32", "head")
    result = trace.close()
    assert [allocation.copies for allocation in result.births()] == [12, 1]
    assert sizes(result.moments())["forward"] == (12 * 40 + 12,) * 2
    del layer, head


def test_an_empty_tensor_allocates_nothing() -> None:
    trace = Trace(Backend("cpu", 1))
    nothing = empty(trace, (3, 0), "fp32", "nothing")
    del nothing
    assert trace.close().events == []


def test_a_formula_names_a_size_of_one_too() -> None:
    """With one sequence the reader still sees that more would cost more."""
    lines = ledger_lines(load_model("gpt2"), TrainingRun(sequence_length=64, attention="naive"), load_device("cpu"))
    shares = next(line for line in lines if line.operation == "aten::softmax")
    assert shares.formula == "micro_batch_size * num_attention_heads * sequence_length * sequence_length * 4 B"
