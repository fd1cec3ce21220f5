"""The promise memplan rests on: the estimate of a training step is the run in real PyTorch, to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import MeasurementError
from memplan.estimate import estimate
from memplan.ops.backend import release

from .records import residuals_of
from .strategies import FRESH, Case, cases

torch = pytest.importorskip("torch")
from memplan.measure.run import measure_training  # noqa: E402  (imports torch)

EXAMPLES = 220


def residuals(case: Case) -> dict[str, int]:
    """What differs between estimate and run, in bytes: `phase.peak`, `phase.end`, and each component at both."""
    expected = estimate(*case, release(torch.__version__))
    measured = measure_training(*case)
    if case.run.attention == "flash":
        assert measured["sdpa_kernels"] == ["flash"]
    return residuals_of(expected, measured)


# Fresh examples on each run, and nothing remembered from the last one: a failure prints the configuration as Python.
@settings(FRESH, max_examples=EXAMPLES)
@given(case=cases())
def test_the_estimate_is_the_run(case: Case) -> None:
    assert residuals(case) == {}


GPT2_LIKE = {"num_layers": 2, "embedding_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0}
LLAMA_LIKE = Transformer(
    architecture="decoder",
    vocab_size=3000,
    hidden_size=256,
    num_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    intermediate_size=688,
    positions="rotary",
    norm="rmsnorm",
    activation="swiglu",
    attention_bias=False,
    feedforward_bias=False,
    tie_embeddings=False,
)
LARGER: dict[str, tuple[Transformer, TrainingRun]] = {
    "gpt2, two layers": (
        replace(load_model("gpt2"), **GPT2_LIKE),
        TrainingRun(micro_batch_size=2, sequence_length=128, optimizer_implementation="foreach"),
    ),
    "gpt2, two layers, naive, bf16-mixed": (
        replace(load_model("gpt2"), num_layers=2),  # with its dropouts
        TrainingRun(sequence_length=8, attention="naive", precision="bf16-mixed", optimizer_implementation="fused"),
    ),
    "long, flash": (
        replace(LLAMA_LIKE, num_layers=5),
        TrainingRun(micro_batch_size=2, sequence_length=800, recompute="full"),
    ),
    "long, flash with padding": (
        replace(LLAMA_LIKE, num_key_value_heads=8),
        TrainingRun(micro_batch_size=2, sequence_length=800, padding=True),
    ),
    "grouped-query attention in bf16": (
        LLAMA_LIKE,
        TrainingRun(micro_batch_size=2, sequence_length=30, precision="bf16", gradient_accumulation_steps=2),
    ),
    "t5-small, two layers": (
        replace(load_model("t5-small"), num_layers=2, num_encoder_layers=2),
        TrainingRun(micro_batch_size=2, source_length=96, target_length=40, attention="naive", padding=True),
    ),
}


@pytest.mark.parametrize("name", LARGER)
def test_larger_examples(name: str) -> None:
    device = load_device("cpu")
    model, run = LARGER[name]
    model = validate_model(model)
    assert residuals(Case(model, validate_run(model, run, device), device)) == {}


OVERFLOWING = Case(
    # With dropout, a row of two can become constant: layer norm's gradient is then 316 times the incoming one.
    validate_model(
        Transformer(
            architecture="encoder",
            vocab_size=1,
            hidden_size=2,
            num_layers=2,
            num_attention_heads=1,
            intermediate_size=1,
            head_dim=1,
            positions="sinusoidal",
            activation="relu",
            attention_bias=False,
            feedforward_bias=False,
            scale_attention=False,
            embedding_dropout=0.5,
            head="classification",
        )
    ),
    TrainingRun(sequence_length=1, attention="flash", precision="fp16-mixed", optimizer="adam"),
    load_device("cpu:1"),
)


def test_a_step_that_fp16_skips_is_not_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped step leaves no optimizer state behind; measurement goes on until two in a row were taken."""

    def scaler(_run: TrainingRun, device: str) -> object:
        return torch.amp.GradScaler(device, init_scale=2.0**24)

    monkeypatch.setattr("memplan.measure.run.make_scaler", scaler)
    assert residuals(OVERFLOWING) == {}


def test_a_run_that_takes_no_step_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaler(_run: TrainingRun, device: str) -> object:
        return torch.amp.GradScaler(device, init_scale=2.0**127)

    monkeypatch.setattr("memplan.measure.run.make_scaler", scaler)
    with pytest.raises(MeasurementError, match="overflow"):
        residuals(OVERFLOWING)
