"""DeBERTa v2: with both kinds of relative attention and without, with and without dropout; as v3 is set."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.deberta import DebertaV2

_PLAIN = DebertaV2(
    model_type="deberta-v2",
    head_class="DebertaV2ForMaskedLM",
    name="deberta-v2",
    vocab_size=313,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    intermediate_size=80,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    max_position_embeddings=41,
    type_vocab_size=3,
    relative_attention=True,
    pos_att_type=("p2c", "c2p"),
)
_V3 = replace(
    _PLAIN,
    position_buckets=10,
    share_att_key=True,
    norm_rel_ebd="layer_norm",
    position_biased_input=False,
    type_vocab_size=0,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)
SMALL = {
    "deberta-v2": _PLAIN,
    "deberta-v2-dropout": replace(_PLAIN, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, legacy=False),
    "deberta-v2-absolute": replace(_PLAIN, relative_attention=False, pos_att_type=()),
    "deberta-v2-v3": _V3,
}
