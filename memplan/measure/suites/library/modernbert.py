"""ModernBERT: all layers near, far and near; with dropouts and biases."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.modernbert import ModernBert

_MODERN = ModernBert(
    model_type="modernbert",
    head_class="ModernBertForMaskedLM",
    name="modernbert",
    vocab_size=311,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=6,
    local_attention=14,
)
SMALL = {
    "modernbert": _MODERN,
    "modernbert-dropout": replace(
        _MODERN,
        num_hidden_layers=3,
        attention_dropout=0.1,
        embedding_dropout=0.1,
        mlp_dropout=0.1,
        norm_bias=True,
        attention_bias=True,
        mlp_bias=True,
        classifier_bias=True,
    ),
}
