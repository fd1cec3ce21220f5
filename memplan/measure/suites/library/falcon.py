"""Falcon: with one key-value head, in the new decoder architecture with groups, and as heads one after the other."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.falcon import Falcon

_FALCON = Falcon(
    model_type="falcon",
    head_class="FalconForCausalLM",
    name="falcon",
    vocab_size=311,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    ffn_hidden_size=80,
)

SMALL = {
    "falcon": _FALCON,
    "falcon-new": replace(_FALCON, new_decoder_architecture=True, num_kv_heads=2, hidden_dropout=0.1),
    "falcon-heads": replace(
        _FALCON, multi_query=False, parallel_attn=False, bias=True, hidden_dropout=0.1, attention_dropout=0.1
    ),
}
