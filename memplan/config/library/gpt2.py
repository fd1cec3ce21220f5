"""GPT-2 (transformers/models/gpt2/configuration_gpt2.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Sound


@dataclass(frozen=True, slots=True, kw_only=True)
class GPT2(LibraryModel):
    """GPT2Config."""

    vocab_size: int
    n_embd: int
    n_layer: int
    n_head: int
    n_positions: int = 1024
    n_inner: int | None = None  # 4 * n_embd
    activation_function: Activation = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("GPT2LMHeadModel",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {
            "n_embd": "hidden_size",
            "n_layer": "num_hidden_layers",
            "n_head": "num_attention_heads",
            "n_positions": "max_position_embeddings",
        }

    @property
    def num_layers(self) -> int:
        return self.n_layer

    @property
    def most_positions(self) -> int:
        return self.n_positions

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("n_embd", "n_head") and self.n_embd % self.n_head:
            yield "n_head", f"n_embd {self.n_embd} is not divisible by {self.n_head} heads"

    def unmodelled(self) -> Iterator[str]:
        if self.reorder_and_upcast_attn:
            yield "reorder_and_upcast_attn true"

    def resolved(self) -> LibraryModel:
        return replace(self, n_inner=self.n_inner or 4 * self.n_embd)
