"""RoBERTa, without dropout and with the library's default ones."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.roberta import Roberta

_PLAIN = Roberta(
    model_type="roberta",
    head_class="RobertaForMaskedLM",
    name="roberta",
    vocab_size=307,
    hidden_size=40,
    num_hidden_layers=3,
    num_attention_heads=5,
    intermediate_size=88,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=43,
    type_vocab_size=1,
)
SMALL = {
    "roberta": _PLAIN,
    "roberta-dropout": replace(_PLAIN, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
}
