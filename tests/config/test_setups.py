"""Which settings of a training run contradict each other, and which a device does not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.config.setups import scales_gradients, weight_dtype
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, NotModelledError
from memplan.estimate import estimate

GPT2 = validate_model(replace(load_model("gpt2"), attention_dropout=0.0))
CPU = load_device("cpu")

CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"master_weights": "deepspeed"}, 'master_weights: must be "none": they go with precision = "bf16" or "fp16"'),
    ({"master_weights": "megatron", "precision": "bf16-mixed"}, 'master_weights: must be "none"'),
    ({"precision": "fp16"}, "gradient_scaling: is missing"),
    ({"precision": "fp16", "gradient_scaling": "dynamic"}, 'gradient_scaling: must be "none" for fp16 weights'),
    ({"precision": "bf16", "gradient_scaling": "dynamic"}, "gradient_scaling: must be left out"),
    ({"optimizer": "adafactor", "optimizer_implementation": "fused"}, "must be one of for-loop, foreach"),
    ({"optimizer": "lion", "optimizer_implementation": "foreach"}, 'must be "for-loop"'),
    ({"optimizer": "adamw-8bit", "optimizer_implementation": "fused"}, 'must be "for-loop"'),
    ({"optimizer": "muon", "momentum": 0.9}, 'momentum: must be 0: only optimizer = "sgd" has it'),
    ({"optimizer_in_backward": True, "gradient_clipping": 1.0}, "the norm of all gradients is never known"),
    ({"optimizer_in_backward": True, "gradient_accumulation_steps": 2}, "each gradient is used up at once"),
    ({"optimizer_in_backward": True, "precision": "fp16-mixed"}, 'gradient_scaling: must be "none"'),
    (
        {"optimizer_in_backward": True, "precision": "bf16", "master_weights": "megatron"},
        "they are updated all at once",
    ),
]


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS)
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        validate_run(GPT2, TrainingRun(sequence_length=8, **changes), CPU)
    assert message in str(error.value)


@pytest.mark.parametrize("optimizer", ["paged-adamw", "paged-adamw-8bit"])
def test_a_cpu_has_nothing_to_page_out_of(optimizer: Any) -> None:
    with pytest.raises(NotModelledError, match=f"{optimizer} pages states out of a card's memory"):
        validate_run(GPT2, TrainingRun(sequence_length=8, optimizer=optimizer), CPU)
    validate_run(GPT2, TrainingRun(sequence_length=8, optimizer=optimizer), load_device("h100-80gb"))


def test_muon_came_with_pytorch_2_9() -> None:
    with pytest.raises(NotModelledError, match=r"PyTorch 2\.8 has no Muon"):
        estimate(GPT2, TrainingRun(sequence_length=8, optimizer="muon"), CPU, (2, 8))


def test_muon_needs_a_card_that_multiplies_in_bf16() -> None:
    with pytest.raises(NotModelledError, match=r"compute capability 8\.0"):
        estimate(GPT2, TrainingRun(sequence_length=8, attention="naive", optimizer="muon"), load_device("t4"))


@pytest.mark.parametrize(
    ("changes", "scaled"),
    [
        ({}, False),
        ({"precision": "fp16-mixed"}, True),
        ({"precision": "fp16-mixed", "gradient_scaling": "none"}, False),
        ({"precision": "fp16", "gradient_scaling": "none"}, False),
        ({"precision": "fp16", "master_weights": "deepspeed"}, True),
        ({"precision": "bf16", "master_weights": "deepspeed"}, False),
    ],
)
def test_which_losses_are_scaled(changes: dict[str, Any], scaled: bool) -> None:
    assert scales_gradients(TrainingRun(**changes)) is scaled


def test_autocast_leaves_weights_in_fp32() -> None:
    found = {kind: weight_dtype(TrainingRun(precision=kind)) for kind in ("fp32", "bf16", "fp16", "bf16-mixed")}  # type: ignore[arg-type]
    assert found == {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "bf16-mixed": "fp32"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bf16", "master_weights": "deepspeed"}, "FP16_UnfusedOptimizer"),
        ({"precision": "bf16", "master_weights": "megatron"}, "Megatron-LM"),
        ({"gradient_clipping": 1.0}, "clip_grad_norm_"),
        ({"optimizer_in_backward": True}, "the phase optimizer_step is empty"),
        ({"optimizer": "muon"}, "torch.optim.AdamW for embeddings, head, norms and biases"),
        ({"optimizer": "adamw-8bit"}, "less than 4,096 elements"),
        ({"precision": "fp16-mixed", "gradient_scaling": "none"}, "the loss is not scaled"),
    ],
)
def test_an_estimate_says_how_the_step_is_taken(changes: dict[str, Any], words: str) -> None:
    lines = estimate(GPT2, TrainingRun(sequence_length=8, **changes), CPU).assumptions
    assert any(words in line for line in lines)


def test_what_is_paged_is_said() -> None:
    run = TrainingRun(sequence_length=8, attention="naive", optimizer="paged-adamw")
    lines = estimate(GPT2, run, load_device("h100-80gb")).assumptions
    large = 50257 * 768 + 1024 * 768 + 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert any(line.startswith(f"{large * 8:,} bytes of optimizer states lie in managed memory") for line in lines)
