"""Mixtures of experts have as many parameters as the library's classes: small ones, and one published configuration."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch

from memplan.config.library.model import LibraryModel, library_model_from, validate_library_model
from memplan.config.library.types import library_type
from memplan.config.run import TrainingRun
from memplan.huggingface.models import build_model as build_traced
from memplan.huggingface.settings import Settings
from memplan.ops.backend import Backend
from memplan.ops.trace import Trace

from .small import SMALL

pytest.importorskip("transformers")
from memplan.measure.library import build_model

RUN = TrainingRun(sequence_length=8, attention="naive")

PUBLISHED: dict[str, dict[str, Any]] = {
    "mixtral": {
        "head_class": "MixtralForCausalLM", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    },
    "qwen3_moe": {
        "head_class": "Qwen3MoeForCausalLM", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "moe_intermediate_size": 768, "norm_topk_prob": True,
    },
    "gpt_oss": {
        "head_class": "GptOssForCausalLM", "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880,
        "num_hidden_layers": 24, "num_attention_heads": 64, "num_local_experts": 32,
    },
}  # fmt: skip
"""Mixtral-8x7B, Qwen3-30B-A3B and gpt-oss-20b."""

MODELS = {name: validate_library_model(model) for name, model in SMALL.items() if model.model_type in PUBLISHED} | {
    f"{name}-published": library_model_from(library_type(name), {"model_type": name, **values})
    for name, values in PUBLISHED.items()
}


def parameters(config: LibraryModel) -> int:
    """Elements of all parameters of the sizes-only model."""
    model = build_traced(Trace(Backend("cpu")), config, Settings.of(RUN, every_layer=True))
    return sum(prod(each.shape) for each in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_as_many_parameters(name: str) -> None:
    """Counted on the device "meta", where no memory is needed."""
    with torch.device("meta"):
        real = build_model(MODELS[name], RUN)
    assert parameters(MODELS[name]) == sum(each.numel() for each in real.parameters())
