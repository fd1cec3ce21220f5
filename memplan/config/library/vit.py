"""ViT (transformers/models/vit/configuration_vit.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memplan.config.fields import Problem
from memplan.config.library.bert import head_problems
from memplan.config.library.model import Activation, LibraryModel, Sound
from memplan.config.model import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class ViT(LibraryModel):
    """ViTConfig. Images and patches are squares."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int
    num_channels: int = 3
    num_labels: int = 2
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    qkv_bias: bool = True

    @classmethod
    def heads(cls) -> tuple[str, ...]:
        return ("ViTForImageClassification",)

    @classmethod
    def from_other_keys(cls, config: Mapping[str, object]) -> Mapping[str, object]:
        labels = config.get("id2label")
        return {"num_labels": len(labels)} if isinstance(labels, (dict, list)) else {}

    @property
    def architecture(self) -> Architecture:
        return "encoder"

    @property
    def num_layers(self) -> int:
        return self.num_hidden_layers

    @property
    def tokens_of_an_image(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1  # one that stands for the class

    def problems(self, sound: Sound) -> Iterator[Problem]:
        if sound("hidden_size", "num_attention_heads"):
            yield from head_problems(self.hidden_size, self.num_attention_heads)
        if sound("image_size", "patch_size") and self.patch_size > self.image_size:
            yield "patch_size", f"{self.patch_size} is larger than the image_size {self.image_size}"

    def unmodelled(self) -> Iterator[str]:
        if self.num_labels == 1:
            yield "num_labels 1 (regression)"
