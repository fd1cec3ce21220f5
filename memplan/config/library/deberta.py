"""DeBERTa v2 and v3 (transformers/models/deberta_v2/configuration_deberta_v2.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from memplan.config.fields import Problem, show
from memplan.config.library.bert import Bert, head_problems
from memplan.config.library.model import LibraryModel, Names, Sound
from memplan.errors import NotModelledError


@dataclass(frozen=True, slots=True, kw_only=True)
class DebertaV2(Bert):
    """DebertaV2Config, and the keys that the model asks it for beside its own. A limit of -1 in a config.json (none)
    is 0 here."""

    type_vocab_size: int = 0
    position_biased_input: bool = True
    relative_attention: bool = False
    max_relative_positions: int = 0  # as many as there are positions
    position_buckets: int = 0  # every distance is its own
    pos_att_type: Names = ()
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    embedding_size: int = 0  # the hidden size
    conv_kernel_size: int = 0
    legacy: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("DebertaV2ForMaskedLM",)

    @classmethod
    def flattened(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        if "pad_token_id" in config and config["pad_token_id"] is None:
            raise NotModelledError("deberta-v2: not modelled: pad_token_id null")
        read = dict(config)
        for name in ("max_relative_positions", "position_buckets", "conv_kernel_size"):
            if read.get(name) == -1:
                read[name] = 0
        if isinstance(kinds := read.get("pos_att_type"), str):
            read["pos_att_type"] = [kind.strip() for kind in kinds.lower().split("|")]
        width, heads, each = (read.get(key) for key in ("hidden_size", "num_attention_heads", "attention_head_size"))
        if isinstance(width, int) and isinstance(heads, int) and isinstance(each, int) and heads * each != width:
            raise NotModelledError(
                f"deberta-v2: not modelled: attention_head_size {show(each)}, not {show(width)} / {show(heads)}"
            )
        return read

    @property
    def attentions(self) -> tuple[str, ...]:
        return ("naive",)

    @property
    def most_positions(self) -> int:
        return self.max_position_embeddings if self.position_biased_input else 0

    @property
    def relative_positions(self) -> int:
        """The largest distance between two tokens that is told from larger ones."""
        return self.max_relative_positions or self.max_position_embeddings

    @property
    def norms_relative_embeddings(self) -> bool:
        """Whether the table of distances goes through a LayerNorm."""
        return "layer_norm" in [word.strip() for word in self.norm_rel_ebd.lower().split("|")]

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "num_attention_heads"):
            yield from head_problems(self.hidden_size, self.num_attention_heads)
        if sound("position_buckets") and self.position_buckets == 1:
            yield "position_buckets", "must be 0 (none) or at least 2"
        if sound("legacy", "embedding_size", "hidden_size"):
            narrow = self.embedding_size not in (0, self.hidden_size)
            if narrow and not self.legacy:
                yield "embedding_size", f"must be the hidden_size, {self.hidden_size}, where legacy is false"

    def unmodelled(self) -> Iterator[str]:
        if self.conv_kernel_size:
            yield f"conv_kernel_size {self.conv_kernel_size} (a convolution behind the first layer)"
        if self.relative_attention and not set(self.pos_att_type) & {"c2p", "p2c"}:
            yield "relative_attention without c2p or p2c in pos_att_type"

    def for_the_library(self) -> Mapping[str, object]:
        return {"pad_token_id": 0}

    def resolved(self) -> LibraryModel:
        return replace(self, embedding_size=self.embedding_size or self.hidden_size)
