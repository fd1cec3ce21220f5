"""config.json files: real ones equal the presets, changed ones change what they should, bad ones name the key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memplan.config.huggingface import from_config
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.models import Model
from memplan.config.parameters import parameter_count
from memplan.errors import NotModelledError

from .configs import BERT, GPT2, LLAMA, T5
from .conftest import refused

Config = dict[str, Any]
REAL = {"gpt2": GPT2, "llama-3-8b": LLAMA, "bert-large": BERT, "t5-base": T5}


def convert(config: Config, **changes: Any) -> Transformer:
    return from_config({**config, **changes}, "config.json")


def reference(source: Any, overrides: Config | None = None) -> Model:
    """The reference transformer of a config.json; left to itself it is the library's model."""
    return load_model(source, overrides, "reference")


def without(config: Config, *keys: str) -> Config:
    return {key: value for key, value in config.items() if key not in keys}


@pytest.mark.parametrize("name", REAL)
def test_real_configs_equal_the_presets(name: str, tmp_path: Path) -> None:
    model = from_config(REAL[name], "config.json")
    assert replace(model, name=name) == load_model(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(REAL[name]))
    assert reference(path) == reference(tmp_path) == reference(f"{tmp_path}/") == model


def test_the_name_shows_no_path() -> None:
    assert convert(GPT2).name == "gpt2"
    assert convert(GPT2, _name_or_path="/home/someone/models/mine/").name == "mine"
    assert convert(GPT2, _name_or_path="openai-community/gpt2-xl").name == "gpt2-xl"
    assert convert(GPT2, _name_or_path="\ud800").name == "gpt2"
    assert convert(GPT2, _name_or_path=7).name == "gpt2"


def test_gpt2_variants() -> None:
    assert convert(GPT2, n_inner=100).intermediate_size == 100
    assert convert(GPT2, n_inner=None).intermediate_size == 3072
    assert convert(GPT2, activation_function="gelu").activation == "gelu"
    assert convert(GPT2, scale_attn_weights=False).scale_attention is False
    assert convert(GPT2, tie_word_embeddings=False).tie_embeddings is False
    assert convert(without(GPT2, "resid_pdrop"), attn_pdrop=0.2).attention_dropout == 0.2
    assert convert(GPT2, architectures=["GPT2ForTokenClassification"]).head == "token_classification"


def test_llama_variants() -> None:
    assert convert(LLAMA, attention_bias=True, mlp_bias=True).feedforward_bias is True
    assert convert(without(LLAMA, "num_key_value_heads")).num_key_value_heads == 32
    assert convert(LLAMA, num_key_value_heads=None).num_key_value_heads == 32
    assert convert(LLAMA, head_dim=64).head_dim == 64
    assert convert(LLAMA, head_dim=None).head_dim == 128
    assert convert(LLAMA, hidden_act="gelu").activation == "geglu"
    assert convert(LLAMA, rope_scaling={"rope_type": "llama3", "factor": 8.0}) == convert(LLAMA)
    assert convert(without(LLAMA, "architectures", "tie_word_embeddings")) == convert(LLAMA)
    assert convert(LLAMA, tie_word_embeddings=True).tie_embeddings is True


def test_bert_heads() -> None:
    masked = convert(BERT)
    for architectures in (None, [], ["BertModel"], ["BertForPreTraining"]):
        assert convert(BERT, architectures=architectures) == masked
    labels = {"0": "bad", "1": "fair", "2": "good"}
    sequence = convert(BERT, architectures=["BertForSequenceClassification"], id2label=labels)
    assert (sequence.head, sequence.pooling, sequence.pooler, sequence.num_labels) == (
        "classification",
        "first",
        True,
        3,
    )
    assert not sequence.head_transform
    # BertForSequenceClassification of bert-base: 109,483,778 parameters with two labels (transformers)
    base = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
    assert parameter_count(convert(BERT, **base, architectures=["BertForSequenceClassification"])) == 109_483_778
    token = convert(BERT, architectures=["BertForTokenClassification"], num_labels=9)
    assert (token.head, token.pooler, token.num_labels) == ("token_classification", False, 9)


def test_t5_variants() -> None:
    uneven = convert(T5, num_decoder_layers=6)
    assert (uneven.num_encoder_layers, uneven.num_layers) == (12, 6)
    assert convert(T5, num_decoder_layers=None).num_layers == 12
    # google/t5-v1_1-base: 247,577,856 parameters
    newer = convert(T5, d_ff=2048, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    assert (newer.activation, parameter_count(newer)) == ("geglu", 247_577_856)
    assert convert(T5, relative_attention_max_distance=64).relative_max_distance == 64


@pytest.mark.parametrize(
    ("config", "required"),
    [
        (GPT2, ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")),
        (LLAMA, ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")),
        (BERT, ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings")),
        (T5, ("vocab_size", "d_model", "num_layers", "num_heads", "d_kv", "d_ff")),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_sizes_that_are_missing_or_wrong_are_named(config: Config, required: tuple[str, ...]) -> None:
    with refused("config.json: ", *(f"{key}: is missing" for key in required)):
        from_config(without(config, *required), "config.json")
    wrong: tuple[Any, ...] = (None, "12", 1.5, 0, -3, True, [1], {}, 2**63, 10**5000)
    for key in required:
        for value in wrong:
            with refused("config.json: ", f"{key}: "):
                convert(config, **{key: value})


@pytest.mark.parametrize(
    ("config", "changes", "part"),
    [
        (GPT2, {"n_head": 7}, "n_head: num_attention_heads: hidden_size 768 is not divisible by 7"),
        (GPT2, {"resid_pdrop": None}, "resid_pdrop: residual_dropout: must be a number"),
        (GPT2, {"embd_pdrop": 1.5}, "embd_pdrop: embedding_dropout: must be a number"),
        (GPT2, {"activation_function": 3}, "activation_function: must be text"),
        (GPT2, {"is_encoder_decoder": True}, "is_encoder_decoder: must be false"),
        (GPT2, {"is_encoder_decoder": "no"}, "is_encoder_decoder: must be true or false"),
        (LLAMA, {"num_key_value_heads": 5}, "num_key_value_heads: 32 attention heads are not divisible by 5"),
        (LLAMA, {"num_key_value_heads": 0}, "num_key_value_heads: must be at least 1"),
        (LLAMA, {"head_dim": 0}, "head_dim: must be at least 1"),
        (LLAMA, {"head_dim": 63}, "head_dim: rotary"),
        (LLAMA, {"attention_bias": None}, "attention_bias: must be true or false"),
        (LLAMA, {"architectures": "LlamaForCausalLM"}, "architectures: must be a list of names"),
        (LLAMA, {"architectures": [None]}, "architectures: must be a list of names"),
        (BERT, {"type_vocab_size": 0}, "type_vocab_size: must be at least 1"),
        (BERT, {"architectures": ["BertForTokenClassification"], "id2label": 3}, "id2label: must be an object"),
        (
            BERT,
            {"architectures": ["BertForTokenClassification"], "id2label": {"0": "a"}, "num_labels": 2},
            "num_labels: does not agree with id2label",
        ),
        (T5, {"is_encoder_decoder": False}, "is_encoder_decoder: must be true"),
        (T5, {"num_decoder_layers": "6"}, "num_decoder_layers: num_layers: must be a whole number"),
        (T5, {"dropout_rate": -1}, "dropout_rate: embedding_dropout: must be a number"),
        ({}, {}, "model_type: is missing; known are llama, gpt2, bert, t5"),
        ({}, {"model_type": ["gpt2"]}, "model_type: must be text"),
    ],
)
def test_inconsistent_configs_name_the_key(config: Config, changes: Config, part: str) -> None:
    with refused(f"config.json: {part}"):
        convert(config, **changes)


@pytest.mark.parametrize(
    ("config", "changes", "part"),
    [
        ({}, {"model_type": "mamba"}, "model_type 'mamba' is not modelled"),
        ({}, {"model_type": "lama"}, 'did you mean "llama"?'),
        (LLAMA, {"quantization_config": {"bits": 4}}, "quantization_config"),
        (LLAMA, {"pretraining_tp": 2}, "pretraining_tp 2"),
        (LLAMA, {"hidden_act": "relu"}, "hidden_act 'relu'"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (LLAMA, {"architectures": ["LlamaForSequenceClassification"]}, "'LlamaForSequenceClassification'"),
        (LLAMA, {"architectures": ["LlamaForTokenClassification"]}, "classifier dropout of 0.1"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention"),
        (GPT2, {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        (GPT2, {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        (GPT2, {"activation_function": "mish"}, "activation_function 'mish'"),
        (GPT2, {"architectures": ["GPT2DoubleHeadsModel"]}, "'GPT2DoubleHeadsModel'"),
        (BERT, {"is_decoder": True}, "is_decoder"),
        (BERT, {"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        (BERT, {"architectures": ["BertForQuestionAnswering"]}, "'BertForQuestionAnswering'"),
        (
            BERT,
            {"architectures": ["BertForSequenceClassification"], "classifier_dropout": 0.3},
            "a classifier dropout of 0.3 beside a residual dropout of 0.1",
        ),
        (BERT, {"chunk_size_feed_forward": 64}, "chunk_size_feed_forward"),
        (T5, {"feed_forward_proj": "gated-relu"}, "feed_forward_proj 'gated-relu'"),
        (T5, {"architectures": ["T5EncoderModel"]}, "'T5EncoderModel'"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(config: Config, changes: Config, part: str) -> None:
    with refused("config.json: ", part, error=NotModelledError):
        convert(config, **changes)


def test_switches_that_are_off_are_fine() -> None:
    assert convert(BERT, pruned_heads={}, is_decoder=False, quantization_config=None) == convert(BERT)


def test_overrides_come_after_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GPT2))
    model = reference(path, {"num_attention_heads": 8})
    assert isinstance(model, Transformer)
    assert (model.num_key_value_heads, model.head_dim, model.name) == (8, 96, "gpt2 (modified)")
    with refused("n_head"):
        reference(path, {"n_head": 8})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ("the file is empty",)),
        (b"{", (":1:2: not valid JSON",)),
        (b'{\n  "model_type": gpt2\n}', (":2:17: not valid JSON",)),
        (b"[]", ("must hold a JSON object",)),
        (b"3", ("must hold a JSON object",)),
        (b"null", ("must hold a JSON object",)),
        (b"[" * 100_000, ("nested too deeply",)),
        (b'{"a":' * 100_000, ("nested too deeply",)),
        (b'{"model_type": "gpt2", "model_type": "t5"}', ("the key 'model_type' is given twice",)),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", ("thousands of digits",)),
        (b"\x89PNG\r\n\x1a\n", ("not a text file",)),
        (b"PK\x03\x04\0\0", ("binary",)),
    ],
)
def test_malformed_json(tmp_path: Path, content: bytes, parts: tuple[str, ...]) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with refused(str(path), *parts):
        load_model(tmp_path)


def test_nan_and_infinity_are_refused_where_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**GPT2, "time_step_limit": [0.0, float("inf")]}))
    assert reference(path) == convert(GPT2)
    path.write_text(json.dumps({**GPT2, "attn_pdrop": float("nan")}))
    with refused("attn_pdrop: attention_dropout: must be a number"):
        reference(path)


def test_a_missing_config_suggests_the_preset(tmp_path: Path) -> None:
    with refused("no such file", 'did you mean the preset "gpt2"?'):
        load_model(str(tmp_path / "gpt2" / "config.json"))
