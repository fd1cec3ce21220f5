"""The closed form, worked by hand for the parts that no preset has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.parameters import parameter_count
from memplan.errors import ConfigurationError

Small = Callable[..., Transformer]

# hidden 24, 4 heads of 6, feed-forward 96, vocabulary 100, two layers, biases, LayerNorm before each block
ATTENTION = 4 * (24 * 24 + 24)
FEEDFORWARD = 24 * 96 + 96 + 96 * 24 + 24
LAYER = ATTENTION + FEEDFORWARD + 2 * 48
BODY = 100 * 24 + 2 * LAYER + 48


def test_a_small_decoder(small: Small) -> None:
    assert parameter_count(small()) == BODY
    assert parameter_count(small(tie_embeddings=False)) == BODY + 100 * 24
    assert parameter_count(small(head_bias=True)) == BODY + 100
    assert parameter_count(small(norm_placement="post")) == BODY - 48
    assert parameter_count(small(norm="rmsnorm")) == BODY - 5 * 24
    assert parameter_count(small(activation="swiglu")) == BODY + 2 * (24 * 96 + 96)
    assert parameter_count(small(num_key_value_heads=1)) == BODY - 2 * 2 * (24 * 18 + 18)
    assert parameter_count(small(positions="relative")) == BODY + 32 * 4
    assert parameter_count(small(positions="alibi")) == BODY
    latent = {"kv_lora_rank": 5, "rope_head_dim": 4, "head_dim": 7, "value_head_dim": 6, "attention_bias": False}
    keys_and_values = 24 * (5 + 4) + 5 + 5 * 4 * (3 + 6) + 4 * 6 * 24
    assert parameter_count(small(**latent)) == BODY - 2 * ATTENTION + 2 * (24 * 28 + keys_and_values)
    low = 24 * 3 + 3 + 3 * 28
    assert parameter_count(small(**latent, q_lora_rank=3)) == BODY - 2 * ATTENTION + 2 * (low + keys_and_values)
    experts = small(num_experts=5, num_experts_per_token=2, feedforward_bias=False)
    assert parameter_count(experts) == BODY - 2 * FEEDFORWARD + 2 * 5 * (2 * 24 * 96 + 24)
    assert parameter_count(small(parallel_blocks=True)) == BODY - 2 * 48


def test_classifiers(small: Small) -> None:
    classifier = 24 * 3 + 3
    assert parameter_count(small(head="token_classification", num_labels=3)) == BODY + classifier
    assert parameter_count(small(head="classification", num_labels=3)) == BODY + classifier
    # an untied output projection belongs to language modelling alone
    assert parameter_count(small(head="classification", num_labels=3, tie_embeddings=False)) == BODY + classifier
    with_token = small(architecture="encoder", head="classification", pooling="class_token", pooler=True, num_labels=3)
    assert parameter_count(with_token) == BODY + classifier + 24 + (24 * 24 + 24)


def test_an_encoder_decoder(small: Small) -> None:
    model = small(architecture="encoder-decoder", num_encoder_layers=3, positions="learned", max_positions=10)
    cross = ATTENTION + 48
    assert parameter_count(model) == 100 * 24 + 3 * LAYER + 2 * (LAYER + cross) + 2 * 48 + 2 * 240


def test_sizes_beyond_64_bits() -> None:
    assert parameter_count(load_model("gpt2", {"num_layers": 2**62, "hidden_size": 12 * 2**50})) > 2**160


def test_a_wrong_model_has_no_count(small: Small) -> None:
    with pytest.raises(ConfigurationError):
        parameter_count(small(hidden_size=-24))
