"""Bart (transformers/models/bart/configuration_bart.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.model import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Bart(LibraryModel):
    """BartConfig."""

    vocab_size: int
    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_layers: int
    decoder_attention_heads: int
    decoder_ffn_dim: int
    max_position_embeddings: int = 1024
    activation_function: Activation = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("BartForConditionalGeneration",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {
            "d_model": "hidden_size",
            "encoder_attention_heads": "num_attention_heads",
            "encoder_layers": "num_hidden_layers",
        }

    @property
    def architecture(self) -> Architecture:
        return "encoder-decoder"

    @property
    def num_layers(self) -> int:
        return self.decoder_layers

    @property
    def num_encoder_layers(self) -> int:
        return self.encoder_layers

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings

    def problems(self, sound: Sound) -> Iterator[Problem]:
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = getattr(self, name)
            if sound("d_model", name) and self.d_model % heads:
                yield name, f"d_model {self.d_model} is not divisible by {heads} heads"

    def unmodelled(self) -> Iterator[str]:
        for name in ("encoder_layerdrop", "decoder_layerdrop"):
            if getattr(self, name):
                yield f"{name} (which layers run is a matter of chance)"
        if not self.tie_word_embeddings:
            yield "tie_word_embeddings = false (a table of the model is not trained then)"
