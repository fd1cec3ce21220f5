"""Which adapters and formats are refused, and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, MemplanError, NotModelledError
from memplan.estimate import estimate
from memplan.measure.suites.library import small_models, small_run
from memplan.measure.suites.small import DECODER, LLAMA

CPU = load_device("cpu")
LATENT = replace(
    LLAMA, kv_lora_rank=8, rope_head_dim=4, head_dim=12, value_head_dim=8, num_key_value_heads=0, attention_bias=False
)


def run(**changes: Any) -> TrainingRun:
    return TrainingRun(**{"sequence_length": 8, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight_quantization": "nf4"}, "weight_quantization: must be left out: nf4 weights cannot be trained"),
        ({"weight_quantization": "int8"}, "give lora_rank to train adapters beside them (QLoRA)"),
        ({"lora_dropout": 0.1}, "lora_dropout: must be left out: only adapters have it"),
        ({"lora_targets": ("query",)}, "lora_targets: must be left out: only adapters have it"),
        ({"lora_dtype": "bf16"}, "lora_dtype: must be left out: only adapters have it"),
        ({"lora_rank": 4, "frozen_layers": 1}, "frozen_layers: must be left out with lora_rank"),
        ({"lora_rank": 4, "frozen": ("*",)}, "frozen: must be left out with lora_rank"),
        ({"lora_rank": 4, "lora_targets": ("qurey",)}, 'lora_targets: "qurey" is no linear layer of the model'),
        ({"lora_rank": 4, "lora_targets": ("qurey",)}, 'did you mean "query"?'),
        ({"lora_rank": 4, "lora_targets": ("xyz",)}, "there are query, key, value, output, gate, up, down, projection"),
        ({"lora_rank": 4, "double_quantization": False}, "double_quantization: must be left out: only nf4 has it"),
        ({"lora_rank": -1}, "lora_rank: must be at least 0"),
        ({"lora_rank": 4, "weight_quantization": "gptq"}, "weight_quantization: "),
    ],
)
def test_contradictions(changes: dict[str, Any], said: str) -> None:
    model = validate_model(LLAMA)
    with pytest.raises(ConfigurationError) as caught:
        validate_run(model, run(**changes), CPU)
    assert said in str(caught.value)


def test_targets_are_resolved() -> None:
    assert validate_run(validate_model(LLAMA), run(lora_rank=1), CPU).lora_targets == ("query", "value")
    library = small_models()
    for key, targets in (("gpt2", ("c_attn",)), ("t5", ("q", "v")), ("bert", ("query", "value"))):
        model = validate_model(library[key])
        assert validate_run(model, small_run(model, lora_rank=1), CPU).lora_targets == targets


def test_targets_that_must_be_named() -> None:
    with pytest.raises(ConfigurationError, match="lora_targets: is missing: latent attention has no value"):
        validate_run(validate_model(LATENT), run(lora_rank=1), CPU)
    model = validate_model(small_models()["phi3"])
    with pytest.raises(ConfigurationError, match="lora_targets: is missing: peft has no targets of its own for phi3"):
        validate_run(model, small_run(model, lora_rank=1), CPU)


@pytest.mark.parametrize(
    ("key", "changes", "said"),
    [
        ("qwen2", {"weight_quantization": "nf4"}, "bitsandbytes' nf4 weights of qwen2 models are not modelled"),
        (
            "llama",
            {"weight_quantization": "nf4", "lora_dtype": "bf16", "precision": "bf16"},
            "no bf16 adapters over nf4",
        ),
        ("llama", {"weight_quantization": "int8", "precision": "bf16-mixed"}, "int8 weights in bf16-mixed are not"),
        ("llama", {"lora_dtype": "bf16"}, "lora_dtype: peft has no bf16 adapters over the fp32 weights of fp32"),
        ("qwen3_moe-mixed", {"lora_targets": ("gate_proj",)}, "means the experts' matrices as well"),
        ("llama", {"lora_targets": ("q_prj",)}, 'did you mean "q_proj"?'),
        ("llama", {"lora_targets": ("embed_tokens",)}, "adapters of an embedding (embed_tokens) are not modelled"),
    ],
)
def test_what_is_refused_of_a_library(key: str, changes: dict[str, Any], said: str) -> None:
    model = validate_model(small_models()[key])
    with pytest.raises(MemplanError) as caught:
        estimate(model, small_run(model, lora_rank=2, **changes), CPU)
    assert said in str(caught.value)


def test_experts_are_not_quantised() -> None:
    model = validate_model(replace(LLAMA, num_experts=4, num_experts_per_token=2))
    with pytest.raises(NotModelledError, match="weight_quantization: nf4 experts are not modelled"):
        validate_run(model, run(lora_rank=2, weight_quantization="nf4"), CPU)


def test_what_does_not_go_into_groups() -> None:
    model = validate_model(replace(DECODER, positions="rotary", max_positions=0))
    good = InferenceRun(prompt_length=4, weight_quantization="gptq", quantization_group_size=64)
    assert validate_run(model, good, CPU).weight_quantization == "gptq"
    with pytest.raises(NotModelledError, match="packs eight weights to an integer, in groups of 128 inputs"):
        validate_run(model, replace(good, quantization_group_size=128), CPU)


def test_what_is_taken_for_granted() -> None:
    model = validate_model(LLAMA)
    lines = "\n".join(estimate(model, run(lora_rank=4, weight_quantization="nf4"), CPU).assumptions)
    assert "rank 4, fp32, on query, value" in lines
    assert "nf4 weights in bitsandbytes' tensors" in lines
    card = estimate(model, run(lora_rank=4, attention="naive"), load_device("h100-80gb"))
    assert "adapters and quantised weights have not been held against runs on a card" in card.assumptions
