"""Runs profiled for real: the line over time, the clock, and the operations that are counted."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.config.inference import InferenceRun  # noqa: E402
from memplan.config.library.model import LibraryModel  # noqa: E402
from memplan.config.model import Transformer  # noqa: E402
from memplan.config.run import TrainingRun  # noqa: E402
from memplan.config.runs import Run  # noqa: E402
from memplan.config.validate import validate_model, validate_run  # noqa: E402
from memplan.measure.course import course, course_of_history  # noqa: E402
from memplan.measure.probes import MemoryEvent  # noqa: E402
from memplan.measure.profiling import profile_on_cpu  # noqa: E402
from memplan.measure.suites.library import small_models  # noqa: E402
from memplan.measure.timing import Clock, Timed, times  # noqa: E402
from memplan.profiled import Side, course_of, measured_side, times_of  # noqa: E402
from memplan.profiles import make_record  # noqa: E402

CPU = load_device("cpu")
TINY = validate_model(
    Transformer(
        name="tiny",
        architecture="decoder",
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=50,
        max_positions=64,
    )
)


def profiled(model: Transformer | LibraryModel, run: Run, runs: int = 1) -> Side:
    checked = validate_run(model, run, CPU)
    return measured_side(make_record(model, checked, CPU, profile_on_cpu(model, checked, CPU, runs)))


def behind_births(line: list[int]) -> list[tuple[int, int]]:
    """What is alive behind each birth, and which event that is."""
    return [(event, now) for event, (before, now) in enumerate(pairwise(line)) if now > before]


SUBJECTS: dict[str, tuple[Any, Run]] = {
    "naive": (TINY, TrainingRun(sequence_length=16, attention="naive")),
    "flash": (TINY, TrainingRun(sequence_length=16, attention="flash", micro_batch_size=2)),
    "accumulation": (TINY, TrainingRun(sequence_length=16, attention="naive", gradient_accumulation_steps=3)),
    "recompute": (TINY, TrainingRun(sequence_length=16, attention="naive", recompute="full")),
    "writing": (TINY, InferenceRun(prompt_length=8, new_tokens=5, attention="naive")),
    "reading": (TINY, InferenceRun(prompt_length=8, new_tokens=0, attention="flash")),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_line_of_a_run_is_the_line_that_was_predicted(name: str) -> None:
    side = profiled(*SUBJECTS[name], runs=0)
    seen, record = side.course, side.record
    assert seen is not None and record is not None and side.times is None
    assert side.verification is not None and side.verification.holds
    assert len(seen.allocated_bytes) == len(seen.nanoseconds) + 1
    assert list(seen.nanoseconds) == sorted(seen.nanoseconds)
    # What a record says of each phase is read off the same events.
    starts = [start for _, start in seen.phases] + [len(seen.nanoseconds)]
    peaks: dict[str, int] = {}
    ends: dict[str, int] = {}
    for (phase, start), stop in zip(seen.phases, starts[1:], strict=True):
        peaks[phase] = max(peaks.get(phase, 0), *seen.allocated_bytes[start : stop + 1])
        ends[phase] = seen.allocated_bytes[stop]
    for phase in record["phases"]:
        assert phase["peak_allocated_bytes"] == peaks[phase["name"]]
        assert phase["end_allocated_bytes"] == ends[phase["name"]]
    if isinstance(side.estimate.run, TrainingRun):
        # Event for event, in zero_grad too. A recomputation ends in an exception, which lets go of its locals in an
        # order of its own: there what is alive behind each birth is compared.
        line, measured = side.timeline.allocated(), list(seen.allocated_bytes)
        assert side.timeline.phases == seen.phases
        assert behind_births(line) == behind_births(measured)
        assert line == measured or side.estimate.run.recompute == "full"


def test_a_model_of_the_library_over_time() -> None:
    model = next(each for each in small_models().values() if each.model_type == "llama")
    side = profiled(model, TrainingRun(sequence_length=8, attention="naive"))
    assert side.course is not None and side.verification is not None and side.verification.holds
    assert max(side.course.allocated_bytes) == side.estimate.peak.peak_allocated_bytes
    writing = profiled(model, InferenceRun(prompt_length=6, new_tokens=4, attention="naive"))
    assert writing.course is not None and writing.times is not None
    assert [phase.name for phase in writing.times.phases] == ["prefill", "decode"]
    assert len(writing.times.checked_seconds) == len(writing.times.phases[0].seconds) >= 1


def products(run: TrainingRun) -> tuple[int, int]:
    """Operations of the tiny model's matrix products in one forward pass: of weights, and of attention."""
    tokens = run.micro_batch_size * run.sequence_length
    width, layers = TINY.hidden_size, TINY.num_layers
    weights = layers * (4 * width * width + 2 * width * TINY.intermediate_size) + width * TINY.vocab_size
    return 2 * tokens * weights, layers * 4 * tokens * run.sequence_length * width


@pytest.mark.parametrize(
    ("attention", "recompute", "of_weights", "of_attention"),
    [("naive", "none", 2, 2.0), ("flash", "none", 2, 2.5), ("naive", "full", 2, 2.0)],
)
def test_operations_are_those_of_the_products(
    attention: Any, recompute: Any, of_weights: int, of_attention: float
) -> None:
    """A backward pass has two products for each of the forward pass; flash makes the scores again. What is recomputed
    is a forward pass more, but for the head."""
    run = TrainingRun(sequence_length=16, micro_batch_size=2, attention=attention, recompute=recompute)
    side = profiled(TINY, run)
    assert side.times is not None
    weights, scores = products(run)
    counted = {phase.name: phase.flops for phase in side.times.phases}
    assert counted["forward"] == weights + scores
    backward = of_weights * weights + of_attention * scores
    if recompute == "full":
        head = TINY.hidden_size * TINY.vocab_size
        # The last product of each layer saves what is there already: making it again stops before it.
        last = TINY.num_layers * TINY.hidden_size * TINY.intermediate_size
        backward += weights + scores - 2 * 32 * (head + last)
    assert counted["backward"] == backward
    assert side.times.tokens == 32 and side.times.flops == sum(counted.values())  # type: ignore[arg-type]
    assert counted["optimizer_step"] == counted["loss"] == 0


def test_every_phase_is_timed_as_often_as_asked_for() -> None:
    asked: list[int] = []

    def run(mark: Any) -> None:
        asked.append(1)
        for phase in ("forward", "backward", "forward", "end"):
            mark(phase)

    found = times(Timed(run, 8), CPU, "fp32", 2)
    assert [phase["name"] for phase in found["phases"]] == ["forward", "backward"]
    count = len(found["phases"][0]["seconds"])
    assert count >= 2 and len(asked) == count + 1  # one to warm up, in which operations are counted
    assert found["tokens"] == 8 and found["peak_flops_per_second"] is None and found["checked_seconds"] == []
    assert f"{count} runs" in found["conditions"]
    assert times_of({"times": found}) is not None


def test_a_clock_adds_up_a_phase_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 7.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock(lambda: None)
    for phase in ("forward", "backward", "held", "forward", "end"):
        clock.mark(phase)
    assert clock.seconds == {"forward": 5.0, "backward": 2.0}


def test_a_line_by_hand() -> None:
    events = [(1, 100, 7), (2, 50, 8), (4, 10, 9), (5, -100, 7), (6, -99, 3), (9, 5, 1)]
    found = course([MemoryEvent(*event, ()) for event in events], [(3, "forward"), (5, "loss"), (8, "end")])
    assert found == {
        "phases": [["forward", 0], ["loss", 1], ["end", 2]],
        "nanoseconds": [1, 2],
        "allocated_bytes": [150, 160, 60],
    }
    assert course_of({"memory_over_time": found}) is not None


def test_a_line_of_a_cards_history() -> None:
    actions = [("alloc", 1, 512), ("alloc", 2, 100), ("segment_alloc", 9, 2**21), ("free_requested", 2, 100)]
    actions += [("free_completed", 2, 100), ("alloc", 3, 7), ("free_requested", 1, 512), ("alloc", 4, 9)]
    trace = [{"action": action, "addr": address, "size": size} for action, address, size in actions]
    marks = [[0, "build", 0], [1, "forward", 1], [2, "forward", 2], [2, "backward", 3], [2, "end", 4]]
    found = course_of_history({"device_traces": [trace], "marks": marks}, 2)
    assert found["phases"] == [["forward", 0], ["backward", 2], ["end", 3]]
    assert found["allocated_bytes"] == [512, 519, 7, 16]


def test_the_longer_takes_more_time_and_operations() -> None:
    short, long = (
        profiled(replace(TINY, max_positions=512), TrainingRun(sequence_length=length, attention="naive"))
        for length in (16, 512)
    )
    assert short.times is not None and long.times is not None
    assert short.times.flops and long.times.flops and long.times.flops > 32 * short.times.flops
    assert long.times.seconds > short.times.seconds
