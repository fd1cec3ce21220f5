"""Steps replayed: by hand, against the ledger's own arithmetic, and with the caching allocator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.allocator import CachingAllocator, OutOfMemory, Settings
from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import PHASES
from memplan.expansion import expand
from memplan.ledger import INITIAL, Allocation, Ledger, Repeat
from memplan.ops.backend import Backend
from memplan.replay import MOST_STEPS, PhaseReplay, Replay, _Run, drive, replay
from memplan.transformer import training
from memplan.transformer.program import trace_training

from .strategies import Case, cases

EXAMPLES = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
BACKENDS = st.sampled_from([Backend("cpu", 2), Backend("cuda")])
MIB = 1 << 20


class Piece:
    """A block of exactly the size that was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = False


class ExactAllocator:
    """Gives every byte back at once; what is reserved is what is allocated."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.reserved = self.peak_allocated = self.peak_reserved = 0
        self.requests: list[int] = []

    def allocate(self, size: int) -> Piece:
        if self.capacity is not None and self.reserved + size > self.capacity:
            raise OutOfMemory(size, self.reserved, self.reserved, self.capacity)
        self.requests.append(size)
        self.reserved += size
        self.peak_allocated = max(self.peak_allocated, self.reserved)
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return Piece(size)

    def free(self, block: Any) -> None:
        assert not block.free
        block.free = True
        self.reserved -= block.size

    def reset_peaks(self) -> None:
        self.peak_allocated = self.peak_reserved = self.reserved


def block(size: int, component: str = "temporaries", operation: str = "op", module: str = "module") -> Allocation:
    allocation = Allocation(size, operation, (size,), "uint8", module, "", 1, 0)
    allocation.component = component
    return allocation


def ledger(*segments: tuple[str, list[tuple[Allocation, bool]]]) -> Ledger:
    result = Ledger()
    for phase, events in segments:
        result.enter(phase, 1)
        result.events += events
    result.close()
    return result


def small_ledger(scale: int = 1) -> Ledger:
    """Weights of 100, a state of 200, gradients of 100, 30 saved, 50 of scratch, a loss of 1; times `scale`."""
    weights, state = block(100 * scale, "parameters"), block(200 * scale, "optimizer_state", "state")
    saved, scratch = block(30 * scale, "activations"), block(50 * scale, operation="scratch")
    loss, gradient = block(scale, operation="loss"), block(100 * scale, "gradients", "gradient")
    return ledger(
        (INITIAL, [(weights, True), (state, True)]),
        ("zero_grad", []),
        ("forward", [(saved, True), (scratch, True), (scratch, False)]),
        ("loss", [(loss, True)]),
        ("backward", [(gradient, True), (saved, False)]),
        ("optimizer_step", []),
        ("end", []),
    )


def nonzero(components: dict[str, int]) -> dict[str, int]:
    return {component: size for component, size in components.items() if size}


def peaks(found: Replay) -> dict[str, tuple[int, int]]:
    return {name: (phase.peak_allocated, phase.end_allocated) for name, phase in found.phases.items()}


# ---- by hand


def test_the_first_step_makes_the_state() -> None:
    allocator = ExactAllocator()
    found = drive(expand(small_ledger()), allocator, steps=1)
    assert peaks(found) == {
        "zero_grad": (100, 100),
        "forward": (180, 130),
        "loss": (131, 131),
        "backward": (231, 201),
        "optimizer_step": (401, 401),
        "end": (401, 401),
    }
    assert allocator.requests == [100, 30, 50, 1, 100, 200]
    assert (found.steps, found.steady, found.peak_allocated) == (1, False, 401)
    assert nonzero(found.phases["backward"].at_peak) == {
        "parameters": 100, "activations": 30, "temporaries": 1, "gradients": 100,
    }  # fmt: skip
    step = found.phases["optimizer_step"]
    assert nonzero(step.at_end) == {"parameters": 100, "optimizer_state": 200, "temporaries": 1, "gradients": 100}
    assert step.peak_allocation is not None
    assert step.peak_allocation.operation == "state"


def test_later_steps_free_the_gradients_of_the_one_before() -> None:
    """They have no loss from before, but gradients until zero_grad."""
    allocator = ExactAllocator()
    found = drive(expand(small_ledger()), allocator)
    assert (found.steps, found.steady) == (3, True)
    assert peaks(found) == {
        "zero_grad": (400, 300),
        "forward": (380, 330),
        "loss": (331, 331),
        "backward": (431, 401),
        "optimizer_step": (401, 401),
        "end": (401, 401),
    }
    assert allocator.requests == [100, 30, 50, 1, 100, 200] + 2 * [30, 50, 1, 100]
    assert nonzero(found.phases["zero_grad"].at_peak) == {"parameters": 100, "optimizer_state": 200, "gradients": 100}
    assert nonzero(found.phases["zero_grad"].at_end) == {"parameters": 100, "optimizer_state": 200}
    assert found.phases["zero_grad"].peak_allocation is None
    assert found.phases["loss"].peak_requested == 331
    forward = found.phases["forward"]
    assert forward.peak_allocation is not None
    assert forward.peak_allocation.operation == "scratch"
    assert found.reserved_by_step == [401, 431, 431]


def test_the_caching_allocator_rounds_and_keeps() -> None:
    """In MiB. Step 1: weights 100, saved 30 and scratch 50 are segments of their own, the loss of 1 is in a small one
    of 2, the gradient gets a segment of 100 and the state one of 200: 482. Step 2: all of it is in the cache."""
    found = replay(small_ledger(MIB))
    assert (found.steps, found.steady) == (2, True)  # the third would begin as the second did
    assert found.reserved_by_step == [482 * MIB] * 2
    assert peaks(found)["backward"] == (431 * MIB, 401 * MIB)
    assert {phase.peak_reserved for phase in found.phases.values()} == {482 * MIB}


def test_blocks_count_whole() -> None:
    """1 byte takes 512 of a segment of 2 MiB. 15.5 MiB take all of a segment of 16: less than 1 MiB is not split off.
    5 MiB are split off a segment of 20."""
    tiny, slack, scratch = block(1, "inputs"), block(31 * MIB // 2, "activations"), block(5 * MIB)
    found = replay(ledger(("forward", [(tiny, True), (slack, True), (scratch, True), (scratch, False)])))
    phase = found.phases["forward"]
    assert phase.at_peak == {"inputs": 512, "activations": 16 * MIB, "temporaries": 5 * MIB}
    assert phase.at_end == {"inputs": 512, "activations": 16 * MIB, "temporaries": 0}
    assert phase.peak_allocated == 512 + 21 * MIB
    assert phase.peak_requested == 1 + 41 * MIB // 2
    assert phase.peak_reserved == phase.end_reserved == 38 * MIB


@pytest.mark.parametrize(
    ("capacity", "phase", "step", "operation", "requested"),
    [
        (99, INITIAL, 1, "op", 100),
        (179, "forward", 1, "scratch", 50),
        (400, "optimizer_step", 1, "state", 200),
        (430, "backward", 2, "gradient", 100),
    ],
)
def test_running_out_of_memory_is_a_result(
    capacity: int, phase: str, step: int, operation: str, requested: int
) -> None:
    found = drive(expand(small_ledger()), ExactAllocator(capacity))
    shortage = found.out_of_memory
    assert shortage is not None
    assert (shortage.phase, shortage.step, shortage.requested) == (phase, step, requested)
    assert (shortage.allocation.operation, shortage.module) == (operation, "module")
    assert not found.steady
    assert list(found.phases) == list(PHASE_ORDER[: PHASE_ORDER.index(phase) + 1])[1:]
    for each in found.phases.values():
        assert sum(each.at_peak.values()) == each.peak_allocated <= capacity
        assert sum(each.at_end.values()) == each.end_allocated
    assert found.peak_reserved <= capacity


PHASE_ORDER = (INITIAL, "zero_grad", "forward", "loss", "backward", "optimizer_step", "end")


def test_a_shortage_names_the_layer() -> None:
    stack = [Repeat(at, (1, 30, 1)[at], "decoder.layers", (0, 1, 31)[at]) for at in range(3)]
    result = Ledger()
    for repeat in stack:
        result.enter("forward", repeat.copies, repeat)
        result.events.append((block(10, module="decoder.layers.*.attention"), True))
    result.close()
    found = drive(expand(result), ExactAllocator(175))
    assert found.out_of_memory is not None
    assert (found.out_of_memory.layer, found.out_of_memory.module) == (17, "decoder.layers.17.attention")
    assert found.phases["forward"].end_allocated == 170
    assert drive(expand(result), ExactAllocator()).phases["forward"].peak_layer == 31


def test_as_many_steps_as_asked_for() -> None:
    expansion = expand(small_ledger())
    for steps in (1, 2, 5, 20):
        found = drive(expansion, ExactAllocator(), steps)
        assert (found.steps, found.steady) == (steps, steps > 2)


def test_what_never_settles_ends() -> None:
    class Growing(ExactAllocator):
        def allocate(self, size: int) -> Piece:
            return super().allocate(size + len(self.requests))

    found = drive(expand(small_ledger()), Growing())
    assert (found.steps, found.steady) == (MOST_STEPS, False)
    for phase in found.phases.values():
        assert sum(phase.at_peak.values()) == phase.peak_allocated


def test_it_is_not_steady_while_more_is_reserved() -> None:
    class Hoarding(ExactAllocator):
        def allocate(self, size: int) -> Piece:
            piece = super().allocate(size)
            self.peak_reserved = 1000 + min(len(self.requests), 14)
            return piece

    found = drive(expand(small_ledger()), Hoarding())
    assert (found.steps, found.steady) == (4, True)
    assert found.reserved_by_step == [1006, 1010, 1014, 1014]
    assert found.phases["backward"].peak_reserved == found.peak_reserved == 1014


def test_of_equal_peaks_the_first_counts() -> None:
    """Within a phase, and where it comes again."""
    one, two, three = block(7, "activations"), block(7, "inputs"), block(7, operation="third")
    low = block(6)
    phases = drive(
        expand(
            ledger(
                ("forward", [(one, True), (one, False), (two, True), (two, False)]),
                ("loss", [(low, True)]),
                ("forward", [(low, False), (three, True), (three, False)]),
            )
        ),
        ExactAllocator(),
    ).phases
    assert phases["forward"].peak_allocation is one
    assert nonzero(phases["forward"].at_peak) == {"activations": 7}
    assert (phases["loss"].end_allocated, phases["forward"].end_allocated) == (6, 0)


def test_an_empty_ledger() -> None:
    found = replay(ledger())
    assert (found.phases, found.peak_reserved, found.out_of_memory) == ({}, 0, None)


# ---- laws


def same(one: PhaseReplay, other: PhaseReplay) -> bool:
    """Of two traces of one model: the allocations that make the peak are not the same objects, but made alike."""
    for name in PhaseReplay.__slots__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, Allocation) and isinstance(right, Allocation):
            left, right = (left.operation, left.module, left.size), (right.operation, right.module, right.size)
        if left != right:
            return False
    return True


def assert_same(one: Replay, other: Replay) -> None:
    assert one.phases.keys() == other.phases.keys()
    for name in one.phases:
        assert same(one.phases[name], other.phases[name]), name
    for name in ("peak_allocated", "peak_reserved", "reserved_by_step", "steady", "steps"):
        assert getattr(one, name) == getattr(other, name)
    assert (one.out_of_memory is None) == (other.out_of_memory is None)
    if one.out_of_memory is not None and other.out_of_memory is not None:
        for name in ("phase", "step", "requested", "module"):
            assert getattr(one.out_of_memory, name) == getattr(other.out_of_memory, name)


@EXAMPLES
@given(case=cases(most_layers=7), backend=BACKENDS, every_layer=st.booleans())
def test_with_exact_blocks_the_steady_step_is_the_ledger(case: Case, backend: Backend, every_layer: bool) -> None:
    """Peaks, ends, components, and the allocation that makes each peak."""
    traced = trace_training(case.model, case.run, backend, every_layer)
    found = drive(expand(traced), ExactAllocator())
    assert found.steady
    for name, (peak, end) in traced.moments().items():
        if name in (INITIAL, "zero_grad"):  # the ledger of one step has no gradients from before
            continue
        phase = found.phases[name]
        assert (name, phase.peak_allocated, phase.end_allocated) == (name, peak.size, end.size)
        assert phase.peak_requested == phase.peak_allocated
        assert nonzero(phase.at_peak) == nonzero(peak.components)
        assert nonzero(phase.at_end) == nonzero(end.components)
        grows = peak.event >= traced.segments[peak.segment].start
        assert phase.peak_allocation is (traced.events[peak.event][0] if grows else None)
    before = found.phases["zero_grad"]
    assert before.peak_allocated - before.end_allocated == before.at_peak["gradients"]
    assert before.at_peak["gradients"] == found.phases["optimizer_step"].at_end["gradients"]
    assert before.end_allocated == traced.moments()[INITIAL][1].size


@EXAMPLES
@given(
    case=cases(most_layers=7),
    backend=BACKENDS,
    widths=st.sampled_from([1, 64, 1024]),
    steps=st.sampled_from([None, 1, 2, 4]),
    expandable=st.booleans(),
    kept_back=st.sampled_from([None, 0.3, 0.9, 0.999]),
)
def test_components_add_up_to_what_the_allocator_counts(
    case: Case, backend: Backend, widths: int, steps: int | None, expandable: bool, kept_back: float | None
) -> None:
    """Composed or not, with or without enough memory; `widths` makes tensors large enough for all size classes."""
    model = replace(case.model, intermediate_size=case.model.intermediate_size * widths)
    traced = [trace_training(model, case.run, backend, every_layer) for every_layer in (False, True)]
    options = Settings(expandable_segments=expandable)
    capacity = None if kept_back is None else int(replay(traced[0], options).peak_reserved * kept_back)
    found, other = (replay(each, options, capacity, steps) for each in traced)
    assert_same(found, other)
    assert found.steps == steps or steps is None or found.out_of_memory is not None
    for phase in found.phases.values():
        assert sum(phase.at_peak.values()) == phase.peak_allocated
        assert sum(phase.at_end.values()) == phase.end_allocated
        assert min(*phase.at_peak.values(), *phase.at_end.values()) >= 0
        assert phase.peak_requested <= phase.peak_allocated <= phase.peak_reserved <= found.peak_reserved
        assert phase.end_allocated <= phase.peak_allocated
    assert capacity is None or found.peak_reserved <= capacity
    run = _Run(expand(traced[0]), CachingAllocator(options, capacity))
    if run.begin():
        while run.result.steps < found.steps:
            run.step()
        counted: dict[str, int] = {}
        for (name, _), (peak, _, _) in zip(run.now.phases, run.marks, strict=False):
            counted[name] = max(peak, counted.get(name, 0))
        assert counted == {name: phase.peak_allocated for name, phase in found.phases.items()}


@EXAMPLES
@given(case=cases(most_layers=5), micro_batches=st.integers(3, 4))
def test_more_micro_batches_than_the_ledger_holds(case: Case, micro_batches: int) -> None:
    run = replace(case.run, gradient_accumulation_steps=micro_batches)
    composed = trace_training(case.model, run, Backend("cuda"))
    with patch.object(training, "min", lambda wanted, limit: wanted, create=True):
        full = trace_training(case.model, run, Backend("cuda"))
    full.micro_batches = 1
    assert_same(replay(composed), replay(full))


def llama() -> Ledger:
    model = validate_model(load_model("llama-3-8b"))
    run = TrainingRun(sequence_length=4096, precision="bf16", attention="flash")
    return trace_training(model, validate_run(model, run, load_device("h100-80gb")), Backend("cuda"))


def test_the_same_ledger_gives_the_same_bytes() -> None:
    traced = llama()
    assert_same(replay(traced), replay(traced))
    assert_same(replay(traced), replay(llama()))


def test_the_step_that_just_fits() -> None:
    """What was reserved is enough; with half of it the memory runs out, in a module that has a name."""
    traced = llama()
    free = replay(traced)
    assert_same(replay(traced, capacity=free.peak_reserved), free)
    assert free.peak_reserved >= free.peak_allocated
    short = replay(traced, capacity=free.peak_reserved // 2).out_of_memory
    assert short is not None
    assert (short.step, short.phase) in [(1, phase) for phase in PHASES]
    assert "*" not in short.module


@EXAMPLES
@given(
    case=cases(most_layers=4),
    form=st.sampled_from([Settings(), Settings(expandable_segments=True), Settings(ties="address")]),
    steps=st.sampled_from([None, 4]),
    part=st.sampled_from([0.0, 0.9, 1.0]),
)
def test_a_step_that_would_be_the_same_again_need_not_be_run(
    case: Case, form: Settings, steps: int | None, part: float
) -> None:
    """With and without it everything that is said of the last step is the same, short of memory or not."""
    step = expand(trace_training(case.model, replace(case.run, optimizer_implementation="for-loop"), Backend("cuda")))
    every = drive(step, CachingAllocator(form), 6)
    capacity = int(every.peak_reserved * part) or None
    every = drive(step, CachingAllocator(form, capacity), steps or 6)
    allocator = CachingAllocator(form, capacity)
    found = drive(step, allocator, steps, allocator.state)
    assert (found.out_of_memory is None) == (every.out_of_memory is None)
    if every.out_of_memory is None and (steps or found.steady):
        assert told(found) == told(every)
    if steps:
        assert (found.steps, found.reserved_by_step) == (every.steps, every.reserved_by_step)


def told(replayed: Replay) -> dict[str, object]:
    phases = {name: [getattr(phase, each) for each in phase.__slots__] for name, phase in replayed.phases.items()}
    return {**phases, "most": (replayed.peak_allocated, replayed.peak_reserved)}
