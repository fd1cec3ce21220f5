"""Estimates made by hand: reporters are tested on records, not on the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.estimate import COMPONENTS, Estimate, Fit, Interval, LedgerLine, PhaseEstimate, Tiers, Totals

MIB = 2**20
PARAMETERS = 124_439_808


def components(**sizes: int) -> dict[str, int]:
    """Every component in its order; 0 where it is not named."""
    assert sizes.keys() <= set(COMPONENTS)
    return {name: sizes.get(name, 0) for name in COMPONENTS}


def phase(name: str, at_peak: dict[str, int], at_end: dict[str, int], module: str, operation: str) -> PhaseEstimate:
    return PhaseEstimate(
        name=name,
        peak_allocated_bytes=sum(at_peak.values()),
        end_allocated_bytes=sum(at_end.values()),
        at_peak=at_peak,
        at_end=at_end,
        peak_module=module,
        peak_operation=operation,
    )


@pytest.fixture
def ledger() -> list[LedgerLine]:
    return [
        LedgerLine(
            size=50257 * 768 * 4,
            copies=1,
            component="parameters",
            born="initial",
            died="",
            module="embeddings.tokens",
            operation="aten::empty",
            formula="vocab_size * hidden_size * 4 B",
            reason="a parameter",
        ),
        LedgerLine(
            size=48 * MIB,
            copies=12,
            component="activations",
            born="forward",
            died="backward",
            module="decoder.layers.*.attention",
            operation="aten::softmax",
            formula="batch * heads * query_length * key_length * 4 B",
            reason="softmax saves its output for its backward pass",
        ),
        LedgerLine(
            size=8,
            copies=1,
            component="temporaries",
            born="loss",
            died="loss",
            module="",
            operation="aten::sum",
            formula="8 B",
            reason="the divisor of the mean",
        ),
    ]


@pytest.fixture
def on_cpu(ledger: list[LedgerLine]) -> Estimate:
    """A decoder on the CPU: no fixed capacity, an exact interval."""
    weights, optimizer_state = PARAMETERS * 4, PARAMETERS * 8 + 148 * 4
    held = {"parameters": weights, "optimizer_state": optimizer_state, "inputs": 16_384}
    attention = "decoder.layers.*.attention"
    phases = (
        phase(
            "forward",
            components(**held, activations=900 * MIB + 12, temporaries=48 * MIB),
            components(**held, activations=900 * MIB),
            attention,
            "aten::masked_fill",
        ),
        phase(
            "loss",
            components(**held, activations=900 * MIB, temporaries=205_852_672),
            components(**held, activations=900 * MIB + 205_852_672),
            "loss",
            "aten::_log_softmax",
        ),
        phase(
            "backward",
            components(
                **held, gradients=154_389_504, activations=1_149_501_440, temporaries=411_705_344, workspace=6144
            ),
            components(**held, gradients=weights),
            "head",
            "aten::mm",
        ),
        phase(
            "optimizer_step",
            components(**held, gradients=weights, temporaries=308_779_008),
            components(**held, gradients=weights),
            "embeddings.tokens",
            "aten::sqrt",
        ),
    )
    peak = max(phase.peak_allocated_bytes for phase in phases)
    return Estimate(
        model=Transformer(
            name="gpt2",
            architecture="decoder",
            vocab_size=50257,
            hidden_size=768,
            num_layers=12,
            num_attention_heads=12,
            num_key_value_heads=12,
            head_dim=64,
            intermediate_size=3072,
            max_positions=1024,
        ),
        run=TrainingRun(micro_batch_size=1, sequence_length=1024, attention="naive"),
        device=Device(name="cpu", backend="cpu", threads=2, description="CPU, 2 threads"),
        phases=phases,
        tiers=Tiers(peak),
        totals=Totals(
            parameter_count=PARAMETERS,
            parameters_bytes=weights,
            gradients_bytes=weights,
            optimizer_state_bytes=optimizer_state,
            saved_activations_bytes=900 * MIB + 205_852_672,
        ),
        largest=(ledger[1], ledger[0]),
        interval=Interval(
            allocated_bytes=(peak, peak),
            reserved_bytes=None,
            device_bytes=None,
            basis="every operation of this request has a rule for the CPU",
        ),
        fit=None,
        assumptions=(
            "the second step and later ones: optimizer states exist, gradients are None before each forward pass",
            "reserved and device bytes: the CPU has no caching allocator and no context, so they are not known",
        ),
    )


@pytest.fixture
def on_card(on_cpu: Estimate) -> Estimate:
    """The same on a card that is too small, with an interval that is not a point."""
    peak = on_cpu.peak.peak_allocated_bytes
    capacity = 2_900 * MIB
    return replace(
        on_cpu,
        run=replace(
            on_cpu.run, gradient_accumulation_steps=4, optimizer="sgd", momentum=0.9, recompute="full", padding=True
        ),
        device=Device(
            name="t4-16gb", backend="cuda", capacity_bytes=capacity, description="NVIDIA T4", source="an example"
        ),
        phases=tuple(replace(phase, peak_reserved_bytes=peak + 20 * MIB) for phase in on_cpu.phases),
        tiers=Tiers(peak, peak + 20 * MIB, peak + 420 * MIB),
        interval=Interval(
            allocated_bytes=(peak, peak + 8_519_680),
            reserved_bytes=(peak, peak + 30 * MIB),
            device_bytes=(peak + 400 * MIB, peak + 450 * MIB),
            basis="cuBLAS may take a second workspace of 8.125 MiB",
        ),
        fit=Fit(
            device="t4-16gb",
            capacity_bytes=capacity,
            headroom_bytes=capacity - peak - 8_519_680,
            verdict="does_not_fit",
            reason="backward needs 3.01 GiB, the card has 2.83 GiB",
        ),
    )
