"""Profiles as text and Markdown: what was predicted, measured and timed stands beside each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.profiled import Course, PhaseTime, Profile, Side, Times, curves_of, measured_side, predicted_side
from memplan.profiles import Record, make_record
from memplan.report.profile import in_words, profile_to_markdown, render_profile

CPU = load_device("cpu")
GPT2 = load_model("gpt2", {"attention_dropout": 0})
ENVIRONMENT = {
    "device": "cpu", "threads": 2, "torch": "2.13.0+cpu", "python": "3.11.7", "system": "Linux x86_64", "onednn": False,
}  # fmt: skip
KINDS: tuple[Any, ...] = ("naive", "flash")


def seen(side: Side, off: int = 0) -> Record:
    """The record of a run that was as predicted, but for so many bytes in the highest phase."""
    phases = [
        {
            "name": phase.name,
            "peak_allocated_bytes": phase.peak_allocated_bytes + off * (phase is side.estimate.peak),
            "end_allocated_bytes": phase.end_allocated_bytes,
            "at_peak": phase.at_peak,
            "at_end": phase.at_end,
        }
        for phase in side.estimate.phases
    ]
    found: Any = side.estimate
    kernels = [] if found.run.attention == "naive" else ["flash"]
    return make_record(
        found.model, found.run, CPU, {"environment": ENVIRONMENT, "sdpa_kernels": kernels, "phases": phases}
    )


def training(off: int = 0, **changes: Any) -> Profile:
    sides = []
    for kind in KINDS:
        predicted = predicted_side(GPT2, TrainingRun(sequence_length=256, attention=kind), CPU, kind)
        phases = tuple(
            PhaseTime(phase.name, (0.5 + number, 0.25 + number, 1.0 + number), 10**10 * number or None)
            for number, phase in enumerate(predicted.estimate.phases)
        )
        times = Times(phases, 256, "3 runs behind one to warm up, by hand", **changes)
        sides.append(replace(measured_side(seen(predicted, off)), times=times))
    shorter = predicted_side(GPT2, TrainingRun(sequence_length=64, attention="naive"), CPU, "naive")
    return Profile(tuple(sides), curves_of(sides, [seen(shorter)]))


def test_two_runs_beside_each_other(golden: Any) -> None:
    profile = training()
    golden("profile_80.txt", render_profile(profile))
    golden("profile.md", profile_to_markdown(profile, title="gpt2"))


def test_what_differs_stands_out() -> None:
    profile = training(off=-4)
    words = in_words(profile.sides[0])
    assert not words.holds
    assert words.rows[-1][3] == "4"
    (memory,) = [text for label, text in words.sentences if label == "memory"]
    assert "the real run's" in memory and "the same" not in memory
    assert "\x1b[1;31m" in render_profile(profile, colour=True)
    assert "\x1b[1;31m" not in render_profile(training(), colour=True)


def test_the_share_of_what_a_card_can_do() -> None:
    (speed,) = [
        text for label, text in in_words(training(peak_flops_per_second=1e11).sides[0]).sentences if label == "speed"
    ]
    # 60 GFLOP in 0.5 + 1.5 + 2.5 + 3.5 seconds
    assert "32.0 tokens a second, 8.000 s, 60.0 GFLOP, 7.5 % of what the card can do" in speed


def test_why_to_check_is_cheaper_than_to_write() -> None:
    run = InferenceRun(prompt_length=32, new_tokens=8, attention="naive")
    side = predicted_side(GPT2, run, CPU, "naive")
    phases = (PhaseTime("prefill", (0.2,), 1), PhaseTime("decode", (1.4,), 1))
    words = in_words(replace(side, times=Times(phases, 40, "by hand", checked_seconds=(0.4,))))
    (writing,) = [text for label, text in words.sentences if label == "writing"]
    assert "8 tokens one by one take 200.0 ms each" in writing
    assert "takes 0.400 s; to write it took 1.600 s, 4.0 times as long" in writing


def test_what_was_not_measured_is_not_shown_as_if() -> None:
    side = predicted_side(
        GPT2, TrainingRun(sequence_length=64, attention="naive"), CPU, "naive", failure="it was killed"
    )
    words = in_words(side)
    assert {cell for row in words.rows for cell in row[2:]} == {"-"}
    assert ("not run", "it was killed") in words.sentences and not words.holds
    assert "real run" not in dict(words.sentences)


def test_a_card_has_its_tiers_and_its_fit() -> None:
    card = load_device("h100-80gb")
    run = TrainingRun(sequence_length=1024, attention="flash", precision="bf16")
    found = dict(in_words(predicted_side(load_model("llama-3-8b"), run, card, "flash")).sentences)
    assert "reserved" in found["tiers"] and "h100-80gb" in found["fit"]


def test_names_cannot_break_a_table() -> None:
    model = replace(GPT2, name="a|b <script> _x_")
    side = predicted_side(model, TrainingRun(sequence_length=64, attention="naive"), CPU, "naive")
    text = profile_to_markdown(Profile((side,)), title="t")
    assert "a\\|b \\<script\\> \\_x\\_" in text


@pytest.mark.parametrize("course", [None, Course((("forward", 0),), (), (5,))])
def test_a_course_changes_no_word(course: Course | None) -> None:
    profile = training()
    changed = Profile(tuple(replace(side, course=course) for side in profile.sides), profile.curves)
    assert render_profile(changed) == render_profile(profile)
