"""DistilBERT, without dropout and with the library's default ones."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.distilbert import DistilBert

_PLAIN = DistilBert(
    model_type="distilbert",
    head_class="DistilBertForMaskedLM",
    name="distilbert",
    vocab_size=309,
    dim=40,
    n_layers=3,
    n_heads=5,
    hidden_dim=88,
    dropout=0.0,
    attention_dropout=0.0,
    max_position_embeddings=43,
)
SMALL = {
    "distilbert": _PLAIN,
    "distilbert-dropout": replace(_PLAIN, dropout=0.1, attention_dropout=0.1),
}
