"""BLOOM, without dropout and with."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.bloom import Bloom

_BLOOM = Bloom(
    model_type="bloom",
    head_class="BloomForCausalLM",
    name="bloom",
    vocab_size=311,
    hidden_size=48,
    n_layer=3,
    n_head=6,
)

SMALL = {
    "bloom": _BLOOM,
    "bloom-dropout": replace(_BLOOM, hidden_dropout=0.1, attention_dropout=0.1, tie_word_embeddings=False),
}
