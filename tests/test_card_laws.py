"""What holds of every estimate on a card, whatever the card, the model and the release of PyTorch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.estimate import Estimate, backend_of, estimate
from memplan.transformer.program import trace_training
from memplan.units import GIB

from .strategies import Case, card_cases

RELEASES = st.sampled_from([(2, 6), (2, 7), (2, 8), (2, 9), (2, 10), (2, 11), (2, 12), (2, 13), (2, 14)])
SETTINGS = st.sampled_from(["", "expandable_segments:True", "max_split_size_mb:64", "roundup_power2_divisions:4"])

random_cases = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def assert_tiers_stand_on_each_other(result: Estimate) -> None:
    tiers, interval = result.tiers, result.interval
    assert tiers.reserved_bytes is not None and tiers.device_bytes is not None
    assert tiers.allocated_bytes <= tiers.reserved_bytes <= tiers.device_bytes
    bounds = (interval.allocated_bytes, interval.reserved_bytes, interval.device_bytes)
    for size, within in zip((tiers.allocated_bytes, tiers.reserved_bytes, tiers.device_bytes), bounds, strict=True):
        assert within is not None and within[0] <= size <= within[1]


@random_cases
@given(case=card_cases(), release=RELEASES, allocator=SETTINGS)
def test_allocated_is_within_reserved_is_within_device(case: Case, release: tuple[int, int], allocator: str) -> None:
    result = estimate(*case, release, allocator)
    assert_tiers_stand_on_each_other(result)
    assert result.tiers.allocated_bytes == max(phase.peak_allocated_bytes for phase in result.phases)
    for phase in result.phases:
        assert phase.peak_reserved_bytes is not None
        assert phase.end_allocated_bytes <= phase.peak_allocated_bytes <= phase.peak_reserved_bytes
        assert sum(phase.at_peak.values()) == phase.peak_allocated_bytes
        assert sum(phase.at_end.values()) == phase.end_allocated_bytes
    for bytes_held in (result.totals.parameters_bytes, result.totals.gradients_bytes):
        assert bytes_held <= result.tiers.allocated_bytes


@random_cases
@given(case=card_cases(), release=RELEASES)
def test_same_request_same_bytes(case: Case, release: tuple[int, int]) -> None:
    assert estimate(*case, release) == estimate(*case, release)


@random_cases
@given(case=card_cases(), release=RELEASES)
def test_three_traced_layers_stand_for_all(case: Case, release: tuple[int, int]) -> None:
    backend = backend_of(case.device, release)
    composed = trace_training(case.model, case.run, backend).moments()
    whole = trace_training(case.model, case.run, backend, every_layer=True).moments()
    assert composed.keys() == whole.keys()
    for name, (peak, end) in whole.items():
        assert (composed[name][0].size, composed[name][1].size) == (peak.size, end.size)
        assert composed[name][1].components == end.components


@pytest.mark.parametrize("device", ["cpu", "h100-80gb"])
def test_a_card_never_needs_less_than_what_every_device_does(device: str) -> None:
    """Parameters, gradients and optimizer state are the same bytes everywhere, but for the step counters, which lie on
    the host of a card."""
    run = TrainingRun(sequence_length=512, precision="bf16", optimizer_implementation="fused")
    here = estimate(load_model("llama-3-8b"), run, load_device(device)).totals
    there = estimate(load_model("llama-3-8b"), run, load_device("a100-80gb")).totals
    assert (here.parameters_bytes, here.gradients_bytes) == (there.parameters_bytes, there.gradients_bytes)
    assert here.optimizer_state_bytes == there.optimizer_state_bytes


def test_what_exceeds_the_card_for_certain_does_not_fit() -> None:
    """llama-3-8b in fp32 with Adam is 16 bytes for each of 8.03 billion parameters: 119.66 GiB at the least."""
    result = estimate(load_model("llama-3-8b"), TrainingRun(sequence_length=16), load_device("h100-80gb"))
    assert result.fit is not None and result.fit.verdict == "does_not_fit"
    assert result.fit.headroom_bytes < -40 * GIB
    assert_tiers_stand_on_each_other(result)


def test_what_is_far_below_the_card_fits() -> None:
    run = TrainingRun(sequence_length=128, precision="bf16-mixed")
    result = estimate(load_model("gpt2", {"attention_dropout": 0}), run, load_device("h100-80gb"))
    assert result.fit is not None and result.fit.verdict == "fits"
    assert result.fit.headroom_bytes > 60 * GIB


def test_what_others_use_is_not_to_be_had() -> None:
    run = TrainingRun(sequence_length=128, precision="bf16-mixed")
    model, card = load_model("gpt2", {"attention_dropout": 0}), load_device("h100-80gb")
    busy = replace(card, used_by_others_bytes=card.capacity_bytes - GIB)  # type: ignore[call-arg]
    result = estimate(model, run, busy)
    assert result.fit is not None and result.fit.verdict == "does_not_fit"
    assert result.fit.capacity_bytes == GIB


def test_a_card_that_is_a_little_too_small_gives_cached_memory_back() -> None:
    """With the whole of what the allocator would like to keep no longer there, it frees cached segments and goes on:
    less is reserved, the same is allocated."""
    run = TrainingRun(micro_batch_size=8, sequence_length=1024, attention="naive")
    model, card = load_model("gpt2", {"attention_dropout": 0}), load_device("h100-80gb")
    roomy = estimate(model, run, card)
    assert roomy.tiers.device_bytes is not None and roomy.tiers.reserved_bytes is not None
    small = replace(card, capacity_bytes=roomy.tiers.device_bytes - 2**20)
    squeezed = estimate(model, run, small)
    assert squeezed.tiers.reserved_bytes is not None
    assert squeezed.tiers.reserved_bytes < roomy.tiers.reserved_bytes
    assert squeezed.tiers.allocated_bytes <= squeezed.tiers.reserved_bytes
    assert any("given back" in line for line in squeezed.assumptions)
