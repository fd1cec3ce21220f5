"""GPT-OSS."""

from __future__ import annotations

from memplan.config.library.gpt_oss import GptOss

SMALL = {
    "gpt_oss": GptOss(
        model_type="gpt_oss",
        head_class="GptOssForCausalLM",
        name="gpt_oss",
        vocab_size=311,
        hidden_size=48,
        intermediate_size=56,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=10,
        num_local_experts=5,
        num_experts_per_tok=3,
    ),
}
