"""OLMo 2."""

from __future__ import annotations

from memplan.config.library.olmo import Olmo2

SMALL = {
    "olmo2": Olmo2(
        model_type="olmo2",
        head_class="Olmo2ForCausalLM",
        name="olmo2",
        vocab_size=309,
        hidden_size=54,
        intermediate_size=86,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
    ),
}
