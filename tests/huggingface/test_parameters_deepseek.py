"""DeepSeek-V3 and V2 have as many parameters as the library's classes: small ones, and published configurations."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch

from memplan.config.library.model import LibraryModel, library_model_from, validate_library_model
from memplan.config.library.types import library_type
from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, NotModelledError
from memplan.huggingface.models import build_model as build_traced
from memplan.huggingface.program import trace_library_training
from memplan.huggingface.settings import Settings
from memplan.ops.backend import Backend
from memplan.ops.trace import Trace

from .small import SMALL

pytest.importorskip("transformers")
from memplan.measure.library import build_model

RUN = TrainingRun(sequence_length=8, attention="naive")

PUBLISHED: dict[str, dict[str, Any]] = {
    "DeepSeek-V3": {
        "model_type": "deepseek_v3", "head_class": "DeepseekV3ForCausalLM", "vocab_size": 129280, "hidden_size": 7168,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 128,
    },
    "DeepSeek-V2": {
        "model_type": "deepseek_v2", "head_class": "DeepseekV2ForCausalLM", "vocab_size": 102400, "hidden_size": 5120,
        "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_hidden_layers": 60, "num_attention_heads": 128,
        "n_routed_experts": 160, "num_experts_per_tok": 6, "n_group": 8, "topk_group": 3,
        "topk_method": "group_limited_greedy", "first_k_dense_replace": 1,
    },
    "DeepSeek-V2-Lite": {
        "model_type": "deepseek_v2", "head_class": "DeepseekV2ForCausalLM", "vocab_size": 102400, "hidden_size": 2048,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16,
        "num_experts_per_tok": 6, "q_lora_rank": None, "first_k_dense_replace": 1,
    },
}  # fmt: skip

MODELS = {name: validate_library_model(model) for name, model in SMALL.items() if name.startswith("deepseek")} | {
    name: library_model_from(library_type(values["model_type"]), values) for name, values in PUBLISHED.items()
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


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("DeepSeek-V3", {"num_key_value_heads": 8}, "num_key_value_heads: must be the 128 of num_attention_heads"),
        ("DeepSeek-V3", {"qk_rope_head_dim": 63}, "qk_rope_head_dim: rotary positions turn pairs"),
        ("DeepSeek-V3", {"n_group": 256}, "n_group: 256 experts do not share out over 256 groups of at least 2"),
        ("DeepSeek-V3", {"topk_group": 9}, "topk_group: the best 9 groups are more than the 8 there are"),
        ("DeepSeek-V2", {"topk_group": None}, "topk_group: must be a number"),
        ("DeepSeek-V2", {"num_attention_heads": 96}, "num_attention_heads: hidden_size 5120 is not divisible by 96"),
        ("DeepSeek-V2", {"first_k_dense_replace": -1}, "first_k_dense_replace: must be at least 0"),
        ("DeepSeek-V2", {"qk_nope_head_dim": 127}, "qk_nope_head_dim: must be even"),
        ("DeepSeek-V2", {"moe_intermediate_size": 1407}, "moe_intermediate_size: must be a multiple of 4"),
    ],
)
def test_contradictions(name: str, changes: dict[str, object], told: str) -> None:
    """Each is one line that begins with the field's name."""
    values = {**PUBLISHED[name], **changes}
    with pytest.raises(ConfigurationError) as caught:
        library_model_from(library_type(values["model_type"]), values)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v2"])
def test_no_rules_for_cuda(name: str) -> None:
    with pytest.raises(NotModelledError, match="on CUDA is not modelled"):
        trace_library_training(MODELS[name], RUN, Backend("cuda"))
