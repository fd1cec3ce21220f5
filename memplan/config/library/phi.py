"""Phi-3 and Phi-4 (transformers/models/phi3/configuration_phi3.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.llama import LikeLlama, head_problems, with_heads
from memplan.config.library.model import Activation, LibraryModel, Number, Sound
from memplan.config.library.rope import unmodelled_ropes
from memplan.config.library.windows import FULL, SLIDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Phi3(LikeLlama):
    """Phi3Config. The share `partial_rotary_factor` of each head is turned."""

    hidden_act: Activation = "silu"
    resid_pdrop: float = 0.0
    partial_rotary_factor: Number | None = 1.0
    sliding_window: int | None = None

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Phi3ForCausalLM",)

    @property
    def attention_types(self) -> tuple[str, ...]:
        return (FULL if self.sliding_window is None else SLIDING,) * self.num_hidden_layers

    @property
    def rotary_width(self) -> int:
        """What is turned of a head."""
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        return int(width * (1.0 if self.partial_rotary_factor is None else self.partial_rotary_factor))

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from head_problems(self, sound)
        if not sound("hidden_size", "num_attention_heads", "head_dim", "partial_rotary_factor"):
            return
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        if not 0 < self.rotary_width <= width or self.rotary_width % 2:
            yield "partial_rotary_factor", f"turns {self.rotary_width} of {width}; must be an even part of it"

    def unmodelled(self) -> Iterator[str]:
        if self.rope_type != "longrope":
            yield from unmodelled_ropes(self.rope_type)

    def for_the_library(self) -> Mapping[str, object]:
        settings: dict[str, object] = {"pad_token_id": 0}  # the default lies beyond a small vocabulary
        if self.rope_type == "longrope":
            scales = [1.0] * (self.rotary_width // 2)
            settings["rope_parameters"] = {
                "rope_type": "longrope",
                "short_factor": scales,
                "long_factor": scales,
                "partial_rotary_factor": self.partial_rotary_factor,
                "original_max_position_embeddings": 4096,
            }
        return settings

    def resolved(self) -> LibraryModel:
        factor = 1.0 if self.partial_rotary_factor is None else self.partial_rotary_factor
        return with_heads(replace(self, partial_rotary_factor=factor))
