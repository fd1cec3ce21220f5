"""Llama and variants."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.llama import Llama

_LLAMA = Llama(
    model_type="llama",
    head_class="LlamaForCausalLM",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
)

SMALL = {
    "llama": _LLAMA,
    "llama, dropout": replace(_LLAMA, attention_dropout=0.1, num_key_value_heads=6),
    "llama, tied": replace(_LLAMA, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
}
