"""Llama (transformers/models/llama/configuration_llama.py), and what the decoders built like it share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.library.rope import Rope, rope_of, unmodelled_ropes

AnyModel = TypeVar("AnyModel", bound=LibraryModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class LikeLlama(LibraryModel):
    """What the configurations of Llama and its descendants have in common."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None  # as many as attention heads
    head_dim: int | None = None  # hidden_size / num_attention_heads
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    rope_type: Rope = "default"

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        return {**config, **rope_of(config)}

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def attention_types(self) -> tuple[str, ...]:
        """Of each layer: full_attention or sliding_attention."""
        return ("full_attention",) * self.num_hidden_layers

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from head_problems(self, sound)

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)

    def resolved(self) -> LibraryModel:
        return with_heads(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama(LikeLlama):
    """LlamaConfig."""

    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("LlamaForCausalLM",)

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from head_problems(self, sound, shared_out=True)


def with_heads(model: AnyModel) -> AnyModel:
    """Key-value heads and the width of a head spelled out."""
    sizes: Any = model
    spelled_out: AnyModel = replace(
        sizes,
        num_key_value_heads=sizes.num_key_value_heads or sizes.num_attention_heads,
        head_dim=sizes.head_dim or sizes.hidden_size // sizes.num_attention_heads,
    )
    return spelled_out


def head_problems(model: LibraryModel, sound: Sound, shared_out: bool = False) -> Iterator[Problem]:
    """Heads that do not share out. `shared_out`: the library wants it of the hidden size also where head_dim is given
    (validate_architecture)."""
    sizes: Any = model
    heads, groups = sizes.num_attention_heads, sizes.num_key_value_heads
    if sound("num_attention_heads", "num_key_value_heads") and groups and heads % groups:
        yield "num_key_value_heads", f"{heads} attention heads are not divisible by {groups}"
    if not sound("hidden_size", "num_attention_heads", "head_dim"):
        return
    if (shared_out or not sizes.head_dim) and sizes.hidden_size % heads:
        yield "num_attention_heads", f"hidden_size {sizes.hidden_size} is not divisible by {heads} heads"
    elif (width := sizes.head_dim or sizes.hidden_size // heads) % 2:
        yield "head_dim", f"rotary positions turn pairs, so it must be even, not {width}"
