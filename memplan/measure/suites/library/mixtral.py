"""Mixtral."""

from __future__ import annotations

from memplan.config.library.mixtral import Mixtral

SMALL = {
    "mixtral": Mixtral(
        model_type="mixtral",
        head_class="MixtralForCausalLM",
        name="mixtral",
        vocab_size=311,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=5,
        num_experts_per_tok=2,
    ),
}
