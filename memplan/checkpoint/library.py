"""What the traced models of the library leave out because it has no memory, but a state dict names.

`Module.state_dict` lists every module with its version, those without a tensor too: activations, and dropouts that the
wing calls as functions. And it holds the buffers that the library registers as persistent.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one class: names of modules that are `present` though the wing has none, or `absent` though it has some;
    buffers that are `persistent`; the class's version of its part of a state dict."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    persistent: tuple[str, ...] = ()
    version: object = 1


_PHI3 = Rules(version="0.0.5")
_FINAL_BIAS = Rules(persistent=("final_logits_bias",))

RULES = {
    "bart.DecoderLayer": Rules(present=("activation_fn",)),
    "bart.EncoderLayer": Rules(present=("activation_fn",)),
    "bart.ForConditionalGeneration": _FINAL_BIAS,
    "bert.Intermediate": Rules(present=("intermediate_act_fn",)),
    "bert.PredictionHeadTransform": Rules(present=("transform_act_fn",)),
    "bert.SelfAttention": Rules(present=("dropout",)),
    "bloom.MLP": Rules(present=("gelu_impl",)),
    "deberta_heads.LMPredictionHead": Rules(present=("transform_act_fn",)),
    "deberta_heads.LegacyPredictionHeadTransform": Rules(present=("transform_act_fn",)),
    "deepseek_v3.TopkRouter": Rules(persistent=("e_score_correction_bias",)),
    "distilbert.FFN": Rules(present=("activation",)),
    "distilbert.ForMaskedLM": Rules(present=("activation", "mlm_loss_fct")),
    "distilbert.SelfAttention": Rules(present=("dropout",)),
    "electra.GeneratorPredictions": Rules(present=("activation",)),
    "experts.Experts": Rules(present=("act_fn",)),
    "falcon.MLP": Rules(present=("act",)),
    "falcon_attention.Attention": Rules(present=("attention_dropout",)),
    "gemma2.MLP": Rules(present=("act_fn",)),
    "gemma3.Rotary": Rules(absent=("full_attention", "sliding_attention")),
    "gpt_oss.GatedExperts": Rules(),
    "gpt2.Attention": Rules(present=("attn_dropout",)),
    "gpt2.MLP": Rules(present=("act",)),
    "gpt_neox.MLP": Rules(present=("act",)),
    "latent.DenseMLP": Rules(present=("act_fn",)),
    "llama.MLP": Rules(present=("act_fn",)),
    "mistral.MLP": Rules(present=("act_fn",)),
    "modernbert.EncoderLayer": Rules(present=("attn_norm",)),  # the first layer's is an identity
    "modernbert.MLP": Rules(present=("act",)),
    "modernbert.Model": Rules(
        present=("rotary_emb",), absent=("full_attention_rotary_emb", "sliding_attention_rotary_emb")
    ),
    "modernbert.PredictionHead": Rules(present=("act",)),
    "opt.DecoderLayer": Rules(present=("activation_fn",)),
    "phi3.ForCausalLM": _PHI3,
    "phi3.MLP": Rules(present=("activation_fn",)),
    "phi3.Model": _PHI3,
    "starcoder2.MLP": Rules(present=("act",)),
    "t5.DenseActDense": Rules(present=("act",)),
    "t5.DenseGatedActDense": Rules(present=("act",)),
    "t5.Stack": Rules(present=("dropout",)),
    "vit.MLP": Rules(present=("activation_fn",)),
}
"""Module and class of memplan/huggingface -> its rules; a class without any has those of what it is derived from."""


_found: dict[type, Rules] = {}


def rules_of(kind: type) -> Rules:
    """The rules of a class of the wing; those of any other module say nothing."""
    if kind not in _found:
        names = (f"{each.__module__.removeprefix('memplan.huggingface.')}.{each.__qualname__}" for each in kind.__mro__)
        _found[kind] = next((RULES[name] for name in names if name in RULES), Rules())
    return _found[kind]
