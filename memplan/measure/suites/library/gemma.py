"""Gemma 2 and 3. The sequence is longer than the window; "-wide": it fits into it."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.gemma import Gemma2, Gemma3Text

_GEMMA2 = Gemma2(
    model_type="gemma2",
    head_class="Gemma2ForCausalLM",
    name="gemma2",
    vocab_size=313,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    sliding_window=7,
)

_GEMMA3 = Gemma3Text(
    model_type="gemma3_text",
    head_class="Gemma3ForCausalLM",
    name="gemma3",
    vocab_size=313,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
    sliding_window=7,
    sliding_window_pattern=3,
)

SMALL = {
    "gemma2": _GEMMA2,
    "gemma2-wide": replace(_GEMMA2, sliding_window=4096),
    "gemma3_text": _GEMMA3,
    "gemma3_text-wide": replace(_GEMMA3, sliding_window=4096),
}
