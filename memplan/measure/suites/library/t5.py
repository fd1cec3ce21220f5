"""T5."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.t5 import T5

_T5 = T5(
    model_type="t5",
    head_class="T5ForConditionalGeneration",
    name="t5",
    vocab_size=311,
    d_model=48,
    d_kv=10,
    d_ff=80,
    num_hidden_layers=3,
    num_decoder_layers=4,
    num_heads=6,
    relative_attention_num_buckets=28,
    dropout_rate=0.0,
)

SMALL = {
    "t5": _T5,
    "t5-dropout": replace(_T5, name="t5-dropout", dropout_rate=0.1),
    "t5-v1.1": replace(
        _T5, name="t5-v1.1", feed_forward_proj="gated-gelu", dropout_rate=0.1, scale_decoder_outputs=False
    ),
}
