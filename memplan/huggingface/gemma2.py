"""Gemma 2 (models/gemma2/modeling_gemma2.py): norms before and after each block, scaled embeddings, squeezed scores and
logits."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama, mistral
from memplan.huggingface.cache import Cache
from memplan.huggingface.norms import RMSNorm
from memplan.huggingface.settings import Settings
from memplan.huggingface.sizes import sized
from memplan.ops.activation import tanh
from memplan.ops.elementwise import add, div, mean, mul, rsqrt, square, to
from memplan.ops.tensor import Tensor
from memplan.ops.trace import Repeat, Trace
from memplan.transformer.layers import Embedding


class GemmaRMSNorm(RMSNorm):
    """Gemma2RMSNorm: in fp32 to the end, scaled by 1 + weight."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        output = _normalized(to(hidden_states, "fp32"))
        output = mul(output, add(to(self.weight, "fp32"), 1.0))
        return to(output, hidden_states.dtype)


def _normalized(x: Tensor) -> Tensor:
    return mul(x, rsqrt(add(mean(square(x), -1, keepdim=True), 1e-6)))


class ScaledEmbedding(Embedding):
    """Gemma2TextScaledWordEmbedding. The scale is a tensor, in the weight's dtype."""

    def __init__(self, trace: Trace, rows: int, width: int) -> None:
        super().__init__(trace, rows, width)
        self.embed_scale = self.buffer()

    def _allocate_buffers(self, repeat: Repeat | None) -> None:
        self.embed_scale.dtype = self.weight.dtype
        super()._allocate_buffers(repeat)

    def forward(self, indices: Tensor) -> Tensor:
        return mul(super().forward(indices), self.embed_scale)


class Attention(llama.Attention):
    """Gemma2Attention."""

    def add_members(self, trace: Trace, config: Any) -> None:
        super().add_members(trace, config)
        self.softcap = config.attn_logit_softcapping


class MLP(mistral.MLP):
    """Gemma2MLP."""

    def activation(self, config: Any) -> str:
        name: str = config.hidden_activation
        return name


class DecoderLayer(llama.DecoderLayer):
    """Gemma2DecoderLayer."""

    attention_class: type[llama.Attention] = Attention
    mlp_class = MLP
    norm_class = GemmaRMSNorm

    def add_members(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().add_members(trace, config, settings)
        hidden = sized(config, "hidden_size")
        self.pre_feedforward_layernorm = GemmaRMSNorm(trace, hidden)
        self.post_feedforward_layernorm = GemmaRMSNorm(trace, hidden)

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
        hidden_states, _ = self.self_attn(hidden_states, attention_mask, position_embeddings, past_key_values)
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = add(residual, hidden_states)
        residual = hidden_states
        hidden_states = self.pre_feedforward_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = self.post_feedforward_layernorm(hidden_states)
        return add(residual, hidden_states)


class Model(llama.Model):
    """Gemma2Model."""

    layer_class: type[llama.DecoderLayer] = DecoderLayer
    norm_class = GemmaRMSNorm
    embedding_class = ScaledEmbedding

    def mask_types(self) -> tuple[str, ...]:
        return ("full_attention", "sliding_attention")


class ForCausalLM(llama.ForCausalLM):
    """Gemma2ForCausalLM."""

    model_class: type[llama.Model] = Model

    def __init__(self, trace: Trace, config: Any, settings: Settings) -> None:
        super().__init__(trace, config, settings)
        self.softcap: float | None = config.final_logit_softcapping

    def capped(self, logits: Tensor) -> Tensor:
        if self.softcap is None:
            return logits
        logits = div(logits, self.softcap)
        logits = tanh(logits)
        return mul(logits, self.softcap)
