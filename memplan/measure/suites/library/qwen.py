"""Qwen2 and Qwen3, with full attention and with layers that look through a window."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.qwen import Qwen2, Qwen3

_QWEN2 = Qwen2(
    model_type="qwen2",
    head_class="Qwen2ForCausalLM",
    name="qwen2",
    vocab_size=307,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)

_QWEN3 = Qwen3(
    model_type="qwen3",
    head_class="Qwen3ForCausalLM",
    name="qwen3",
    vocab_size=307,
    hidden_size=48,
    intermediate_size=88,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=10,
)

SMALL = {
    "qwen2": _QWEN2,
    "qwen2-sliding": replace(_QWEN2, use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": _QWEN3,
    "qwen3-sliding": replace(_QWEN3, use_sliding_window=True, sliding_window=9, max_window_layers=2),
}
