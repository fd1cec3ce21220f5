"""ELECTRA, without dropout and with the library's default ones."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.electra import Electra

_PLAIN = Electra(
    model_type="electra",
    head_class="ElectraForMaskedLM",
    name="electra",
    vocab_size=313,
    embedding_size=28,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    intermediate_size=72,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=41,
    type_vocab_size=3,
)
SMALL = {
    "electra": _PLAIN,
    "electra-dropout": replace(_PLAIN, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
}
