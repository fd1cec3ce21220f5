"""Qwen3's mixture of experts (transformers/models/qwen3_moe/configuration_qwen3_moe.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.library.moe import (
    Indices,
    experts_problems,
    shared_heads_problems,
    unmodelled_experts,
    with_shared_heads,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Moe(LibraryModel):
    """Qwen3MoeConfig."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    moe_intermediate_size: int
    num_key_value_heads: int = 4
    head_dim: int = 0  # hidden_size / num_attention_heads
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    attention_dropout: float = 0.0
    decoder_sparse_step: int = 1
    mlp_only_layers: Indices = ()
    num_experts: int = 128
    num_experts_per_tok: int = 8
    norm_topk_prob: bool = False
    tie_word_embeddings: bool = False
    output_router_logits: bool = False
    experts_implementation: str = "grouped_mm"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Qwen3MoeForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"num_experts": "num_local_experts"}

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def window(self) -> int | None:
        """How far back a token looks, where not all the way."""
        return self.sliding_window if self.use_sliding_window else None

    def is_sparse(self, index: int) -> bool:
        """Whether the layer has experts."""
        return index not in self.mlp_only_layers and (index + 1) % self.decoder_sparse_step == 0

    @property
    def alike(self) -> bool:
        """Whether all layers have experts, or none has."""
        return len({self.is_sparse(index) for index in range(self.num_hidden_layers)}) == 1

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from shared_heads_problems(self, sound)
        yield from experts_problems(
            self, sound, "num_experts", "num_experts_per_tok", "hidden_size", "moe_intermediate_size"
        )

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_experts(self.experts_implementation, self.output_router_logits)

    def for_the_library(self) -> Mapping[str, object]:
        return {"mlp_only_layers": list(self.mlp_only_layers)}

    def resolved(self) -> LibraryModel:
        return with_shared_heads(self)
