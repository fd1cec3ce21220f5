"""Records of runs on a card, made by hand: what the estimator says, and known offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import Estimate, estimate
from memplan.profiles import Record, make_record

MIB = 2**20

CARD = Device(
    name="h100-80gb",
    backend="cuda",
    capacity_bytes=85_027_979_264,
    description="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    multiprocessors=132,
)

MODEL = validate_model(
    Transformer(
        name="small",
        architecture="decoder",
        vocab_size=500,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_positions=1024,
    )
)

ENVIRONMENT = {
    "device": "h100-80gb",
    "card": "NVIDIA H100 80GB HBM3",
    "compute_capability": "9.0",
    "torch": "2.13.0+cu130",
    "driver": "580.159.04",
    "cuda_runtime": "13.0",
    "allocator_settings": "",
    "python": "3.11.7",
    "system": "Linux x86_64",
}


def run_of(**changes: Any) -> TrainingRun:
    """A small run, attention written out."""
    run = TrainingRun(micro_batch_size=2, sequence_length=32, attention="naive")
    return validate_run(MODEL, replace(run, **changes), CARD)


def card_record(
    *,
    model: Transformer = MODEL,
    device: Device = CARD,
    allocated: int = 0,
    reserved: int | None = 0,
    on_device: int | None = 0,
    outcome: str = "ran",
    environment: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A record that measured so many bytes more than is estimated: `allocated` in every phase, `reserved` and
    `on_device` of the whole step (None: not measured). `changes` are those of the run."""
    run = run_of(**changes)
    predicted = estimate(model, run, device)
    measured: dict[str, Any] = {"environment": {**ENVIRONMENT, **(environment or {})}, "outcome": outcome}
    if outcome == "ran":
        peaks = {phase.name: phase.peak_allocated_bytes + allocated for phase in predicted.phases}
        measured["sdpa_kernels"] = [] if predicted.run.attention == "naive" else [predicted.run.attention]
        measured["phases"] = [{"name": name, "peak_allocated_bytes": peak} for name, peak in peaks.items()]
        measured["tiers"] = {
            "allocated_bytes": max(peaks.values()),
            "reserved_bytes": _more(predicted.tiers.reserved_bytes, reserved),
            "device_bytes": _more(predicted.tiers.device_bytes, on_device),
            "context_bytes": None,
            "device_basis": "process",
        }
    return make_record(model, run, device, measured)


def _more(size: int | None, by: int | None) -> int | None:
    assert size is not None  # a card has every tier
    return None if by is None else size + by


def allocated_of(record: Record) -> int:
    """The measured allocated bytes."""
    return int(record["tiers"]["allocated_bytes"])


def residuals_of(expected: Estimate, measured: Mapping[str, Any]) -> dict[str, int]:
    """What differs between estimate and run, in bytes: `phase.peak`, `phase.end`, and each component at both."""
    differences: dict[str, int] = {}

    def compare(what: str, predicted: int, seen: int) -> None:
        if predicted != seen:
            differences[what] = predicted - seen

    assert [phase["name"] for phase in measured["phases"]] == [phase.name for phase in expected.phases]
    for phase, seen in zip(expected.phases, measured["phases"], strict=True):
        compare(f"{phase.name}.peak", phase.peak_allocated_bytes, seen["peak_allocated_bytes"])
        compare(f"{phase.name}.end", phase.end_allocated_bytes, seen["end_allocated_bytes"])
        for when, ours, theirs in (("peak", phase.at_peak, seen["at_peak"]), ("end", phase.at_end, seen["at_end"])):
            for component in sorted({*ours, *theirs}):
                compare(f"{phase.name}.{when}.{component}", ours.get(component, 0), theirs.get(component, 0))
    return differences
