"""Estimates beside real runs as text and JSON: a run on a card, whose components are not known and whose tiers are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from memplan.config.device import Device
from memplan.estimate import Estimate
from memplan.profiles import Record
from memplan.report.verification import percent, render_suite, render_verification, verifications_to_json
from memplan.verify import PhaseVerification, Residual, Verification

MIB = 2**20


def on_h100(estimate: Estimate, allocated: int = 0, kernels: list[str] | None = None) -> Verification:
    """A run that measured `allocated` bytes less than was estimated, and 1 % more reserved."""
    run = replace(estimate.run, attention="naive")
    device = Device(name="h100-80gb", backend="cuda", capacity_bytes=2**36, compute_capability="9.0")
    phases = tuple(
        PhaseVerification(
            phase.name, Residual(phase.peak_allocated_bytes, phase.peak_allocated_bytes - allocated), None, None, {}, {}
        )
        for phase in estimate.phases
    )
    peak = estimate.peak.peak_allocated_bytes
    tiers = {
        "allocated": Residual(peak, peak - allocated),
        "reserved": Residual(4_000 * MIB, 4_040 * MIB),
        "device": Residual(4_500 * MIB, 4_540 * MIB),
    }
    record: Record = {
        "request": {"device": {"name": "h100-80gb"}},
        "environment": {
            "torch": "2.13.0+cu130",
            "python": "3.11.7",
            "system": "Linux x86_64",
            "card": "NVIDIA H100 80GB HBM3",
            "driver": "580.159.04",
            "cuda_runtime": "13.0",
            "allocator_settings": "expandable_segments:True",
        },
        "sdpa_kernels": [] if kernels is None else kernels,
    }
    return Verification(replace(estimate, run=run, device=device), record, phases, tiers)


def test_report_of_a_run_on_a_card(on_cpu: Estimate, golden: Any) -> None:
    golden("verification_card_80.txt", render_verification(on_h100(on_cpu, allocated=512)))


def test_a_card_holds_within_its_tolerances(on_cpu: Estimate) -> None:
    peak = on_cpu.peak.peak_allocated_bytes
    within, beyond = on_h100(on_cpu, allocated=512), on_h100(on_cpu, allocated=peak // 400)
    assert within.holds and not within.exact
    assert not beyond.holds
    assert "within the tolerances: allocated +1.6e-05 %, reserved -0.990 %" in render_verification(within, width=200)
    assert "differs: the worst residual" in render_verification(beyond)
    assert json.loads(verifications_to_json([within], []))["verdict"] == "within_tolerance"
    assert json.loads(verifications_to_json([within, beyond], []))["verdict"] == "differs"
    assert json.loads(verifications_to_json([within], [("gpt2", "killed")]))["verdict"] == "differs"


def test_a_kernel_that_is_not_known_is_no_difference(on_cpu: Estimate) -> None:
    verification = on_h100(on_cpu)
    unknown = replace(verification, record={**verification.record, "sdpa_kernels": None})
    assert unknown.holds
    assert not on_h100(on_cpu, kernels=["math"]).holds
    assert "PyTorch ran the attention kernel math, not none" in render_suite([on_h100(on_cpu, kernels=["math"])], [])


def test_json_has_the_tiers_and_no_end_where_none_was_measured(on_cpu: Estimate) -> None:
    (result,) = json.loads(verifications_to_json([on_h100(on_cpu)], []))["results"]
    assert result["tiers"]["reserved"]["residual_bytes"] == -40 * MIB
    assert [phase["end"] for phase in result["phases"]] == [None] * 4
    assert [phase["at_peak"] for phase in result["phases"]] == [{}] * 4


@pytest.mark.parametrize(
    ("error", "says"),
    [(0.0, "0"), (0.0015, "+0.150 %"), (-0.02, "-2.000 %"), (1e-9, "+1.0e-07 %"), (-1e-5, "-1.0e-03 %")],
)
def test_an_error_is_never_rounded_to_nothing(error: float, says: str) -> None:
    assert percent(error) == says
