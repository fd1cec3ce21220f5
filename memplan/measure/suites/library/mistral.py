"""Mistral, with a window that the sequence is longer than and one that it fits into."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.mistral import Mistral

_MISTRAL = Mistral(
    model_type="mistral",
    head_class="MistralForCausalLM",
    name="mistral",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    sliding_window=7,
)

SMALL = {
    "mistral": _MISTRAL,
    "mistral-wide": replace(_MISTRAL, sliding_window=4096),
}
