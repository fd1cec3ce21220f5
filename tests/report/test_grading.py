"""The report of a grading: golden text and JSON of one made by hand, its sums, its width."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from memplan.config.device import Device
from memplan.estimate import Estimate
from memplan.graded import Grade
from memplan.grading import Coverage, Grading, Miss, Summary
from memplan.profiles import Record
from memplan.promises import Check
from memplan.report.grading import grading_to_json, render_grading
from memplan.verify import PhaseVerification, Residual, Verification

GIB = 2**30
CARD = Device(name="h100-80gb", backend="cuda", capacity_bytes=GIB, compute_capability="9.0")


def record_of(device: str, **more: Any) -> Record:
    return {"request": {"device": {"name": device}}, "environment": {"torch": "2.13.0"}, "sdpa_kernels": [], **more}


@pytest.fixture
def grading(on_cpu: Estimate) -> Grading:
    """One exact run on the CPU, one on a card that is off and ran another kernel, one that ran out, two that broke."""
    peak = on_cpu.peak.peak_allocated_bytes
    naive = replace(on_cpu, run=replace(on_cpu.run, attention="naive"))
    on_card = replace(naive, device=CARD)
    tiers = {"allocated": Residual(peak + 512, peak), "reserved": Residual(peak, peak * 2)}
    phase = PhaseVerification("forward", Residual(peak, peak), None, None, {}, {})
    ran = record_of("h100-80gb", sdpa_kernels=["math"])
    out = record_of("h100-80gb", outcome="out_of_memory")
    return Grading(
        grades=(
            Grade(
                "cpu/gpt2.json",
                record_of("cpu"),
                naive,
                Verification(naive, record_of("cpu"), (phase,), {"allocated": Residual(peak, peak)}),
            ),
            Grade("h100-80gb/gpt2.json", ran, on_card, Verification(on_card, ran, (phase,), tiers)),
            Grade("h100-80gb/gpt2-large.json", out, on_card, None),
        ),
        ungraded={"timed_out": 1, "killed": 1},
        problems=(("cpu/a.json", "cannot read the record cpu/a.json: it is empty"),),
        summaries=(
            Summary("allocated", "", "all", 2, 1, 256 / peak, 512 / peak),
            Summary("allocated", "phase", "optimizer_step", 2, 2, 0.0, 0.0),
            Summary("allocated", "attention", "naive", 2, 1, 256 / peak, 512 / peak),
            Summary("reserved", "", "all", 1, 0, -0.5, -0.5),
            Summary("reserved", "device", "h100-80gb", 1, 0, -0.5, -0.5),
        ),
        misses=(
            Miss("h100-80gb/gpt2.json", "reserved tier", tiers["reserved"]),
            Miss("h100-80gb/gpt2.json", "allocated tier", tiers["allocated"]),
        ),
        unforeseen=(
            Grade(
                "h100-80gb/gpt2-medium.json", out, replace(on_card, device=replace(CARD, capacity_bytes=2**40)), None
            ),
        ),
        checks=(
            Check("cpu: 0 bytes off in every figure", 1, 1, 100),
            Check("cuda: reserved within 1 %", 18, 19, 95),
            Check("cuda: reserved within 3 %", 19, 20, 100),
            Check("the largest micro-batch that fits is predicted", 9, 10, 90),
        ),
        coverage=(Coverage("allocated", 1_204, 1_205), Coverage("reserved", 0, 1)),
        residuals=(),
    )


@pytest.mark.parametrize("width", [80, 120])
def test_report(grading: Grading, golden: Any, width: int) -> None:
    golden(f"grading_{width}.txt", render_grading(grading, width=width))


def test_json(grading: Grading, golden: Any, keeps_to_schema: Any) -> None:
    golden("grading.json", grading_to_json(grading))
    keeps_to_schema("grading", json.loads(grading_to_json(grading)))


def test_paragraphs_keep_to_the_width(grading: Grading) -> None:
    text = render_grading(grading, width=75)
    assert max(map(len, text.splitlines())) <= 75
    assert text.isascii()


def test_limit_says_how_many_of_the_worst(grading: Grading) -> None:
    text = render_grading(grading, limit=1)
    assert "The worst 1 of 2 figures" in text
    assert "reserved tier:" in text and "allocated tier:" not in text
    assert len(json.loads(grading_to_json(grading, limit=1))["worst"]) == 1


def test_an_error_is_never_rounded_to_nothing(grading: Grading) -> None:
    row = next(line for line in render_grading(grading).splitlines() if line.startswith("attention naive"))
    assert row.split()[-2:] == ["+1.6e-05", "%"]


def test_colour_only_where_it_is_asked_for(grading: Grading) -> None:
    coloured = render_grading(grading, colour=True)
    assert "\x1b[1;31mundecided" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_grading(grading)


@pytest.mark.parametrize(
    ("problems", "holding", "verdict"),
    [((), 20, "holds"), ((), 19, "differs"), ((("a.json", "empty"),), 20, "undecided")],
)
def test_the_verdict(grading: Grading, problems: Any, holding: int, verdict: str) -> None:
    changed = replace(grading, problems=problems, checks=(Check("all", holding, 20, 100),))
    assert json.loads(grading_to_json(changed))["verdict"] == verdict
    says = {"holds": "within the tolerances", "differs": "does not hold: all", "undecided": "undecided: 1"}[verdict]
    assert f"verdict:  {says}" in render_grading(changed)
