"""Mistral (transformers/models/mistral/configuration_mistral.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.llama import LikeLlama
from memplan.config.library.model import Activation
from memplan.config.library.windows import FULL, SLIDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistral(LikeLlama):
    """MistralConfig."""

    num_key_value_heads: int | None = 8
    hidden_act: Activation = "silu"
    sliding_window: int | None = 4096

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("MistralForCausalLM",)

    @property
    def attention_types(self) -> tuple[str, ...]:
        return (FULL if self.sliding_window is None else SLIDING,) * self.num_hidden_layers
