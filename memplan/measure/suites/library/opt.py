"""OPT: its usual form, and that of opt-350m, with norms behind and embeddings of another width."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.opt import OPT

_OPT = OPT(
    model_type="opt",
    head_class="OPTForCausalLM",
    name="opt",
    vocab_size=311,
    hidden_size=48,
    ffn_dim=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    max_position_embeddings=37,
    dropout=0.0,
)

SMALL = {
    "opt": _OPT,
    "opt-dropout": replace(_OPT, dropout=0.1, attention_dropout=0.1),
    "opt-behind": replace(_OPT, do_layer_norm_before=False, word_embed_proj_dim=20, dropout=0.1),
}
