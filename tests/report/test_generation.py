"""The text and the JSON of a run that writes: golden, from the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.estimate import Estimate, Interval, estimate, ledger_lines
from memplan.report.machine import estimate_to_dict
from memplan.report.terminal import render_estimate

GPT2 = load_model("gpt2")
RUN = InferenceRun(micro_batch_size=2, prompt_length=100, new_tokens=28, cache="paged", cache_dtype="int8")


BOUNDS = Interval((10**8, 10**9), (10**8, 10**9), (10**8, 10**9), "made by hand: what is recorded changes")


@pytest.fixture(scope="module")
def on_cpu() -> Estimate:
    return estimate(GPT2, RUN, load_device("cpu:2"))


def test_report_on_the_cpu(on_cpu: Estimate, golden: Any) -> None:
    golden("estimate_generate_cpu_80.txt", render_estimate(replace(on_cpu, interval=BOUNDS), width=80))


def test_report_of_an_encoder_says_nothing_of_writing(golden: Any) -> None:
    found = estimate(load_model("bert-base"), InferenceRun(prompt_length=64), load_device("cpu:2"))
    text = render_estimate(replace(found, interval=BOUNDS), width=80, top=1)
    golden("estimate_generate_encoder_80.txt", text)
    assert "new tokens" not in text and "cache" not in text.replace("kv cache", "")


def test_report_on_a_card_says_how_many_sequences_fit(golden: Any) -> None:
    run = InferenceRun(prompt_length=500, new_tokens=80, precision="bf16")
    found = replace(estimate(GPT2, run, load_device("a100-40gb")), largest_batch=321)
    golden("estimate_generate_card_80.txt", render_estimate(replace(found, interval=BOUNDS), width=80, top=2))
    assert estimate_to_dict(found)["largest_batch"] == 321


def test_the_json_of_other_runs_has_no_largest_batch(on_cpu: Estimate) -> None:
    document = estimate_to_dict(on_cpu)
    assert "largest_batch" not in document
    assert json.dumps(document)
    assert document["totals"]["kv_cache_bytes"] == on_cpu.phases[-1].at_end["kv_cache"]
    assert [phase["name"] for phase in document["phases"]] == ["prefill", "decode"]


def test_every_line_of_the_ledger_belongs_to_a_phase_that_a_reader_knows() -> None:
    lines = ledger_lines(GPT2, replace(RUN, cache="dynamic"), load_device("cpu:2"))
    assert {line.born for line in lines} == {"initial", "prefill", "decode"}
    assert all("skipped" not in (line.born, line.died) and "skipped" not in line.reason for line in lines)
    grown = [line.formula for line in lines if line.component == "kv_cache" and line.born == "decode"]
    assert any("(prompt_length + 27)" in formula for formula in grown)
