"""Qwen3 (models/qwen3/modeling_qwen3.py): Qwen2 with a norm over each head's queries and keys."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama, qwen2
from memplan.huggingface.mistral import MLP
from memplan.huggingface.norms import RMSNorm
from memplan.ops.size import Size
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.ops.views import reshape, transpose


class Attention(llama.Attention):
    """Qwen3Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        super().add_members(trace, config)
        self.q_norm = RMSNorm(trace, self.head_dim)
        self.k_norm = RMSNorm(trace, self.head_dim)

    def projected(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        query_states = transpose(self.q_norm(self.split(self.q_proj(hidden_states), self.heads)), 1, 2)
        key_states = transpose(self.k_norm(self.split(self.k_proj(hidden_states), self.key_value_heads)), 1, 2)
        value_states = self.headed(self.v_proj(hidden_states), self.key_value_heads)
        return query_states, key_states, value_states

    def split(self, states: Tensor, heads: Size) -> Tensor:
        """[B, S, heads * D] -> [B, S, heads, D]."""
        batch, length, _ = states.shape
        return reshape(states, (batch, length, heads, self.head_dim))


class DecoderLayer(llama.DecoderLayer):
    """Qwen3DecoderLayer."""

    attention_class = Attention
    mlp_class = MLP


class Model(qwen2.Model):
    """Qwen3Model."""

    layer_class = DecoderLayer


class ForCausalLM(llama.ForCausalLM):
    """Qwen3ForCausalLM."""

    model_class = Model
