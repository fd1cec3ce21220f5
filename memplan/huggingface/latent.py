"""Attention over keys and values made from one narrow vector a token, and the layers round it
(models/deepseek_v3/modeling_deepseek_v3.py; those of deepseek_v2 differ in how positions turn)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memplan.config.library.deepseek import Deepseek
from memplan.errors import NotModelledError
from memplan.huggingface import sparse
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.attention import attend
from memplan.huggingface.cache import Cache
from memplan.huggingface.experts import Experts
from memplan.huggingface.llama import MLP
from memplan.huggingface.norms import RMSNorm
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.assign import assign
from memplan.ops.elementwise import add
from memplan.ops.module import Module
from memplan.ops.size import Size, product
from memplan.ops.tensor import Tensor, empty
from memplan.ops.trace import Trace
from memplan.ops.views import cat, contiguous, expand, reshape, split, transpose
from memplan.transformer.layers import Linear

Rotate = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]
"""Turns queries and keys by what the model makes of positions."""


class Attention(Module):
    """DeepseekV3Attention. The narrow vector and the part of the keys that turns are what is cached."""

    layer_idx = 0

    def __init__(self, trace: Trace, config: Deepseek, settings: Settings, rotate: Rotate) -> None:
        super().__init__(trace)
        self.implementation = settings.attention
        self.rotate = rotate
        self.dropout = config.attention_dropout
        self.heads = sized(config, "num_attention_heads")
        self.nope, self.rope = sized(config, "qk_nope_head_dim"), sized(config, "qk_rope_head_dim")
        self.value = sized(config, "v_head_dim")
        self.rank = sized(config, "kv_lora_rank")
        self.key = Size(self.nope + self.rope, "(qk_nope_head_dim + qk_rope_head_dim)")
        self.both = Size(self.nope + self.value, "(qk_nope_head_dim + v_head_dim)")
        hidden, bias = sized(config, "hidden_size"), config.attention_bias
        width = product((self.heads, self.key))
        self.has_narrow_query = config.q_lora_rank is not None
        if config.q_lora_rank is None:
            self.q_proj = Linear(trace, hidden, width, False)
        else:
            rank = sized(config, "q_lora_rank")
            self.q_a_proj = Linear(trace, hidden, rank, bias)
            self.q_a_layernorm = RMSNorm(trace, rank)
            self.q_b_proj = Linear(trace, rank, width, False)
        compressed = Size(self.rank + self.rope, "(kv_lora_rank + qk_rope_head_dim)")
        self.kv_a_proj_with_mqa = Linear(trace, hidden, compressed, bias)
        self.kv_a_layernorm = RMSNorm(trace, self.rank)
        self.kv_b_proj = Linear(trace, self.rank, product((self.heads, self.both)), False)
        self.o_proj = Linear(trace, product((self.heads, self.value)), hidden, bias)

    def queries(self, hidden_states: Tensor) -> Tensor:
        """[B, S, H * D], by one projection or through a narrow vector."""
        queries: Tensor
        if self.has_narrow_query:
            queries = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_states)))
        else:
            queries = self.q_proj(hidden_states)
        return queries

    def expand_kv(self, kv_nope: Tensor, k_rot: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of every head. Keys are written part by part into a fresh tensor."""
        batch, _, length, _ = kv_nope.shape
        kv_nope = transpose(reshape(self.kv_b_proj(kv_nope), (batch, length, self.heads, self.both)), 1, 2)
        k_nope, value_states = split(kv_nope, (self.nope, self.value), -1)
        k_rot = expand(k_rot, (batch, self.heads, length, self.rope))
        shape = (batch, self.heads, length, self.key)
        key_states = empty(kv_nope.trace, shape, kv_nope.dtype, "aten::new_empty")
        key_states = assign(key_states, self.nope, k_nope)
        key_states = assign(key_states, self.rope, k_rot)
        return key_states, value_states

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: Any,
        past_key_values: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        if hidden_states.trace.backend.cuda:
            raise NotModelledError("attention of DeepSeek-V2 and V3 on CUDA is not modelled")
        batch, length, _ = hidden_states.shape
        q_states = self.queries(hidden_states)
        q_states = transpose(reshape(q_states, (batch, length, self.heads, self.key)), 1, 2)
        q_pass, q_rot = split(q_states, (self.nope, self.rope), -1)
        compressed_kv = self.kv_a_proj_with_mqa(hidden_states)
        kv_nope, k_rot = split(compressed_kv, (self.rank, self.rope), -1)
        kv_nope = self.kv_a_layernorm(kv_nope)
        kv_nope = reshape(kv_nope, (batch, 1, length, self.rank))
        k_rot = reshape(k_rot, (batch, 1, length, self.rope))
        q_rot, k_rot = self.rotate(q_rot, k_rot, position_embeddings)
        if past_key_values is not None:
            kv_nope, k_rot = past_key_values.update(kv_nope, k_rot, self.layer_idx)
        query_states = cat((q_pass, q_rot), -1)
        key_states, value_states = self.expand_kv(kv_nope, k_rot)
        attn_output, attn_weights = attend(
            self.implementation, query_states, key_states, value_states, attention_mask, self.dropout
        )
        attn_output = contiguous(reshape(attn_output, (batch, length, self.o_proj.in_features)))
        attn_output = self.o_proj(attn_output)
        return attn_output, attn_weights


class DenseMLP(MLP):
    """DeepseekV3MLP, with biases in V2 where the configuration says so."""

    def __init__(self, trace: Trace, config: Deepseek, inner: Size) -> None:
        Module.__init__(self, trace)
        hidden, bias = sized(config, "hidden_size"), bool(getattr(config, "mlp_bias", False))
        self.gate_proj = Linear(trace, hidden, inner, bias)
        self.up_proj = Linear(trace, hidden, inner, bias)
        self.down_proj = Linear(trace, inner, hidden, bias)
        self.act_fn = ACT2FN[config.hidden_act]


class MoE(Module):
    """DeepseekV3MoE: experts that a gate chooses, and those that every token goes to."""

    def __init__(self, trace: Trace, config: Deepseek, gate: Module) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "moe_intermediate_size")
        self.experts = Experts(trace, sized(config, "n_routed_experts"), hidden, inner, config.hidden_act)
        self.gate = gate
        shared = Size(config.shared_intermediate_size, "(moe_intermediate_size * n_shared_experts)")
        self.shared_experts = DenseMLP(trace, config, shared)

    def forward(self, hidden_states: Tensor) -> Tensor:
        residuals = hidden_states
        batch, length, hidden = hidden_states.shape
        _, topk_weights, topk_indices = self.gate(hidden_states)
        hidden_states = reshape(hidden_states, (product((batch, length)), hidden))
        hidden_states = reshape(self.experts(hidden_states, topk_indices, topk_weights), (batch, length, hidden))
        return add(hidden_states, self.shared_experts(residuals))


def decoder(
    trace: Trace, config: Deepseek, settings: Settings, gate: Callable[[], Module], rotate: Rotate
) -> sparse.Model:
    """DeepseekV3Model: the first layers have one MLP, all others experts behind a `gate`."""

    def layer(index: int) -> Module:
        attention = Attention(trace, config, settings, rotate)
        dense = index < config.first_k_dense_replace
        block = DenseMLP(trace, config, sized(config, "intermediate_size")) if dense else MoE(trace, config, gate())
        return sparse.DecoderLayer(trace, config, attention, block)

    alike = not 0 < config.first_k_dense_replace < config.num_hidden_layers
    return sparse.Model(trace, config, settings, layer, alike=alike)
