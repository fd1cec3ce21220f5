"""Mistral (models/mistral/modeling_mistral.py): Llama without biases, every layer looking through the window."""

from __future__ import annotations

from typing import Any

from memplan.huggingface import llama


class Attention(llama.Attention):
    """MistralAttention."""

    def biases(self, config: Any) -> tuple[bool, bool]:
        return False, False


class MLP(llama.MLP):
    """MistralMLP."""

    def has_bias(self, config: Any) -> bool:
        return False


class DecoderLayer(llama.DecoderLayer):
    """MistralDecoderLayer."""

    attention_class = Attention
    mlp_class = MLP


class Model(llama.Model):
    """MistralModel."""

    layer_class = DecoderLayer


class ForCausalLM(llama.ForCausalLM):
    """MistralForCausalLM."""

    model_class = Model
