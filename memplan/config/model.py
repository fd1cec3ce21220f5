"""The architecture of a transformer, in the field's own words (DESIGN: names as in Hugging Face configurations)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Architecture = Literal["encoder", "decoder", "encoder-decoder"]
Positions = Literal["learned", "sinusoidal", "rotary", "relative", "alibi"]
Norm = Literal["layernorm", "rmsnorm"]
NormPlacement = Literal["pre", "post"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu"]
Head = Literal["language_modelling", "classification", "token_classification"]
Number = float
Pooling = Literal["class_token", "first", "last", "mean"]

GATED = frozenset({"swiglu", "geglu"})
"""Activations with a second, gating projection."""

NEWER = {"newer": True}
"""Marks fields that the first records did not have: at their defaults they are no part of what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """One transformer architecture. Sizes are element counts; `validate` (config/validate.py) has checked them.

    `num_layers` counts the decoder's layers, or the encoder's where there is no decoder;
    `num_encoder_layers` is the encoder's share of an encoder-decoder.
    """

    architecture: Architecture
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_attention_heads: int
    intermediate_size: int
    num_encoder_layers: int = 0  # encoder-decoder only; resolved to num_layers where left out
    num_key_value_heads: int = 0  # 0: as many as attention heads; resolved by validate
    head_dim: int = 0  # 0: hidden_size / num_attention_heads; resolved by validate
    positions: Positions = "learned"
    max_positions: int = 0  # rows of the learned table; 0 elsewhere
    relative_buckets: int = 32  # T5's buckets of distance, with positions = "relative"
    relative_max_distance: int = 128
    norm: Norm = "layernorm"
    norm_placement: NormPlacement = "pre"
    activation: Activation = "gelu"
    attention_bias: bool = True
    feedforward_bias: bool = True
    scale_attention: bool = True  # scores / sqrt(head_dim); T5 leaves it out
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    scale_embeddings: bool = False  # embeddings * sqrt(hidden_size), as in "Attention Is All You Need"
    embedding_norm: bool = False  # a norm right after the embeddings, as in BERT
    token_type_vocab_size: int = 0  # BERT's segment embeddings; 0: none
    tie_embeddings: bool = True
    head: Head = "language_modelling"
    head_bias: bool = False
    head_transform: bool = False  # BERT's dense + activation + norm before the vocabulary projection
    num_labels: int = 2  # classification heads only
    pooling: Pooling = "mean"  # how a classification head sees the whole input
    pooler: bool = False  # BERT's dense + tanh between pooling and classifier
    parallel_blocks: bool = field(default=False, metadata=NEWER)  # attention and feed-forward read one normed input
    sliding_window: int = field(default=0, metadata=NEWER)  # tokens a query looks back at, itself included; 0: all
    attention_soft_cap: Number = field(
        default=0.0, metadata=NEWER
    )  # scores to cap * tanh(scores / cap); 0: as they are
    logit_soft_cap: Number = field(default=0.0, metadata=NEWER)  # the same for the logits of language modelling
    num_experts: int = field(default=0, metadata=NEWER)  # feed-forward networks of intermediate_size; 0: a single one
    num_experts_per_token: int = field(default=0, metadata=NEWER)  # how many of them a token goes to
    kv_lora_rank: int = field(default=0, metadata=NEWER)  # width keys and values are made from (MLA); 0: hidden_size
    q_lora_rank: int = field(default=0, metadata=NEWER)  # the same for queries, with kv_lora_rank; 0: hidden_size
    rope_head_dim: int = field(default=0, metadata=NEWER)  # the part of head_dim that is turned, with kv_lora_rank
    value_head_dim: int = field(default=0, metadata=NEWER)  # width of a value, with kv_lora_rank
    name: str = "custom"

    @property
    def gated(self) -> bool:
        """Whether the feed-forward block has a gating projection."""
        return self.activation in GATED

    @property
    def final_norm(self) -> bool:
        """Pre-norm stacks end in one more norm; post-norm stacks end in the last block's own."""
        return self.norm_placement == "pre"


def told(settings: Any) -> dict[str, Any]:
    """What a model or a run (any dataclass) says, in the order of its fields: every field, but for newer ones that hold
    their defaults. A field that is added leaves the fingerprints of earlier requests as they were."""
    return {
        name: getattr(settings, name)
        for name, known in type(settings).__dataclass_fields__.items()
        if "newer" not in known.metadata or getattr(settings, name) != known.default
    }
