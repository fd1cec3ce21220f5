"""GPT-OSS (transformers/models/gpt_oss/configuration_gpt_oss.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem
from memplan.config.library.model import LibraryModel, Names, Sound
from memplan.config.library.moe import experts_problems, shared_heads_problems, unmodelled_experts

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOss(LibraryModel):
    """GptOssConfig. The activation of its experts is its own."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 8
    head_dim: int = 64
    sliding_window: int = 128
    layer_types: Names = ()  # every second layer looks back all the way
    attention_bias: bool = True
    attention_dropout: float = 0.0
    num_local_experts: int = 128
    num_experts_per_tok: int = 4
    tie_word_embeddings: bool = False
    output_router_logits: bool = False
    experts_implementation: str = "grouped_mm"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("GptOssForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"num_local_experts": "num_experts"}

    @property
    def kept_in_fp32(self) -> str:
        return "norm"

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def attentions(self) -> tuple[str, ...]:
        return ("naive",)

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from shared_heads_problems(self, sound)
        yield from experts_problems(
            self, sound, "num_local_experts", "num_experts_per_tok", "hidden_size", "intermediate_size"
        )
        if self.layer_types and sound("layer_types"):
            if set(self.layer_types) - {SLIDING, FULL}:
                yield "layer_types", f"must be {SLIDING} or {FULL}, each of them"
            elif sound("num_hidden_layers") and len(self.layer_types) != self.num_hidden_layers:
                yield "layer_types", f"{len(self.layer_types)} do not fit {self.num_hidden_layers} layers"

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_experts(self.experts_implementation, self.output_router_logits)

    def for_the_library(self) -> Mapping[str, object]:
        return {"layer_types": list(self.layer_types)}

    def resolved(self) -> LibraryModel:
        types = tuple(FULL if index % 2 else SLIDING for index in range(self.num_hidden_layers))
        return replace(self, layer_types=self.layer_types or types)
