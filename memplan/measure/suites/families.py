"""Models of every family at the sizes of real ones, but few layers: what a layer does shows after two or three."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.model import Transformer

GPT = Transformer(
    name="gpt-like",
    architecture="decoder",
    vocab_size=50257,
    hidden_size=768,
    num_layers=4,
    num_attention_heads=12,
    intermediate_size=3072,
    max_positions=4096,
    activation="gelu_tanh",
)
LLAMA = Transformer(
    name="llama-like",
    architecture="decoder",
    vocab_size=32000,
    hidden_size=1024,
    num_layers=6,
    num_attention_heads=16,
    num_key_value_heads=4,
    intermediate_size=2816,
    positions="rotary",
    norm="rmsnorm",
    activation="swiglu",
    attention_bias=False,
    feedforward_bias=False,
    tie_embeddings=False,
)
BERT = Transformer(
    name="bert-like",
    architecture="encoder",
    vocab_size=30522,
    hidden_size=768,
    num_layers=4,
    num_attention_heads=12,
    intermediate_size=3072,
    max_positions=1024,
    norm_placement="post",
    embedding_norm=True,
    token_type_vocab_size=2,
    head_transform=True,
    head_bias=True,
)
CLASSIFIER = replace(
    BERT, name="classifier", head="classification", head_transform=False, head_bias=False, num_labels=5
)
ORIGINAL = Transformer(
    name="original-transformer-like",
    architecture="encoder-decoder",
    vocab_size=37000,
    hidden_size=512,
    num_layers=3,
    num_encoder_layers=3,
    num_attention_heads=8,
    intermediate_size=2048,
    positions="sinusoidal",
    norm_placement="post",
    activation="relu",
    scale_embeddings=True,
)
T5 = Transformer(
    name="t5-like",
    architecture="encoder-decoder",
    vocab_size=32128,
    hidden_size=512,
    num_layers=4,
    num_encoder_layers=4,
    num_attention_heads=8,
    intermediate_size=2048,
    positions="relative",
    norm="rmsnorm",
    activation="relu",
    attention_bias=False,
    feedforward_bias=False,
    scale_attention=False,
)
FAMILIES = (GPT, LLAMA, BERT, ORIGINAL, T5)
