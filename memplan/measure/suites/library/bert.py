"""BERT, without dropout and with the library's default ones."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.bert import Bert

_BERT = Bert(
    model_type="bert",
    head_class="BertForMaskedLM",
    name="bert",
    vocab_size=311,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    intermediate_size=80,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=41,
    type_vocab_size=3,
)
SMALL = {
    "bert": _BERT,
    "bert-dropout": replace(_BERT, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
}
