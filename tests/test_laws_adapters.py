"""What must hold for any adapters whatever their bytes are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, assume, given, settings

from memplan.config.run import TrainingRun
from memplan.estimate import PHASES, Estimate, estimate
from memplan.ops.backend import Backend
from memplan.ops.trace import Trace
from memplan.transformer.layers import Linear
from memplan.transformer.model import Transformer as SizesOnly
from memplan.transformer.sizes import Sizes

from .strategies import Case
from .test_exactness_adapters import adapted_cases

LAW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def trained_whole(run: TrainingRun) -> TrainingRun:
    """The run without adapters, every weight trained."""
    defaults = TrainingRun.__dataclass_fields__
    names = ("lora_rank", "lora_targets", "lora_dropout", "lora_dtype", "weight_quantization", "double_quantization")
    return replace(run, **{name: defaults[name].default for name in names})


def adapted_layers(case: Case) -> Iterator[tuple[str, int, int]]:
    """Path, inputs and outputs of every layer that gets an adapter."""
    from memplan.config.adapters import is_target

    trace = Trace(Backend("cpu", 1))
    model = SizesOnly(trace, case.model, Sizes(case.model, case.run), case.run.attention, every_layer=True)
    trace.recording = False
    for path, layer in model.modules():
        if isinstance(layer, Linear) and is_target(path, case.run.lora_targets):
            yield path, layer.in_features, layer.out_features


def rows_of(case: Case) -> int:
    """The most tokens that a layer sees at once, the class token among them."""
    run = case.run
    longest = max(run.sequence_length + int(case.model.pooling == "class_token"), run.source_length, run.target_length)
    return run.micro_batch_size * longest


def lasting(result: Estimate, phase: str) -> int:
    """Bytes of parameters, gradients and optimizer state at the end of a phase."""
    at_end = result.phases[PHASES.index(phase)].at_end
    return at_end["parameters"] + at_end["gradients"] + at_end["optimizer_state"]


def held_by_adapters(case: Case) -> int:
    """At most so many bytes beside those of full training: what each adapter keeps for its backward pass (its input in
    its own dtype, dropped out, with the noise; the narrow product; the wide one; its weights cast), and what is alive
    for a moment within the widest."""
    rows = rows_of(case)
    kept, moment = 0, 0
    for _, inputs, outputs in adapted_layers(case):
        rank = case.run.lora_rank
        kept += 4 * rows * (3 * inputs + rank + 2 * outputs) + 4 * rank * (inputs + outputs)
        moment = max(moment, 4 * rows * 4 * (inputs + outputs + rank))
    return kept + moment


@LAW
@given(case=adapted_cases())
def test_adapters_need_less_where_they_hold_less_than_is_no_longer_trained(case: Case) -> None:
    """Adapters beside whole weights against full training, phase by phase. Small models on many tokens do need more:
    the law speaks where the states and gradients that are saved outweigh all that adapters can hold."""
    run = replace(case.run, weight_quantization="none", double_quantization=True)
    ours, full = estimate(case.model, run, case.device), estimate(case.model, trained_whole(run), case.device)
    held = held_by_adapters(case)
    saved = [lasting(full, phase) - lasting(ours, phase) for phase in PHASES]
    assume(saved[0] >= held)
    for phase, mine, theirs in zip(PHASES, ours.phases, full.phases, strict=True):
        assert mine.peak_allocated_bytes <= theirs.peak_allocated_bytes, phase
        assert mine.end_allocated_bytes <= theirs.end_allocated_bytes, phase


@LAW
@given(case=adapted_cases())
def test_what_lasts_in_closed_form(case: Case) -> None:
    """fp32 or bf16 adapters of A weights in T tensors: their bytes, the same for gradients and for each moment, and a
    4-byte step counter a tensor. So they last for less than full training does just where

        (2 + moments) * A * item + counters * T  <  (1 + moments) * P * weight + counters * tensors of the model.
    """
    run = replace(case.run, weight_quantization="none", double_quantization=True)
    totals, full = (estimate(case.model, each, case.device).totals for each in (run, trained_whole(run)))
    layers = list(adapted_layers(case))
    weights = sum(run.lora_rank * (inputs + outputs) for _, inputs, outputs in layers)
    item = 2 if run.lora_dtype == "bf16" else 4
    moments = {"adam": 2, "adamw": 2, "sgd": 1 if run.momentum else 0}[run.optimizer]
    counters = 0 if run.optimizer == "sgd" else 4 * 2 * len(layers)
    scaler = 8 if run.precision == "fp16-mixed" else 0
    assert totals.trainable_parameter_count == weights
    assert totals.parameter_count == full.parameter_count + weights
    assert totals.parameters_bytes == full.parameters_bytes + weights * item
    assert totals.gradients_bytes == weights * item
    assert totals.optimizer_state_bytes == moments * weights * item + counters + scaler


@LAW
@given(case=adapted_cases())
def test_a_higher_rank_never_needs_less(case: Case) -> None:
    higher = replace(case.run, lora_rank=case.run.lora_rank + 3)
    for few, many in zip(estimate(*case).phases, estimate(case.model, higher, case.device).phases, strict=True):
        assert many.peak_allocated_bytes >= few.peak_allocated_bytes, few.name
        assert many.end_allocated_bytes >= few.end_allocated_bytes, few.name


@LAW
@given(case=adapted_cases())
def test_quantised_weights_take_the_bytes_of_their_format(case: Case) -> None:
    """int8: 1 byte a weight and 4 a row. nf4: half a byte, 4 for each 64 and a table of 64 bytes; quantised twice: 1
    for each 64, 4 for each 256 of those, an offset and a larger table."""
    run = case.run
    plain = replace(run, weight_quantization="none", double_quantization=True)
    item = 2 if run.precision == "bf16" else 4
    expected = estimate(case.model, plain, case.device).totals.parameters_bytes
    trace = Trace(Backend("cpu", 1))
    model = SizesOnly(trace, case.model, Sizes(case.model, run), run.attention, every_layer=True)
    trace.recording = False
    for path, layer in model.modules():
        if isinstance(layer, Linear) and ".layers." in path and run.weight_quantization != "none":
            count = layer.in_features * layer.out_features
            blocks = -(-count // 64)
            nf4 = (count + 1) // 2 + 64 + (4 * blocks if not run.double_quantization else 0)
            if run.double_quantization:
                nf4 += blocks + 4 * -(-blocks // 256) + 4 + 1024
            expected += (count + 4 * layer.out_features if run.weight_quantization == "int8" else nf4) - item * count
    assert estimate(*case).totals.parameters_bytes == expected
