"""Falcon (transformers/models/falcon/configuration_falcon.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.library.rope import Rope, rope_of, unmodelled_ropes


@dataclass(frozen=True, slots=True, kw_only=True)
class Falcon(LibraryModel):
    """FalconConfig."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_ln_in_parallel_attn: int | None = None  # 2 in the new decoder, else 1
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    num_kv_heads: int | None = None  # as many as attention heads; read without multi_query or in the new decoder
    alibi: bool = False
    new_decoder_architecture: bool = False
    multi_query: bool = True
    parallel_attn: bool = True
    bias: bool = False
    ffn_hidden_size: int | None = None  # 4 * hidden_size
    activation: Activation = "gelu"
    tie_word_embeddings: bool = True
    rope_type: Rope = "default"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("FalconForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"hidden_size": "n_embed"}

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        return {**config, **rope_of(config)}

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def key_value_heads(self) -> int:
        """Heads that keys and values have of their own."""
        if self.multi_query and not self.new_decoder_architecture:
            return 1
        return self.num_kv_heads or self.num_attention_heads

    def problems(self, sound: Sound) -> Iterator[Problem]:
        heads, groups = self.num_attention_heads, self.key_value_heads
        if sound("hidden_size", "num_attention_heads"):
            if self.hidden_size % heads:
                yield "num_attention_heads", f"hidden_size {self.hidden_size} is not divisible by {heads} heads"
            elif self.hidden_size // heads % 2:
                message = (
                    f"rotary positions turn pairs, so a head's width must be even, not {self.hidden_size // heads}"
                )
                yield "num_attention_heads", message
        if not sound("new_decoder_architecture", "multi_query", "parallel_attn"):
            return
        if sound("num_attention_heads", "num_kv_heads"):
            if self.new_decoder_architecture and heads % groups:
                yield "num_kv_heads", f"{heads} attention heads are not divisible by {groups}"
            elif not self.new_decoder_architecture and groups not in (1, heads):
                yield "num_kv_heads", f"must be {heads}, as many as attention heads, or multi_query be set"
        if self.new_decoder_architecture and not self.parallel_attn:
            yield "parallel_attn", "must be true in the new decoder architecture"
        if sound("num_ln_in_parallel_attn") and self.num_ln_in_parallel_attn not in (None, 1):
            if self.num_ln_in_parallel_attn != 2:
                yield "num_ln_in_parallel_attn", f"must be 1 or 2, not {self.num_ln_in_parallel_attn}"
            elif self.parallel_attn and not self.new_decoder_architecture:
                yield "num_ln_in_parallel_attn", "must be 1 where new_decoder_architecture is not set"

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)
        if self.alibi:
            yield "alibi true"

    def resolved(self) -> LibraryModel:
        return replace(
            self,
            num_kv_heads=self.num_kv_heads or self.num_attention_heads,
            ffn_hidden_size=self.ffn_hidden_size or 4 * self.hidden_size,
            num_ln_in_parallel_attn=self.num_ln_in_parallel_attn or (2 if self.new_decoder_architecture else 1),
        )
