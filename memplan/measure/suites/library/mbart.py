"""MBart."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.mbart import MBart

_MBART = MBart(
    model_type="mbart",
    head_class="MBartForConditionalGeneration",
    name="mbart",
    vocab_size=311,
    d_model=60,
    encoder_layers=3,
    encoder_attention_heads=6,
    encoder_ffn_dim=80,
    decoder_layers=4,
    decoder_attention_heads=5,
    decoder_ffn_dim=72,
    max_position_embeddings=41,
    dropout=0.0,
)

SMALL = {
    "mbart": _MBART,
    "mbart-dropout": replace(_MBART, name="mbart-dropout", dropout=0.1, attention_dropout=0.1, activation_dropout=0.1),
}
