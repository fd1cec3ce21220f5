"""DeBERTa v2 and v3: as many parameters as the library's own class has, of small models and of real ones, and how the
keys of a config.json are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.config.library.deberta import DebertaV2
from memplan.config.library.model import (
    LibraryModel,
    library_model_from,
    read_values,
    validate_library_model,
)
from memplan.errors import ConfigurationError, NotModelledError
from memplan.huggingface.models import build_model
from memplan.huggingface.settings import Settings
from memplan.ops.backend import Backend
from memplan.ops.size import product
from memplan.ops.trace import Trace

from .small import SMALL, small_run

V3_BASE: dict[str, Any] = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
"""microsoft/deberta-v3-base's config.json."""

_LITTLE = SMALL["deberta-v2"]
SMALLER = {
    "one kind": {"pos_att_type": ("c2p",)},
    "shared": {"share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "narrow embeddings": {"embedding_size": 20},
    "norm of nothing": {"relative_attention": False, "norm_rel_ebd": "layer_norm"},
    "untied": {"tie_word_embeddings": False},
    "distances": {"max_relative_positions": 7},
}


def _read(**changes: object) -> LibraryModel:
    values, _ = read_values(DebertaV2, V3_BASE | changes, "config.json")
    return library_model_from(DebertaV2, values)


def _ours(config: LibraryModel) -> int:
    model = build_model(Trace(Backend("cpu")), config, Settings("naive", "none", every_layer=True))
    return sum(int(product(parameter.shape)) for parameter in model.parameters())


def _theirs(config: LibraryModel) -> int:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from memplan.measure import library

    with torch.device("meta"):
        model = library.build_model(config, small_run(config, attention="naive"))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("deberta-v2")])
def test_small_models(name: str) -> None:
    config = validate_library_model(SMALL[name])
    assert _ours(config) == _theirs(config)


@pytest.mark.parametrize("changes", SMALLER.values(), ids=SMALLER)
def test_options(changes: dict[str, Any]) -> None:
    config = validate_library_model(replace(_LITTLE, **changes))
    assert _ours(config) == _theirs(config)


@pytest.mark.parametrize("legacy", [True, False])
def test_v3_base(legacy: bool) -> None:
    config = _read(legacy=legacy)
    assert _ours(config) == _theirs(config)


def test_limits_of_minus_one_are_none() -> None:
    config = _read(position_buckets=-1)
    assert isinstance(config, DebertaV2)
    assert (config.position_buckets, config.max_relative_positions, config.relative_positions) == (0, 0, 512)
    assert config.pos_att_type == ("p2c", "c2p")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size 3"),
        ({"pos_att_type": []}, "relative_attention without"),
        ({"pad_token_id": None}, "pad_token_id null"),
        ({"attention_head_size": 63}, "attention_head_size 63"),
    ],
)
def test_what_has_no_rule_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(NotModelledError, match=said):
        _read(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"position_buckets": 1}, "position_buckets"), ({"legacy": False, "embedding_size": 20}, "embedding_size")],
)
def test_what_does_not_fit(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        _read(**changes)
