"""Profiles from records: what is measured lies beside what is predicted, and damage is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.errors import MeasurementError
from memplan.estimate import estimate
from memplan.profiled import SHARES, PhaseTime, Times, course_of, curves_of, measured_side, predicted_side, times_of
from memplan.profiles import Record, profiles_folder, read
from memplan.verify import Verification

CPU = load_device("cpu")
GPT2 = load_model("gpt2", {"attention_dropout": 0})
RECORD = Path(profiles_folder()) / "cpu" / "gpt-like-naive-fp32-cd12b40e.json"

COURSE: dict[str, Any] = {
    "phases": [["forward", 0], ["backward", 1], ["end", 2]],
    "nanoseconds": [5, 9],
    "allocated_bytes": [10, 14, 12],
}
TIMES: dict[str, Any] = {
    "phases": [
        {"name": "forward", "seconds": [1.0, 3.0, 2.0], "flops": 4_000},
        {"name": "backward", "seconds": [2.0, 2.0, 2.0], "flops": 8_000},
        {"name": "optimizer_step", "seconds": [0.5, 0.5, 0.5], "flops": None},
    ],
    "tokens": 90,
    "conditions": "by hand",
    "peak_flops_per_second": 8_000.0,
    "checked_seconds": [],
}


def test_what_follows_from_times() -> None:
    times = times_of({"times": TIMES})
    assert times is not None
    assert [phase.median for phase in times.phases] == [2.0, 2.0, 0.5]
    assert times.seconds == 4.5 and times.tokens_per_second == 20.0
    assert times.flops == 12_000
    assert times.share_of_peak == pytest.approx(12_000 / 4.5 / 8_000)
    assert times.phases[1].flops_per_second == 4_000.0
    assert times.phases[2].flops_per_second is None
    assert replace(times, peak_flops_per_second=None).share_of_peak is None


def test_what_was_not_counted_is_not_made_up() -> None:
    times = Times((PhaseTime("forward", (0.0,), None),), 0, "by hand")
    assert (times.flops, times.share_of_peak, times.tokens_per_second) == (None, None, 0.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("phases", [["forward", 2], ["backward", 1]]),
        ("phases", [["forward", 3]]),
        ("phases", [["forward"]]),
        ("nanoseconds", [5]),
        ("allocated_bytes", [10, 14]),
        ("phases", None),
    ],
)
def test_a_damaged_course_is_named(key: str, value: Any) -> None:
    assert course_of({"memory_over_time": COURSE}) is not None
    with pytest.raises(MeasurementError, match="memory_over_time is damaged"):
        course_of({"memory_over_time": {**COURSE, key: value}})


@pytest.mark.parametrize("key", ["phases", "tokens", "conditions", "peak_flops_per_second", "checked_seconds"])
def test_damaged_times_are_named(key: str) -> None:
    with pytest.raises(MeasurementError, match="times are damaged"):
        times_of({"times": {name: value for name, value in TIMES.items() if name != key}})


def test_a_record_is_a_side() -> None:
    record = read(RECORD)
    side = measured_side({**record, "memory_over_time": COURSE, "times": TIMES})
    assert side.name == "naive" and not side.failure
    assert isinstance(side.verification, Verification) and side.verification.exact
    assert max(side.timeline.allocated()) == side.verification.peak.peak.measured
    assert side.course is not None and side.times is not None
    assert side.environment["torch"] == record["environment"]["torch"]
    bare = measured_side(record, "one")
    assert (bare.name, bare.course, bare.times) == ("one", None, None)


@pytest.mark.parametrize("outcome", ["out_of_memory", "timed_out", "killed", "failed"])
def test_a_run_that_did_not_end_is_predicted_and_says_so(outcome: str) -> None:
    record: Record = {**json.loads(RECORD.read_text()), "outcome": outcome}
    side = measured_side(record)
    assert side.failure == f"the run ended: {outcome.replace('_', ' ')}"
    assert side.verification is None and side.record is record
    assert max(side.timeline.allocated()) == side.estimate.peak.peak_allocated_bytes


def test_a_curve_has_its_points_where_the_model_goes() -> None:
    sides = [predicted_side(GPT2, TrainingRun(sequence_length=512, attention=kind), CPU, kind) for kind in KINDS]
    naive, flash = curves_of(sides)
    assert (naive.attention, naive.length_name) == ("naive", "sequence_length")
    assert [point.length for point in naive.points] == [64, 128, 256, 384, 512, 768, 1024]  # GPT-2 ends at 1,024
    for point in naive.points:
        run = TrainingRun(sequence_length=point.length, attention="naive")
        assert point.estimated == estimate(GPT2, run, CPU).peak.peak_allocated_bytes
        assert point.measured is None
    assert all(one.estimated >= other.estimated for one, other in zip(naive.points, flash.points, strict=True))
    assert len(SHARES) == 9


KINDS: tuple[Any, ...] = ("naive", "flash")


def test_a_curve_takes_the_measurements_of_its_own_runs() -> None:
    record = read(RECORD)
    side = measured_side(record)
    length = record["request"]["run"]["sequence_length"]
    longer = json.loads(json.dumps(record))
    longer["request"]["run"]["sequence_length"] = 2 * length
    stranger = json.loads(json.dumps(longer))
    stranger["request"]["run"]["optimizer"] = "sgd"
    stranger["phases"][0]["peak_allocated_bytes"] = 1
    (curve,) = curves_of([side], [longer, stranger, {**longer, "outcome": "killed"}])
    seen = {point.length: point.measured for point in curve.points if point.measured is not None}
    peak = max(phase["peak_allocated_bytes"] for phase in record["phases"])
    assert seen == {length: peak, 2 * length: peak}


def test_a_run_that_writes_runs_over_its_prompt() -> None:
    side = predicted_side(GPT2, InferenceRun(prompt_length=32, new_tokens=8, attention="flash"), CPU, "flash")
    (curve,) = curves_of([side])
    assert curve.length_name == "prompt_length" and 32 in [point.length for point in curve.points]
