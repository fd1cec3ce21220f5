"""OLMo 2 (models/olmo2/modeling_olmo2.py): norms after each block and over queries and keys, positions in fp32."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama
from memplan.huggingface.cache import Cache
from memplan.huggingface.mistral import MLP
from memplan.huggingface.norms import RMSNorm
from memplan.huggingface.rotary import RotaryEmbedding, apply_rotary_pos_emb
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.elementwise import add, mean, mul, rsqrt, square, to
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace


class OlmoRMSNorm(RMSNorm):
    """Olmo2RMSNorm: cast back after the weight."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        dtype = hidden_states.dtype
        hidden_states = to(hidden_states, "fp32")
        variance = mean(square(hidden_states), -1, keepdim=True)
        hidden_states = mul(hidden_states, rsqrt(add(variance, 1e-6)))
        return to(mul(self.weight, hidden_states), dtype)


class WideRotaryEmbedding(RotaryEmbedding):
    """Olmo2RotaryEmbedding: the tables stay in fp32."""

    def dtype_of(self, x: Tensor) -> str:
        return "fp32"


class Attention(llama.Attention):
    """Olmo2Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        super().add_members(trace, config)
        self.q_norm = OlmoRMSNorm(trace, self.width)
        self.k_norm = OlmoRMSNorm(trace, self.key_value_width)

    def projected(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        query_states = self.q_norm(self.q_proj(hidden_states))
        key_states = self.k_norm(self.k_proj(hidden_states))
        value_states = self.v_proj(hidden_states)
        query_states = self.headed(query_states, self.heads)
        key_states = self.headed(key_states, self.key_value_heads)
        value_states = self.headed(value_states, self.key_value_heads)
        return query_states, key_states, value_states

    def rotated(self, query: Tensor, key: Tensor, position_embeddings: llama.Positions) -> tuple[Tensor, Tensor]:
        cos, sin = position_embeddings
        q_embed, k_embed = apply_rotary_pos_emb(query, key, cos, sin)
        return to(q_embed, query.dtype), to(k_embed, key.dtype)


class DecoderLayer(llama.DecoderLayer):
    """Olmo2DecoderLayer."""

    def add_members(self, trace: Trace, config: Any, settings: Settings) -> None:
        hidden = sized(config, "hidden_size")
        self.self_attn = Attention(trace, config, settings)
        self.mlp = MLP(trace, config)
        self.post_attention_layernorm = OlmoRMSNorm(trace, hidden)
        self.post_feedforward_layernorm = OlmoRMSNorm(trace, hidden)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: llama.Positions,
        position_ids: Tensor,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        residual = hidden_states
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, position_embeddings, past_key_values)
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.mlp(hidden_states)
        hidden_states = self.post_feedforward_layernorm(hidden_states)
        return add(residual, hidden_states)


class Model(llama.Model):
    """Olmo2Model."""

    layer_class = DecoderLayer
    norm_class = OlmoRMSNorm

    def rotary(self, trace: Trace, config: Any) -> Module:
        return WideRotaryEmbedding(trace, sized(config, "head_dim"))


class ForCausalLM(llama.ForCausalLM):
    """Olmo2ForCausalLM."""

    model_class = Model
