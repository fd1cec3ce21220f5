"""BERT and the encoders built like it (transformers/models/bert/configuration_bert.py and its neighbours)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.model import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert(LibraryModel):
    """BertConfig."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("BertForMaskedLM",)

    @property
    def architecture(self) -> Architecture:
        return "encoder"

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "num_attention_heads"):
            yield from head_problems(self.hidden_size, self.num_attention_heads)


def head_problems(
    width: int, heads: int, names: tuple[str, str] = ("hidden_size", "num_attention_heads")
) -> Iterator[Problem]:
    """A width that the heads do not share out."""
    if width % heads:
        yield names[1], f"{names[0]} {width} is not divisible by {heads} heads"
