"""Qwen2 and Qwen3 (transformers/models/qwen2/configuration_qwen2.py, qwen3/configuration_qwen3.py)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.llama import LikeLlama, head_problems, with_heads
from memplan.config.library.model import Activation, LibraryModel, Names, Number, Sound
from memplan.config.library.rope import unmodelled_ropes
from memplan.config.library.windows import FULL, SLIDING, unmodelled_windows, window_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2(LikeLlama):
    """Qwen2Config. Layers from `max_window_layers` on look through the window, if it is used."""

    num_key_value_heads: int | None = 32
    hidden_act: Activation = "silu"
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: Number | None = 28
    layer_types: Names = ()

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Qwen2ForCausalLM",)

    @property
    def attention_types(self) -> tuple[str, ...]:
        return self.layer_types

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from head_problems(self, sound)
        yield from window_problems(_with_window(self), sound)

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)
        yield from unmodelled_windows(self.layer_types)

    def resolved(self) -> LibraryModel:
        model = with_heads(_with_window(self))
        windowed = model.sliding_window is not None
        derived = tuple(
            SLIDING if windowed and layer >= (model.max_window_layers or 0) else FULL
            for layer in range(model.num_hidden_layers)
        )
        return replace(model, layer_types=model.layer_types or derived)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3(Qwen2):
    """Qwen3Config."""

    head_dim: int | None = 128
    attention_bias: bool = False

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Qwen3ForCausalLM",)


def _with_window(model: Qwen2) -> Qwen2:
    """The window is none where it is not used."""
    return replace(model, sliding_window=model.sliding_window if model.use_sliding_window else None)
