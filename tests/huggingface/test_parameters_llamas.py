"""Descendants of Llama: as many parameters as the library's own classes have, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.library.model import library_model_from, read_values, validate_library_model
from memplan.config.library.types import library_type
from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.estimate import backend_of
from memplan.huggingface.models import build_model
from memplan.huggingface.settings import Settings
from memplan.measure import library
from memplan.ops.trace import Trace

from .small import SMALL

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "starcoder2")

REAL: tuple[dict[str, Any], ...] = (
    # mistralai/Mistral-7B-v0.1
    {
        "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
    },
    # Qwen/Qwen2-0.5B
    {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 24,
    },
    # Qwen/Qwen3-0.6B
    {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": True, "sliding_window": None,
    },
    # google/gemma-2-2b
    {
        "model_type": "gemma2", "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    },
    # google/gemma-3-1b-pt
    {
        "model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 1152, "intermediate_size": 6912,
        "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
        "sliding_window": 512, "sliding_window_pattern": 6,
    },
    # microsoft/Phi-4-mini-instruct
    {
        "model_type": "phi3", "vocab_size": 200064, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8, "partial_rotary_factor": 0.75,
        "rope_scaling": {"type": "longrope"}, "sliding_window": 262144, "tie_word_embeddings": True,
    },
    # allenai/OLMo-2-1124-7B
    {
        "model_type": "olmo2", "vocab_size": 100352, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    },
    # bigcode/starcoder2-3b
    {
        "model_type": "starcoder2", "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288,
        "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2, "use_bias": True,
        "residual_dropout": 0.1, "embedding_dropout": 0.1, "attention_dropout": 0.1, "sliding_window": 4096,
    },
)  # fmt: skip


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def counts(config: Any) -> tuple[int, int]:
    """Parameters of the twin and of the library's class."""
    run = TrainingRun(micro_batch_size=1, sequence_length=8, attention="naive")
    trace = Trace(backend_of(load_device("cpu:2"), (2, 13)))
    twin = build_model(trace, config, Settings.of(run, every_layer=True))
    with torch.device("meta"):
        real = library.build_model(config, run)
    return sum(_elements(each.shape) for each in twin.parameters()), sum(each.numel() for each in real.parameters())


@pytest.mark.parametrize("name", [name for name, model in SMALL.items() if model.model_type in TYPES])
def test_small(name: str) -> None:
    ours, real = counts(validate_library_model(SMALL[name]))
    assert ours == real


@pytest.mark.parametrize("values", REAL, ids=lambda values: values["model_type"])
def test_real(values: dict[str, Any]) -> None:
    """A published config.json, read as such."""
    kind = library_type(values["model_type"])
    config = library_model_from(kind, read_values(kind, values, "config")[0])
    ours, real = counts(config)
    assert ours == real


def test_a_dynamic_rope_is_refused() -> None:
    kind = library_type("mistral")
    values = REAL[0] | {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    with pytest.raises(NotModelledError, match="dynamic"):
        library_model_from(kind, read_values(kind, values, "config")[0])


def test_gemma2_has_no_sdpa() -> None:
    """The library says so itself where it is asked for."""
    assert validate_library_model(SMALL["gemma2"]).attentions == ("naive",)
