"""ViT, with the library's default dropouts (none) and with some."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.vit import ViT

_VIT = ViT(
    model_type="vit",
    head_class="ViTForImageClassification",
    name="vit",
    hidden_size=40,
    num_hidden_layers=3,
    num_attention_heads=5,
    intermediate_size=88,
    image_size=23,
    patch_size=5,
    num_channels=3,
    num_labels=7,
)
SMALL = {
    "vit": _VIT,
    "vit-dropout": replace(_VIT, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
}
