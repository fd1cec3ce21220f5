"""Gemma 3's text model (models/gemma3/modeling_gemma3.py): Gemma 2 with norms over queries and keys instead of squeezed
scores, and positions of its own for each type of layer."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import gemma2, llama
from memplan.huggingface.rotary import RotaryEmbedding
from memplan.huggingface.sizes import sized
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace


class Attention(llama.Attention):
    """Gemma3Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        super().add_members(trace, config)
        self.q_norm = gemma2.GemmaRMSNorm(trace, self.head_dim)
        self.k_norm = gemma2.GemmaRMSNorm(trace, self.head_dim)

    def projected(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        query_states, key_states, value_states = super().projected(hidden_states)
        query_states = self.q_norm(query_states)
        key_states = self.k_norm(key_states)
        return query_states, key_states, value_states


class DecoderLayer(gemma2.DecoderLayer):
    """Gemma3DecoderLayer."""

    attention_class = Attention


class Rotary(Module):
    """Gemma3RotaryEmbedding: frequencies for each type of layer that there is."""

    def __init__(self, trace: Trace, width: int, types: tuple[str, ...]) -> None:
        super().__init__(trace)
        self.of = {name: RotaryEmbedding(trace, width) for name in sorted(set(types))}
        for name, rotary in self.of.items():
            setattr(self, name, rotary)

    def forward(self, x: Tensor, position_ids: Tensor, attention_type: str) -> llama.Positions:
        positions: llama.Positions = self.of[attention_type](x, position_ids)
        return positions


class Model(gemma2.Model):
    """Gemma3TextModel."""

    layer_class = DecoderLayer

    def rotary(self, trace: Trace, config: Any) -> Module:
        return Rotary(trace, sized(config, "head_dim"), self.types)

    def positions(self, hidden_states: Tensor, position_ids: Tensor) -> dict[str, llama.Positions]:
        return {name: self.rotary_emb(hidden_states, position_ids, name) for name in sorted(set(self.types))}


class ForCausalLM(gemma2.ForCausalLM):
    """Gemma3ForCausalLM."""

    model_class = Model
