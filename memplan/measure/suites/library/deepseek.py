"""DeepSeek-V3 and V2."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.deepseek import DeepseekV2, DeepseekV3

_DEEPSEEK_V3 = DeepseekV3(
    model_type="deepseek_v3",
    head_class="DeepseekV3ForCausalLM",
    name="deepseek_v3",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=104,
    moe_intermediate_size=56,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=6,
    q_lora_rank=20,
    kv_lora_rank=28,
    qk_nope_head_dim=10,
    qk_rope_head_dim=6,
    v_head_dim=12,
    n_routed_experts=12,
    num_experts_per_tok=3,
    n_group=4,
    topk_group=2,
    first_k_dense_replace=1,
)

_DEEPSEEK_V2 = DeepseekV2(
    model_type="deepseek_v2",
    head_class="DeepseekV2ForCausalLM",
    name="deepseek_v2",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=104,
    moe_intermediate_size=56,
    num_hidden_layers=4,
    num_attention_heads=6,
    q_lora_rank=20,
    kv_lora_rank=28,
    qk_nope_head_dim=10,
    qk_rope_head_dim=6,
    v_head_dim=12,
    n_routed_experts=12,
    n_shared_experts=2,
    num_experts_per_tok=3,
    n_group=4,
    topk_group=2,
    topk_method="group_limited_greedy",
    first_k_dense_replace=1,
)

SMALL = {
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v3, one projection": replace(
        _DEEPSEEK_V3,
        q_lora_rank=None,
        v_head_dim=16,
        attention_bias=True,
        attention_dropout=0.1,
        n_shared_experts=2,
        norm_topk_prob=False,
        rope_interleave=False,
        first_k_dense_replace=0,
        tie_word_embeddings=True,
    ),
    "deepseek_v2": _DEEPSEEK_V2,
    "deepseek_v2, one projection": replace(
        _DEEPSEEK_V2,
        q_lora_rank=None,
        v_head_dim=16,
        attention_bias=True,
        mlp_bias=True,
        attention_dropout=0.1,
        n_shared_experts=1,
        topk_method="greedy",
        first_k_dense_replace=0,
        tie_word_embeddings=True,
    ),
}
