"""A timeline says what the estimate says: peaks, ends and components of every phase, with each tensor named."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.errors import NotModelledError
from memplan.estimate import Estimate, estimate
from memplan.timeline import Timeline, timeline

from .strategies import Case, cases

CPU = load_device("cpu")


def components(over: Timeline, event: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for number in over.alive(event):
        tensor = over.tensors[number]
        found[tensor.component] = found.get(tensor.component, 0) + tensor.size
    return found


def check(over: Timeline, expected: Estimate) -> None:
    line = over.allocated()
    assert min(line) >= 0 and len(line) == len(over.events) + 1
    peaks: dict[str, int] = {}
    for name, start, stop in over.spans:
        peaks[name] = max(peaks.get(name, 0), *line[start : stop + 1])
    assert {phase.name: phase.peak_allocated_bytes for phase in expected.phases} == {
        phase.name: peaks[phase.name] for phase in expected.phases
    }
    at = over.peak()
    assert line[at + 1] == expected.peak.peak_allocated_bytes
    assert components(over, at) == {name: size for name, size in expected.at_peak.items() if size}
    ends = {name: stop for name, _, stop in over.spans}
    for phase in expected.phases:
        held = {name: size for name, size in phase.at_end.items() if size}
        assert components(over, ends[phase.name] - 1) == held, phase.name


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_step_over_time_is_the_estimate(case: Case) -> None:
    try:
        over = timeline(*case)
    except NotModelledError as error:
        assume("cannot tell which layer's" not in error.message)
        raise
    check(over, estimate(*case))


@pytest.mark.parametrize(
    ("model", "run"),
    [
        ("gpt2", TrainingRun(sequence_length=64, attention="naive", gradient_accumulation_steps=4)),
        ("llama-3.2-1b", TrainingRun(sequence_length=64, attention="flash", precision="bf16", recompute="full")),
        ("t5-base", TrainingRun(source_length=30, target_length=20, attention="naive")),
        ("gpt2", InferenceRun(prompt_length=16, new_tokens=4, attention="flash")),
    ],
)
def test_presets_over_time(model: str, run: Run) -> None:
    subject = load_model(model)
    check(timeline(subject, run, CPU), estimate(subject, run, CPU))


def test_every_layer_has_its_own_names() -> None:
    over = timeline(load_model("gpt2"), TrainingRun(sequence_length=64, attention="naive"), CPU)
    scores = [each for each in over.tensors if each.operation == "aten::softmax"]
    assert [each.module for each in scores] == [f"decoder.layers.{layer}.attention" for layer in range(12)]
    assert scores[3].title == "decoder.layers.3.attention aten::softmax [1, 12, 64, 64] fp32"
    assert scores[3].size == 12 * 64 * 64 * 4
    weights = {each.module for each in over.tensors if each.component == "parameters"}
    assert {f"decoder.layers.{layer}.attention.output.weight" for layer in range(12)} <= weights
    assert not any("*" in each.module for each in over.tensors)


def test_a_step_begins_with_the_gradients_of_the_one_before() -> None:
    over = timeline(load_model("gpt2"), TrainingRun(sequence_length=64, attention="naive"), CPU)
    (name, start, stop), *_ = over.spans
    freed = [over.tensors[~event] for event in over.events[start:stop]]
    assert name == "zero_grad" and {each.component for each in freed} == {"gradients"}
    assert sum(each.size for each in freed) == 124_439_808 * 4
    loss = 4  # held until the step returns
    assert over.allocated()[0] + loss == over.allocated()[-1]
