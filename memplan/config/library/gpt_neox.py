"""GPT-NeoX (transformers/models/gpt_neox/configuration_gpt_neox.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, LibraryModel, Number, Sound
from memplan.config.library.rope import Rope, rope_of, unmodelled_ropes


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTNeoX(LibraryModel):
    """GPTNeoXConfig."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: Activation = "gelu"
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    tie_word_embeddings: bool = False
    use_parallel_residual: bool = True
    attention_bias: bool = True
    rotary_pct: Number | None = 0.25
    rope_type: Rope = "default"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("GPTNeoXForCausalLM",)

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        nested = rope_of(config)
        if "partial_rotary_factor" in nested:
            nested["rotary_pct"] = nested.pop("partial_rotary_factor")
        return {**config, **nested}

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def rotary_ndims(self) -> int:
        """How many of a head's dimensions turn; they do so in pairs."""
        share = 1.0 if self.rotary_pct is None else self.rotary_pct
        return -(-int(self.hidden_size // self.num_attention_heads * share) // 2) * 2

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if not sound("hidden_size", "num_attention_heads"):
            return
        heads, width = self.num_attention_heads, self.hidden_size // self.num_attention_heads
        if self.hidden_size % heads:
            yield "num_attention_heads", f"hidden_size {self.hidden_size} is not divisible by {heads} heads"
        elif sound("rotary_pct") and not 0 < self.rotary_ndims <= width:
            yield "rotary_pct", f"of a head's {width} dimensions at least 2 must turn and at most {width}, in pairs"

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)
