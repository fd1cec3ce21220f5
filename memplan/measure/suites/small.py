"""Small models of every family: a run of one takes milliseconds, and its memory is a few MB."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.model import Transformer

DECODER = Transformer(
    name="decoder",
    architecture="decoder",
    vocab_size=500,
    hidden_size=64,
    num_layers=4,
    num_attention_heads=4,
    intermediate_size=256,
    max_positions=1024,
)
ENCODER = replace(
    DECODER,
    name="encoder",
    architecture="encoder",
    num_layers=3,
    token_type_vocab_size=2,
    embedding_norm=True,
    norm_placement="post",
    head_transform=True,
    head_bias=True,
)
ENCODER_DECODER = replace(
    DECODER,
    name="encoder-decoder",
    architecture="encoder-decoder",
    num_layers=4,
    num_encoder_layers=5,
    positions="sinusoidal",
    max_positions=0,
    norm_placement="post",
    activation="relu",
    scale_embeddings=True,
)
LLAMA = replace(
    DECODER,
    name="llama-like",
    num_key_value_heads=2,
    positions="rotary",
    max_positions=0,
    norm="rmsnorm",
    activation="swiglu",
    attention_bias=False,
    feedforward_bias=False,
    tie_embeddings=False,
)
CLASSIFIER = replace(ENCODER, head="classification", head_transform=False, head_bias=False, num_labels=5)
