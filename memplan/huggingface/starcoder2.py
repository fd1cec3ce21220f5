"""StarCoder2 (models/starcoder2/modeling_starcoder2.py): LayerNorm, an MLP without a gate, dropout after each block."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama
from memplan.huggingface.activations import ACT2FN
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.dropout import dropout
from memplan.ops.module import Module
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Trace
from memplan.transformer.layers import LayerNorm, Linear


class Attention(llama.Attention):
    """Starcoder2Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        super().add_members(trace, config)
        self.residual_dropout: float = config.residual_dropout

    def biases(self, config: Any) -> tuple[bool, bool]:
        return config.use_bias, config.use_bias

    def finished(self, attn_output: Tensor) -> Tensor:
        return dropout(attn_output, self.residual_dropout)


class MLP(Module):
    """Starcoder2MLP."""

    def __init__(self, trace: Trace, config: Any) -> None:
        super().__init__(trace)
        hidden, inner = sized(config, "hidden_size"), sized(config, "intermediate_size")
        self.c_fc = Linear(trace, hidden, inner, config.use_bias)
        self.c_proj = Linear(trace, inner, hidden, config.use_bias)
        self.act = ACT2FN[config.hidden_act]
        self.residual_dropout: float = config.residual_dropout

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = self.c_fc(hidden_states)
        hidden_states = self.act(hidden_states)
        hidden_states = self.c_proj(hidden_states)
        return dropout(hidden_states, self.residual_dropout)


class DecoderLayer(llama.DecoderLayer):
    """Starcoder2DecoderLayer."""

    attention_class = Attention
    mlp_class = MLP
    norm_class = LayerNorm


class Model(llama.Model):
    """Starcoder2Model."""

    layer_class = DecoderLayer
    norm_class = LayerNorm

    def __init__(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().__init__(trace, config, settings)
        self.embedding_dropout: float = config.embedding_dropout

    def embedded(self, inputs_embeds: Tensor) -> Tensor:
        return dropout(inputs_embeds, self.embedding_dropout)


class ForCausalLM(llama.ForCausalLM):
    """Starcoder2ForCausalLM."""

    model_class = Model
