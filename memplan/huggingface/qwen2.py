"""Qwen2 (models/qwen2/modeling_qwen2.py): Llama with biases on queries, keys and values, and layers of two types."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama
from memplan.huggingface.mistral import MLP


class Attention(llama.Attention):
    """Qwen2Attention."""

    def biases(self, config: Any) -> tuple[bool, bool]:
        return True, False


class DecoderLayer(llama.DecoderLayer):
    """Qwen2DecoderLayer."""

    attention_class = Attention
    mlp_class = MLP


class Model(llama.Model):
    """Qwen2Model."""

    layer_class: type[llama.DecoderLayer] = DecoderLayer

    def mask_types(self) -> tuple[str, ...]:
        both = ("full_attention", "sliding_attention")
        return both if "sliding_attention" in self.types else both[:1]


class ForCausalLM(llama.ForCausalLM):
    """Qwen2ForCausalLM."""

    model_class = Model
