"""OPT (transformers/models/opt/configuration_opt.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound


@dataclass(frozen=True, slots=True, kw_only=True)
class OPT(LibraryModel):
    """OPTConfig."""

    vocab_size: int
    hidden_size: int
    ffn_dim: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 2048
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False
    word_embed_proj_dim: int | None = None  # hidden_size
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_function: Activation = "relu"
    layerdrop: float = 0.0
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("OPTForCausalLM",)

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "num_attention_heads") and self.hidden_size % self.num_attention_heads:
            message = f"hidden_size {self.hidden_size} is not divisible by {self.num_attention_heads} heads"
            yield "num_attention_heads", message

    def unmodelled(self) -> Iterator[str]:
        if self.layerdrop:
            yield f"layerdrop {self.layerdrop} (layers are left out by chance)"
        if not self.layer_norm_elementwise_affine:
            yield "layer_norm_elementwise_affine false"

    def for_the_library(self) -> Mapping[str, object]:
        # Padding's row of the table has to lie within it.
        return {"pad_token_id": 0}

    def resolved(self) -> LibraryModel:
        return replace(self, word_embed_proj_dim=self.word_embed_proj_dim or self.hidden_size)
