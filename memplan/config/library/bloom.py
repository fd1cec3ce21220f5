"""BLOOM (transformers/models/bloom/configuration_bloom.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import LibraryModel, Sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Bloom(LibraryModel):
    """BloomConfig."""

    vocab_size: int
    hidden_size: int
    n_layer: int
    n_head: int
    apply_residual_connection_post_layernorm: bool = False
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    pretraining_tp: int = 1
    slow_but_exact: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("BloomForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "hidden_size": "n_embed"}

    @property
    def attentions(self) -> tuple[str, ...]:
        return ("naive",)

    @property
    def pads_static_caches(self) -> bool:
        return False  # ALiBi's bias is as long as the mask, the scores as the cache

    @property
    def num_layers(self) -> int:
        return self.n_layer

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "n_head") and self.hidden_size % self.n_head:
            yield "n_head", f"hidden_size {self.hidden_size} is not divisible by {self.n_head} heads"

    def unmodelled(self) -> Iterator[str]:
        if self.slow_but_exact and self.pretraining_tp > 1:
            yield "slow_but_exact true with pretraining_tp above 1"
