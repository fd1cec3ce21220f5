"""Qwen3's mixture of experts: all layers with experts, and every second one."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.qwen_moe import Qwen3Moe

_QWEN3_MOE = Qwen3Moe(
    model_type="qwen3_moe",
    head_class="Qwen3MoeForCausalLM",
    name="qwen3_moe",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=104,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    moe_intermediate_size=56,
    num_experts=7,
    num_experts_per_tok=3,
    norm_topk_prob=True,
)

SMALL = {
    "qwen3_moe": _QWEN3_MOE,
    "qwen3_moe-mixed": replace(_QWEN3_MOE, decoder_sparse_step=2, norm_topk_prob=False, num_hidden_layers=4),
}
