"""Phi-3 (models/phi3/modeling_phi3.py): queries, keys and values of one projection, gate and up projection in one, part
of each head turned."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.cache import Cache
from memplan.huggingface.indexing import first
from memplan.huggingface.longrope import LongRotaryEmbedding
from memplan.huggingface.rotary import RotaryEmbedding, rotate_half
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, mul
from memplan.ops.module import Module
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import cat, chunk, slice_, slice_from, unsqueeze
from memplan.transformer.layers import Dropout, Linear


class Attention(llama.Attention):
    """Phi3Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        hidden = sized(config, "hidden_size")
        joined = Size(self.width + 2 * self.key_value_width, "(num_attention_heads + 2 num_key_value_heads) * head_dim")
        self.o_proj = Linear(trace, self.width, hidden, False)
        self.qkv_proj = Linear(trace, hidden, joined, False)

    def projected(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        qkv = self.qkv_proj(hidden_states)
        query_states = slice_(qkv, -1, self.width)
        key_states = slice_(qkv, -1, self.key_value_width)  # from `width` on
        value_states = slice_from(qkv, -1, self.width + self.key_value_width)
        query_states = self.headed(query_states, self.heads)
        key_states = self.headed(key_states, self.key_value_heads)
        value_states = self.headed(value_states, self.key_value_heads)
        return query_states, key_states, value_states, qkv

    def rotated(self, query: Tensor, key: Tensor, position_embeddings: llama.Positions) -> tuple[Tensor, Tensor]:
        cos, sin = position_embeddings
        cos = unsqueeze(cos, 1)
        sin = unsqueeze(sin, 1)
        width = cos.shape[-1]
        q_rot, q_pass = first(query, width), slice_from(query, -1, width)
        k_rot, k_pass = first(key, width), slice_from(key, -1, width)
        q_embed = cat([add(mul(q_rot, cos), mul(rotate_half(q_rot), sin)), q_pass], -1)
        k_embed = cat([add(mul(k_rot, cos), mul(rotate_half(k_rot), sin)), k_pass], -1)
        return q_embed, k_embed


class MLP(Module):
    """Phi3MLP."""

    def __init__(self, trace: Trace, config: Any) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "intermediate_size")
        self.gate_up_proj = Linear(trace, hidden, Size(2 * inner, "2 intermediate_size"), False)
        self.down_proj = Linear(trace, inner, hidden, False)
        self.activation_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        up_states = self.gate_up_proj(hidden_states)
        gate, up_states = chunk(up_states, -1)
        up_states = mul(up_states, self.activation_fn(gate))
        down: Tensor = self.down_proj(up_states)
        return down


class DecoderLayer(llama.DecoderLayer):
    """Phi3DecoderLayer."""

    attention_class = Attention
    mlp_class = MLP

    def add_members(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().add_members(trace, config, settings)
        self.resid_attn_dropout = Dropout(trace, config.resid_pdrop)
        self.resid_mlp_dropout = Dropout(trace, config.resid_pdrop)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: llama.Positions,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states, self_attn_weights = self.self_attn(
            hidden_states, attention_mask, position_embeddings, past_key_values
        )
        hidden_states = add(residual, self.resid_attn_dropout(hidden_states))
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = add(residual, self.resid_mlp_dropout(hidden_states))
        del self_attn_weights  # the library's local, alive until the layer returns
        return hidden_states


class Model(llama.Model):
    """Phi3Model."""

    layer_class = DecoderLayer

    def rotary(self, trace: Trace, config: Any) -> Module:
        kind = LongRotaryEmbedding if config.rope_type == "longrope" else RotaryEmbedding
        return kind(trace, Size(config.rotary_width, "partial_rotary_factor * head_dim"))


class ForCausalLM(llama.ForCausalLM):
    """Phi3ForCausalLM."""

    model_class = Model
