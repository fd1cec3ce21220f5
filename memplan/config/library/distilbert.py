"""DistilBERT (transformers/models/distilbert/configuration_distilbert.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.bert import head_problems
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.model import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilBert(LibraryModel):
    """DistilBertConfig."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    activation: Activation = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    max_position_embeddings: int = 512
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("DistilBertForMaskedLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"dim": "hidden_size", "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers"}

    @property
    def architecture(self) -> Architecture:
        return "encoder"

    @property
    def num_layers(self) -> int:
        return self.n_layers

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("dim", "n_heads"):
            yield from head_problems(self.dim, self.n_heads, ("dim", "n_heads"))
