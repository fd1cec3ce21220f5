"""StarCoder2 (transformers/models/starcoder2/configuration_starcoder2.py)."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.library.llama import LikeLlama
from memplan.config.library.model import Activation
from memplan.config.library.windows import FULL, SLIDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Starcoder2(LikeLlama):
    """Starcoder2Config."""

    num_key_value_heads: int | None = 2
    hidden_act: Activation = "gelu_pytorch_tanh"
    tie_word_embeddings: bool = True
    use_bias: bool = True
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    sliding_window: int | None = None

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Starcoder2ForCausalLM",)

    @property
    def attention_types(self) -> tuple[str, ...]:
        return (FULL if self.sliding_window is None else SLIDING,) * self.num_hidden_layers
