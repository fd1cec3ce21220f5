"""Gemma 2 and the text part of Gemma 3 (transformers/models/gemma2/configuration_gemma2.py,
gemma3/configuration_gemma3.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.llama import LikeLlama, head_problems, with_heads
from memplan.config.library.model import Activation, LibraryModel, Names, Number, Sound
from memplan.config.library.rope import rope_of, unmodelled_ropes
from memplan.config.library.windows import FULL, SLIDING, unmodelled_windows, window_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma(LikeLlama):
    """What both have in common."""

    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_activation: Activation = "gelu_pytorch_tanh"
    attention_bias: bool = False
    tie_word_embeddings: bool = True
    sliding_window: int | None = 4096
    layer_types: Names = ()
    final_logit_softcapping: Number | None = None
    use_bidirectional_attention: bool = False

    @property
    def attention_types(self) -> tuple[str, ...]:
        return self.layer_types

    @property
    def full_every(self) -> int:
        """One layer in so many has full attention, where layer_types does not say."""
        raise NotImplementedError

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from head_problems(self, sound, shared_out=True)
        yield from window_problems(self, sound)
        if sound("sliding_window") and self.sliding_window is None:
            yield "sliding_window", "must be a whole number: the mask for it is made whether a layer uses it or not"

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)
        yield from unmodelled_windows(self.layer_types)
        if self.use_bidirectional_attention:
            yield "use_bidirectional_attention"

    def resolved(self) -> LibraryModel:
        derived = tuple(SLIDING if (layer + 1) % self.full_every else FULL for layer in range(self.num_hidden_layers))
        return replace(with_heads(self), layer_types=self.layer_types or derived)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma2(Gemma):
    """Gemma2Config."""

    final_logit_softcapping: Number | None = 30.0
    attn_logit_softcapping: Number | None = 50.0

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Gemma2ForCausalLM",)

    @property
    def attentions(self) -> tuple[str, ...]:
        return ("naive",)

    @property
    def full_every(self) -> int:
        return 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma3Text(Gemma):
    """Gemma3TextConfig. Its attention does not squeeze the scores, whatever attn_logit_softcapping says."""

    sliding_window_pattern: int = 6

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("Gemma3ForCausalLM",)

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        """Each type of layer has frequencies of its own: the one that is scaled counts."""
        nested = config.get("rope_parameters")
        each = [rope_of({"rope_parameters": value}) for value in nested.values()] if isinstance(nested, Mapping) else []
        scaled = [found for found in each if found.get("rope_type", "default") != "default"]
        return {**config, **(scaled or [{}])[0], **rope_of({"rope_scaling": config.get("rope_scaling")})}

    @property
    def full_every(self) -> int:
        return self.sliding_window_pattern
