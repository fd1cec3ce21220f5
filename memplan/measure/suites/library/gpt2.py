"""GPT-2, without dropout and with its usual ones."""

from __future__ import annotations

from dataclasses import replace

from memplan.config.library.gpt2 import GPT2

_GPT2 = GPT2(
    model_type="gpt2",
    head_class="GPT2LMHeadModel",
    name="gpt2",
    vocab_size=311,
    n_embd=48,
    n_layer=3,
    n_head=6,
    n_positions=37,
    n_inner=80,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)

SMALL = {
    "gpt2": _GPT2,
    "gpt2-dropout": replace(_GPT2, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1),
}
