"""Parameters of GPT-2, OPT, GPT-NeoX, BLOOM and Falcon: as many as the library's own classes have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.config.library.bloom import Bloom
from memplan.config.library.falcon import Falcon
from memplan.config.library.gpt2 import GPT2
from memplan.config.library.gpt_neox import GPTNeoX
from memplan.config.library.model import LibraryModel, validate_library_model
from memplan.config.library.opt import OPT
from memplan.estimate import backend_of
from memplan.huggingface.models import build_model
from memplan.huggingface.settings import Settings
from memplan.ops.trace import Trace

from .small import SMALL, small_run

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from memplan.config.devices import load_device  # noqa: E402
from memplan.measure import library  # noqa: E402

FULL_SIZE: dict[str, LibraryModel] = {
    "gpt2": GPT2(
        model_type="gpt2", head_class="GPT2LMHeadModel", vocab_size=50257, n_embd=768, n_layer=12, n_head=12
    ),
    "opt-350m": OPT(
        model_type="opt", head_class="OPTForCausalLM", vocab_size=50272, hidden_size=1024, ffn_dim=4096,
        num_hidden_layers=24, num_attention_heads=16, word_embed_proj_dim=512, do_layer_norm_before=False,
    ),
    "pythia-1b": GPTNeoX(
        model_type="gpt_neox", head_class="GPTNeoXForCausalLM", vocab_size=50304, hidden_size=2048,
        intermediate_size=8192, num_hidden_layers=16, num_attention_heads=8,
    ),
    "bloom-560m": Bloom(
        model_type="bloom", head_class="BloomForCausalLM", vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16
    ),
    "falcon-7b": Falcon(
        model_type="falcon", head_class="FalconForCausalLM", vocab_size=65024, hidden_size=4544,
        num_hidden_layers=32, num_attention_heads=71,
    ),
    "falcon-40b": Falcon(
        model_type="falcon", head_class="FalconForCausalLM", vocab_size=65024, hidden_size=8192,
        num_hidden_layers=60, num_attention_heads=128, num_kv_heads=8, new_decoder_architecture=True,
    ),
}  # fmt: skip
PUBLISHED = {
    "gpt2": 124_439_808,
    "opt-350m": 331_196_416,
    "pythia-1b": 1_011_781_632,
    "bloom-560m": 559_214_592,
    "falcon-7b": 6_921_720_704,
}
"""Parameters of the checkpoints of these names."""

TYPES = ("gpt2", "opt", "gpt_neox", "bloom", "falcon")
SMALL_ONES = {name: model for name, model in SMALL.items() if model.model_type in TYPES}
OPTIONS: dict[str, LibraryModel] = {
    "gpt2 untied": replace(SMALL["gpt2"], tie_word_embeddings=False),  # type: ignore[call-arg]
    "opt without biases": replace(SMALL["opt"], enable_bias=False),  # type: ignore[call-arg]
    "opt without final norm": replace(SMALL["opt"], _remove_final_layer_norm=True),  # type: ignore[call-arg]
    "gpt_neox tied": replace(SMALL["gpt_neox"], tie_word_embeddings=True, attention_bias=False),  # type: ignore[call-arg]
    "falcon with one norm": replace(SMALL["falcon-new"], num_ln_in_parallel_attn=1),  # type: ignore[call-arg]
}


def counted(config: LibraryModel) -> int:
    """Of the sizes-only model."""
    settings = Settings.of(small_run(config, attention="naive"), every_layer=True)
    trace = Trace(backend_of(load_device("cpu:2"), (2, 13)))
    return sum(_elements(parameter.shape) for parameter in build_model(trace, config, settings).parameters())


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def real(config: LibraryModel) -> int:
    """Of the library's."""
    run = small_run(config, attention="naive")
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in library.build_model(config, run).parameters())


@pytest.mark.parametrize("config", [*SMALL_ONES.values(), *OPTIONS.values()], ids=[*SMALL_ONES, *OPTIONS])
def test_small(config: LibraryModel) -> None:
    config = validate_library_model(config)
    assert counted(config) == real(config)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name: str) -> None:
    config = validate_library_model(FULL_SIZE[name])
    assert counted(config) == real(config) == PUBLISHED.get(name, counted(config))
