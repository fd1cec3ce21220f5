"""Mixtral (transformers/models/mixtral/configuration_mixtral.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.library.moe import experts_problems, shared_heads_problems, unmodelled_experts, with_shared_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixtral(LibraryModel):
    """MixtralConfig."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 8
    head_dim: int = 0  # hidden_size / num_attention_heads
    hidden_act: Activation = "silu"
    sliding_window: int | None = None
    attention_dropout: float = 0.0
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    tie_word_embeddings: bool = False
    output_router_logits: bool = False
    router_jitter_noise: float = 0.0
    experts_implementation: str = "grouped_mm"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("MixtralForCausalLM",)

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"num_local_experts": "num_experts"}

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from shared_heads_problems(self, sound)
        yield from experts_problems(
            self, sound, "num_local_experts", "num_experts_per_tok", "hidden_size", "intermediate_size"
        )

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_experts(self.experts_implementation, self.output_router_logits)
        if self.router_jitter_noise:
            yield "router_jitter_noise"

    def resolved(self) -> LibraryModel:
        return with_shared_heads(self)
