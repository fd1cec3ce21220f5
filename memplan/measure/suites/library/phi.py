"""Phi-3: each head turned whole or in part, with dropout, with a window, and with frequencies for long sequences."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.phi import Phi3

_PHI3 = Phi3(
    model_type="phi3",
    head_class="Phi3ForCausalLM",
    name="phi3",
    vocab_size=317,
    hidden_size=60,
    intermediate_size=84,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
)

SMALL = {
    "phi3": replace(_PHI3, sliding_window=4096),
    "phi3-sliding-dropout": replace(_PHI3, sliding_window=7, resid_pdrop=0.1, attention_dropout=0.1),
    "phi3-partial-long": replace(_PHI3, partial_rotary_factor=0.6, rope_type="longrope"),
}
