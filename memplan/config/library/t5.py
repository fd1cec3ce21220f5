"""T5 (transformers/models/t5/configuration_t5.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import get_args

from memplan.config.fields import Problem, show
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.model import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class T5(LibraryModel):
    """T5Config. The embeddings and the head are one table always; `tie_word_embeddings` of a config.json only says
    whether what goes into the head is scaled, unless `scale_decoder_outputs` says it."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_hidden_layers: int  # the encoder's; the library's key is num_layers
    num_heads: int
    num_decoder_layers: int = 0  # as many as the encoder has
    relative_attention_num_buckets: int = 32
    feed_forward_proj: str = "relu"
    dropout_rate: float = 0.1
    scale_decoder_outputs: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("T5ForConditionalGeneration",)

    @classmethod
    def aliases(cls) -> Mapping[str, str]:
        return {
            "d_model": "hidden_size",
            "num_heads": "num_attention_heads",
            "num_hidden_layers": "num_layers",
            "d_kv": "head_dim",
            "scale_decoder_outputs": "tie_word_embeddings",
        }

    @property
    def kept_in_fp32(self) -> str:
        return "wo"

    @property
    def trains_its_mask(self) -> bool:
        return True  # the position bias

    @property
    def architecture(self) -> Architecture:
        return "encoder-decoder"

    @property
    def num_layers(self) -> int:
        return self.num_decoder_layers or self.num_hidden_layers

    @property
    def num_encoder_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def gated(self) -> bool:
        """Whether the feed-forward multiplies two projections (is_gated_act)."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """The feed-forward's activation function (dense_act_fn)."""
        if self.feed_forward_proj == "gated-gelu":
            return "gelu_new"
        return self.feed_forward_proj.removeprefix("gated-")

    def problems(self, sound: Sound) -> Iterator[Problem]:
        known = get_args(Activation)
        if sound("feed_forward_proj") and self.activation not in known:
            words = f"an activation function ({', '.join(known)}), or one after gated-"
            yield "feed_forward_proj", f"must be {words}, not {show(self.feed_forward_proj)}"
        if sound("relative_attention_num_buckets") and self.relative_attention_num_buckets < 4:
            yield "relative_attention_num_buckets", "must be at least 4: an encoder halves them twice"

    def for_the_library(self) -> Mapping[str, object]:
        return {"decoder_start_token_id": 0, "num_layers": self.num_hidden_layers}

    def resolved(self) -> LibraryModel:
        return replace(self, num_decoder_layers=self.num_layers)
