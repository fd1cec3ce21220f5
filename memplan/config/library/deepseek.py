"""DeepSeek-V3 and V2 (transformers/models/deepseek_v3/configuration_deepseek_v3.py, deepseek_v2/...)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from memplan.config.fields import Problem
from memplan.config.library.model import Activation, Count, LibraryModel, Sound
from memplan.config.library.moe import experts_problems, unmodelled_experts
from memplan.config.library.rope import Rope, rope_of, unmodelled_ropes

TopkMethod = Literal["greedy", "group_limited_greedy"]
"""How a token's experts are chosen: among all, or among those of the best groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deepseek(LibraryModel):
    """What both have: queries, keys and values from narrow projections, experts from some layer on, and experts that
    every token goes to beside those that are chosen for it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_experts_per_tok: int
    q_lora_rank: int | None = 1536  # null: one projection
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    rope_type: Rope = "default"
    output_router_logits: bool = False
    experts_implementation: str = "grouped_mm"
    num_key_value_heads: int | None = None
    first_k_dense_replace: Count = 0
    n_routed_experts: int = 64
    n_shared_experts: int = 2
    n_group: int | None = None
    topk_group: int | None = None

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        return {**config, **rope_of(config)}

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def head_dim(self) -> int:
        """What positions turn of a head."""
        return self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        """The width of a query and of a key."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def shared_intermediate_size(self) -> int:
        """The inner width of the experts that every token goes to: they are one."""
        return self.moe_intermediate_size * self.n_shared_experts

    def unmodelled(self) -> Iterator[str]:
        yield from unmodelled_ropes(self.rope_type)
        yield from unmodelled_experts(self.experts_implementation)
        if self.output_router_logits:
            yield "output_router_logits"

    def resolved(self) -> LibraryModel:
        return replace(self, num_key_value_heads=self.num_key_value_heads or self.num_attention_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV3(Deepseek):
    """DeepseekV3Config."""

    num_key_value_heads: int | None = 128
    first_k_dense_replace: Count = 3
    n_routed_experts: int = 256
    n_shared_experts: int = 1
    num_experts_per_tok: int = 8
    n_group: int | None = 8
    topk_group: int | None = 4
    norm_topk_prob: bool = True
    rope_interleave: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("DeepseekV3ForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"n_routed_experts": "num_local_experts"}

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from _problems(self, sound)
        yield from _group_problems(self, sound, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepseekV2(Deepseek):
    """DeepseekV2Config."""

    mlp_bias: bool = False
    topk_method: TopkMethod = "greedy"

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("DeepseekV2ForCausalLM",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {"n_routed_experts": "num_experts"}

    def problems(self, sound: Sound) -> Iterator[Problem]:
        yield from _problems(self, sound)
        if sound("hidden_size", "num_attention_heads") and self.hidden_size % self.num_attention_heads:
            heads = self.num_attention_heads
            yield "num_attention_heads", f"hidden_size {self.hidden_size} is not divisible by {heads} heads"
        for name in ("kv_lora_rank", "qk_nope_head_dim"):
            if sound(name) and getattr(self, name) % 2:
                yield name, f"must be even, since what follows is read as complex numbers, not {getattr(self, name)}"
        if self.topk_method == "group_limited_greedy":
            yield from _group_problems(self, sound, 1)


def _problems(model: Deepseek, sound: Sound) -> Iterator[Problem]:
    heads, groups = model.num_attention_heads, model.num_key_value_heads
    if sound("num_attention_heads", "num_key_value_heads") and groups not in (None, heads):
        yield "num_key_value_heads", f"must be the {heads} of num_attention_heads, not {groups}: each head has its own"
    if sound("qk_rope_head_dim") and model.qk_rope_head_dim % 2:
        yield "qk_rope_head_dim", f"rotary positions turn pairs, so it must be even, not {model.qk_rope_head_dim}"
    yield from experts_problems(
        model, sound, "n_routed_experts", "num_experts_per_tok", "hidden_size", "moe_intermediate_size"
    )


def _group_problems(model: Deepseek, sound: Sound, fewest: int) -> Iterator[Problem]:
    """Experts that do not share out over groups of at least `fewest`."""
    if not sound("n_routed_experts", "n_group", "topk_group"):
        return
    experts, groups, best = model.n_routed_experts, model.n_group, model.topk_group
    if groups is None or best is None:
        yield "n_group" if groups is None else "topk_group", "must be a number: experts are chosen by group"
    elif experts % groups or experts // groups < fewest:
        yield "n_group", f"{experts} experts do not share out over {groups} groups of at least {fewest}"
    elif best > groups:
        yield "topk_group", f"the best {best} groups are more than the {groups} there are"
