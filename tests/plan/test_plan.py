"""Plans against trying everything, on small random models."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from memplan.check.judge import upper_end
from memplan.config.device import Device
from memplan.config.devices import catalogue, load_device
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, MemplanError
from memplan.estimate import estimate
from memplan.plan import choices as choices_module
from memplan.plan.choices import Option, plan
from memplan.plan.knobs import DEAR, KNOBS
from tests.strategies import Choices, make_case

CASES = 100
"""Random small models, each planned for four objectives and held against the whole grid."""

Case = tuple[Transformer, TrainingRun, Device]
GridRun = tuple[dict[str, Any], TrainingRun]


def small_case(seed: int) -> Case:
    """A model and a run of it, on the CPU or a card."""
    source = random.Random(seed)
    model, run, device = make_case(Choices(source.randbytes(Choices.BYTES)), 2, 2)
    if seed % 4 == 0:
        card = load_device(source.choice(["t4", "a100-40gb", "h100-80gb"]))
        model = replace(model, num_experts=0, num_experts_per_token=0)
        try:
            return validate_model(model), validate_run(model, replace(run, precision="fp32"), card), card
        except MemplanError:
            pass
    return model, run, device


def upper(model: Transformer, run: TrainingRun, device: Device) -> int | None:
    try:
        return upper_end(estimate(model, run, device))
    except MemplanError:
        return None


def grid(model: Transformer, run: TrainingRun, device: Device) -> list[GridRun]:
    """Every combination of knobs that can be had, with what differs from what was asked for; equal runs once. Written
    without a look at knobs.py: all values of all knobs, and then what is ruled out."""
    found: dict[TrainingRun, dict[str, Any]] = {}
    wider = ["fp32", "fp16-mixed", "bf16-mixed", "bf16", "fp16"]
    for values in product(*({getattr(run, name), *tried} for name, tried in KNOBS.items())):
        asked = dict(zip(KNOBS, values, strict=True))
        try:
            changed = validate_run(model, replace(run, **asked), device)
        except MemplanError:
            continue
        differs = {name: getattr(changed, name) for name in KNOBS if getattr(changed, name) != getattr(run, name)}
        narrower = wider.index(changed.precision) > wider.index(run.precision)
        mixed = {changed.precision, run.precision} <= {"fp16-mixed", "bf16-mixed"}
        if "precision" in differs and (not narrower or mixed):
            continue
        if sum(name in DEAR for name in differs) <= 1:
            found.setdefault(changed, differs)
    return [(differs, changed) for changed, differs in found.items()]


def key(changes: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(changes.items()))


def limits(asked: int, seed: int) -> int:
    return int(asked * [1.5, 1.0, 0.9, 0.6, 0.3][seed % 5])


def as_good(objective: str, one: Option, other: Option) -> bool:
    if objective == "fit":
        return one.fits >= other.fits and one.upper <= other.upper
    return one.size >= other.size


@pytest.mark.parametrize("seed", range(CASES))
def test_what_fits_is_what_trying_everything_finds(seed: int) -> None:
    model, run, device = small_case(seed)
    needs = upper(model, run, device)
    assert needs is not None
    limit = limits(needs, seed)
    found = plan(model, run, device, "fit", limit=limit, most=10**6)
    assert (found.upper, found.limit) == (needs, limit)
    told = {key(option.changes): option for option in found.options}
    assert len(told) == len(found.options)
    every: dict[Any, int] = {}
    batch = run.micro_batch_size * run.gradient_accumulation_steps
    for differs, changed in grid(model, run, device):
        need = upper(model, changed, device)
        if need is None:
            continue
        every[key(differs)] = need
        for size in range(run.micro_batch_size - 1, 0, -1):
            if batch % size == 0:
                steps = batch // size
                split = replace(changed, micro_batch_size=size, gradient_accumulation_steps=steps)
                need = upper(model, split, device)
                if need is not None and need <= limit:
                    every[key({**differs, "micro_batch_size": size, "gradient_accumulation_steps": steps})] = need
                    break
    assert {changes: option.upper for changes, option in told.items()} == {changes: every[changes] for changes in told}
    for changes, option in told.items():
        assert option.fits == (every[changes] <= limit)
    for changes, need in every.items():  # what is not told is needless: less is changed for as much
        if changes not in told:
            assert any(
                set(other) < set(changes) and every[other] <= need and (every[other] <= limit) >= (need <= limit)
                for other in every
            ), changes
    fitting = [option.fits for option in found.options]
    assert fitting == sorted(fitting, reverse=True)
    ranks = [option.choice.cost.rank + 50 * bool(option.accumulation) for option in found.options if option.fits]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("seed", range(0, CASES, 6))
@pytest.mark.parametrize("objective", ["micro-batch", "length"])
def test_the_largest_sizes_are_those_of_trying_everything(
    seed: int, objective: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run, device = small_case(seed)
    most = 16 if device.backend == "cpu" else 6  # a replay for each is what takes long
    monkeypatch.setattr(choices_module, "MOST_BATCH", most)
    monkeypatch.setattr(choices_module, "MOST_TOKENS", most)
    needs = upper(model, run, device)
    assert needs is not None
    limit = limits(needs, seed)
    found = plan(model, run, device, objective, frozenset({"precision", "optimizer"}), limit, most=10**6)
    assert all(option.certain for option in found.options)
    best: dict[Any, int] = {}
    for differs, changed in grid(model, run, device):
        if {"precision", "optimizer"} & set(differs):
            continue
        fits = [size for size in range(1, most + 1) if fits_at(model, sized(changed, objective, size), device, limit)]
        best[key(differs)] = max(fits, default=0)
    told = {key(option.changes): option for option in found.options}
    assert {changes: option.size for changes, option in told.items()} == {changes: best[changes] for changes in told}
    for changes, size in best.items():
        if changes not in told:
            assert any(set(other) < set(changes) and best[other] >= size for other in best)
    assert [option.size for option in found.options] == sorted((option.size for option in found.options), reverse=True)
    for option in found.options:
        if option.size:
            assert option.upper == upper(model, sized(option.choice.run, objective, option.size), device)
            below = range(max(option.size - 3, 1), option.size)
            assert option.gaps == tuple(
                size for size in below if not fits_at(model, sized(option.choice.run, objective, size), device, limit)
            )


def sized(run: TrainingRun, objective: str, size: int) -> TrainingRun:
    if objective == "micro-batch":
        return replace(run, micro_batch_size=size)
    if run.sequence_length:
        return replace(run, sequence_length=size)
    return replace(run, source_length=size, target_length=max(size * run.target_length // run.source_length, 1))


def fits_at(model: Transformer, run: TrainingRun, device: Device, limit: int) -> bool:
    need = upper(model, run, device)
    return need is not None and need <= limit


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-3b"])
def test_the_smallest_card_is_that_of_trying_every_one(name: str) -> None:
    model = load_model(name, {"num_layers": 4} if name != "gpt2" else {})
    device = load_device("h100-80gb")
    run = validate_run(model, TrainingRun(sequence_length=1024, micro_batch_size=4), device)
    fixed = frozenset({"precision", "optimizer", "loss"})
    found = plan(model, run, device, "card", fixed, most=10**6)
    smallest: dict[Any, int] = {}
    for differs, changed in grid(model, run, device):
        if set(differs) & fixed:
            continue
        sizes = [card.capacity_bytes for card in catalogue() if fits_at(model, changed, card, card.available_bytes)]
        smallest[key(differs)] = min(sizes, default=0)
    told = {key(option.changes): option for option in found.options}
    assert {changes: option.size for changes, option in told.items()} == {
        changes: smallest[changes] for changes in told
    }
    for changes, size in smallest.items():
        if size and changes not in told:
            assert any(set(other) < set(changes) and 0 < smallest[other] <= size for other in smallest)
    for option in found.options:
        card = load_device(option.device)
        assert card.capacity_bytes == option.size
        assert upper(model, option.choice.run, card) == option.upper


def test_that_memory_is_not_monotone_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """On a card the reserved bytes of a longer sequence can be fewer."""
    from memplan.report.planning import render_plan

    model = load_model("gpt2", {"num_layers": 2, "attention_dropout": 0})
    device = load_device("t4")
    run = validate_run(model, TrainingRun(sequence_length=64), device)
    needs = {size: upper(model, replace(run, sequence_length=size), device) or 0 for size in range(200, 260)}
    size, before = next((size, needs[size - 1]) for size in range(201, 260) if needs[size] < needs[size - 1])
    found = plan(model, run, device, "length", frozenset(KNOBS), limit=max(needs[size], before - 1))
    assert found.options[0].size >= size
    if found.options[0].gaps:
        assert "memory is not monotone here" in render_plan(found)
    else:
        assert found.options[0].size > size + 3


def test_a_device_without_a_capacity_needs_a_limit() -> None:
    model = load_model("gpt2")
    with pytest.raises(ConfigurationError, match="cpu has no fixed capacity to fit into"):
        plan(model, TrainingRun(sequence_length=8, attention="naive"), load_device("cpu"))


def test_what_is_fixed_stays() -> None:
    model, run, device = small_case(1)
    run = replace(run, micro_batch_size=3)
    found = plan(model, run, device, fixed=frozenset({*KNOBS, "micro_batch_size"}), limit=1)
    assert [dict(option.changes) for option in found.options] == [{}]
    assert not found.options[0].fits


@pytest.mark.parametrize("kept", ["source_length", "target_length", ""])
def test_of_two_lengths_the_one_that_is_not_fixed_is_looked_for(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices_module, "MOST_TOKENS", 40)
    model = load_model("t5-small", {"num_layers": 2, "num_encoder_layers": 2})
    device = load_device("cpu")
    run = validate_run(model, TrainingRun(source_length=20, target_length=10, attention="naive"), device)

    def at(size: int) -> TrainingRun:
        if kept == "source_length":
            return replace(run, target_length=size)
        return replace(run, source_length=size, target_length=10 if kept else max(size // 2, 1))

    needs = upper(model, at(30), device)
    assert needs is not None
    fixed = frozenset({*KNOBS, kept} - {""})
    (option,) = plan(model, run, device, "length", fixed, needs).options
    assert option.size == max(size for size in range(1, 41) if fits_at(model, at(size), device, needs))
    assert option.upper == upper(model, at(option.size), device)


@pytest.mark.parametrize(
    ("name", "fixed", "objective"),
    [
        ("t5-small", {"source_length", "target_length"}, "length"),
        ("gpt2", {"sequence_length"}, "length"),
        ("gpt2", {"micro_batch_size"}, "micro-batch"),
    ],
)
def test_what_is_looked_for_cannot_be_fixed(name: str, fixed: set[str], objective: Any) -> None:
    model, device = load_model(name), load_device("t4")
    lengths = {"sequence_length": 8} if name == "gpt2" else {"source_length": 8, "target_length": 4}
    with pytest.raises(ConfigurationError, match=f"what --objective {objective} looks for"):
        plan(model, TrainingRun(attention="naive", **lengths), device, objective, frozenset(fixed))
