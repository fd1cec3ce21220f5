"""StarCoder2, with dropout and with a window."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.starcoder import Starcoder2

_STARCODER2 = Starcoder2(
    model_type="starcoder2",
    head_class="Starcoder2ForCausalLM",
    name="starcoder2",
    vocab_size=309,
    hidden_size=54,
    intermediate_size=86,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
)

SMALL = {
    "starcoder2": _STARCODER2,
    "starcoder2-dropout": replace(
        _STARCODER2, sliding_window=7, attention_dropout=0.1, residual_dropout=0.1, embedding_dropout=0.1
    ),
}
