"""ModernBERT (transformers/models/modernbert/configuration_modernbert.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.bert import head_problems
from memplan.config.library.model import Activation, LibraryModel, Names, Sound
from memplan.config.model import Architecture

LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernBert(LibraryModel):
    """ModernBertConfig. Without `layer_types` every third layer attends to the whole sequence, the first one among
    them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_activation: Activation = "gelu"
    classifier_activation: Activation = "gelu"
    local_attention: int = 128  # both sides together
    global_attn_every_n_layers: int = 3
    layer_types: Names = ()
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    sparse_prediction: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("ModernBertForMaskedLM",)

    @property
    def architecture(self) -> Architecture:
        return "encoder"

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "num_attention_heads"):
            width, heads = self.hidden_size, self.num_attention_heads
            yield from head_problems(width, heads)
            if width % heads == 0 and width // heads % 2:
                yield "num_attention_heads", f"rotary positions turn pairs, so {width} / {heads} must be even"
        if not sound("layer_types", "num_hidden_layers") or not self.layer_types:
            return
        if len(self.layer_types) != self.num_hidden_layers:
            yield "layer_types", f"names {len(self.layer_types)} layers of {self.num_hidden_layers}"
        if unknown := sorted(set(self.layer_types) - set(LAYER_TYPES)):
            yield "layer_types", f"must be of {', '.join(LAYER_TYPES)}, not {', '.join(unknown)}"

    def unmodelled(self) -> Iterator[str]:
        if self.sparse_prediction:
            yield "sparse_prediction (as many logits as tokens are masked)"

    def for_the_library(self) -> Mapping[str, object]:
        special = ("pad", "bos", "eos", "cls", "sep")
        return {"layer_types": list(self.layer_types)} | {f"{name}_token_id": 0 for name in special}

    def resolved(self) -> LibraryModel:
        if self.layer_types:
            return self
        every = self.global_attn_every_n_layers
        return replace(self, layer_types=tuple(LAYER_TYPES[bool(i % every)] for i in range(self.num_hidden_layers)))
