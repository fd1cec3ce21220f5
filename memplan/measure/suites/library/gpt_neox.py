"""GPT-NeoX: attention and feed-forward beside each other, and one after the other with dropout."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.gpt_neox import GPTNeoX

_NEOX = GPTNeoX(
    model_type="gpt_neox",
    head_class="GPTNeoXForCausalLM",
    name="gpt_neox",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    rotary_pct=0.5,
)

SMALL = {
    "gpt_neox": _NEOX,
    "gpt_neox-dropout": replace(_NEOX, use_parallel_residual=False, attention_dropout=0.1, hidden_dropout=0.1),
}
