"""OLMo 2 (transformers/models/olmo2/configuration_olmo2.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.llama import LikeLlama
from memplan.config.library.model import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Olmo2(LikeLlama):
    """Olmo2Config."""

    hidden_act: Activation = "silu"
    attention_bias: bool = False

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Olmo2ForCausalLM",)
