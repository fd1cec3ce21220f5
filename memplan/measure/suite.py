"""Which configurations make a suite. Torch-free."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import Attention, TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, nearest


class Case(NamedTuple):
    """One configuration of a suite."""

    model: Transformer
    run: TrainingRun


_DECODER = Transformer(
    name="decoder",
    architecture="decoder",
    vocab_size=500,
    hidden_size=64,
    num_layers=4,
    num_attention_heads=4,
    intermediate_size=256,
    max_positions=1024,
)
_ENCODER = replace(
    _DECODER,
    name="encoder",
    architecture="encoder",
    num_layers=3,
    token_type_vocab_size=2,
    embedding_norm=True,
    norm_placement="post",
    head_transform=True,
    head_bias=True,
)
_ENCODER_DECODER = replace(
    _DECODER,
    name="encoder-decoder",
    architecture="encoder-decoder",
    num_layers=4,
    num_encoder_layers=5,
    positions="sinusoidal",
    max_positions=0,
    norm_placement="post",
    activation="relu",
    scale_embeddings=True,
)
_LLAMA = replace(
    _DECODER,
    name="llama-like",
    num_key_value_heads=2,
    positions="rotary",
    max_positions=0,
    norm="rmsnorm",
    activation="swiglu",
    attention_bias=False,
    feedforward_bias=False,
    tie_embeddings=False,
)
_CLASSIFIER = replace(_ENCODER, head="classification", head_transform=False, head_bias=False, num_labels=5)

_Change = dict[str, Any]
_QUICK: list[tuple[str, Transformer, _Change, _Change]] = [
    # what it shows, base, changes of the model, changes of the run
    ("gpt-like", _DECODER, {}, {}),
    ("one layer", _DECODER, {"num_layers": 1}, {}),
    ("many layers", _DECODER, {"num_layers": 12}, {"sequence_length": 16}),
    ("long", _DECODER, {"num_layers": 2}, {"sequence_length": 800, "micro_batch_size": 1}),
    ("medium length", _DECODER, {"num_layers": 2}, {"sequence_length": 200}),
    ("single token", _DECODER, {}, {"sequence_length": 1, "micro_batch_size": 1}),
    ("large vocabulary", _DECODER, {"vocab_size": 20_000}, {}),
    ("untied", _DECODER, {"tie_embeddings": False, "head_bias": True}, {}),
    ("llama-like", _LLAMA, {}, {}),
    ("llama-like bf16", _LLAMA, {}, {"precision": "bf16", "optimizer_implementation": "fused"}),
    ("llama-like bf16-mixed", _LLAMA, {}, {"precision": "bf16-mixed", "recompute": "full"}),
    ("multi-query", _LLAMA, {"num_key_value_heads": 1}, {"optimizer_implementation": "foreach"}),
    ("multi-head", _LLAMA, {"num_key_value_heads": 4}, {"optimizer": "adam"}),
    ("wide heads", _LLAMA, {"head_dim": 48, "activation": "geglu"}, {}),
    ("post-norm rmsnorm", _LLAMA, {"norm_placement": "post", "activation": "silu"}, {"precision": "bf16"}),
    (
        "gelu_tanh, dropout",
        _DECODER,
        {"activation": "gelu_tanh", "residual_dropout": 0.1, "embedding_dropout": 0.1},
        {},
    ),
    ("recompute", _DECODER, {"residual_dropout": 0.1}, {"recompute": "full"}),
    ("recompute bf16", _LLAMA, {}, {"recompute": "full", "precision": "bf16"}),
    ("accumulation", _DECODER, {}, {"gradient_accumulation_steps": 3}),
    ("accumulation, recompute", _LLAMA, {}, {"gradient_accumulation_steps": 2, "recompute": "full"}),
    ("sgd", _DECODER, {}, {"optimizer": "sgd"}),
    ("sgd with momentum", _DECODER, {}, {"optimizer": "sgd", "momentum": 0.9, "optimizer_implementation": "foreach"}),
    ("adam foreach", _DECODER, {}, {"optimizer": "adam", "optimizer_implementation": "foreach"}),
    ("adamw fused", _DECODER, {}, {"optimizer_implementation": "fused"}),
    ("padding", _DECODER, {}, {"padding": True, "precision": "bf16-mixed"}),
    ("bert-like", _ENCODER, {}, {}),
    ("bert-like, padding", _ENCODER, {"residual_dropout": 0.1}, {"padding": True, "recompute": "full"}),
    ("bert-like bf16-mixed", _ENCODER, {}, {"precision": "bf16-mixed"}),
    ("class token", _CLASSIFIER, {"pooling": "class_token"}, {}),
    ("class token, one sequence", _CLASSIFIER, {"pooling": "class_token"}, {"micro_batch_size": 1, "padding": True}),
    ("first token and pooler", _CLASSIFIER, {"pooling": "first", "pooler": True}, {"precision": "bf16"}),
    ("mean pooling", _CLASSIFIER, {"pooling": "mean"}, {"padding": True}),
    ("last token of a decoder", replace(_LLAMA, head="classification", pooling="last"), {}, {}),
    (
        "token classification",
        _ENCODER,
        {"head": "token_classification", "head_transform": False, "head_bias": False},
        {},
    ),
    ("original transformer", _ENCODER_DECODER, {}, {}),
    ("original transformer, dropout", _ENCODER_DECODER, {"residual_dropout": 0.1}, {"precision": "bf16-mixed"}),
    ("encoder-decoder, padding", _ENCODER_DECODER, {}, {"padding": True, "precision": "bf16"}),
    ("encoder-decoder, recompute", _ENCODER_DECODER, {"norm_placement": "pre"}, {"recompute": "full"}),
    (
        "encoder-decoder, rotary, accumulation",
        _ENCODER_DECODER,
        {"positions": "rotary"},
        {"gradient_accumulation_steps": 2},
    ),
    ("encoder-decoder, learned positions", _ENCODER_DECODER, {"positions": "learned", "max_positions": 64}, {}),
]
_QUICK_NAIVE: list[tuple[str, Transformer, _Change, _Change]] = [
    ("attention dropout", _DECODER, {"attention_dropout": 0.1}, {}),
    ("attention dropout, recompute", _LLAMA, {"attention_dropout": 0.1}, {"recompute": "full", "precision": "bf16"}),
    (
        "t5-like",
        replace(_ENCODER_DECODER, positions="relative", norm="rmsnorm", norm_placement="pre", scale_attention=False),
        {},
        {},
    ),
    (
        "t5-like bf16-mixed",
        replace(_ENCODER_DECODER, positions="relative", norm="rmsnorm", norm_placement="pre", activation="geglu"),
        {},
        {"precision": "bf16-mixed", "padding": True},
    ),
]

SUITES = ("quick",)


def suite(name: str, device: Device) -> list[Case]:
    """The configurations of a suite, validated. `quick` covers every option with small models, naive and flash."""
    if name not in SUITES:
        close = nearest(name, SUITES)
        hint = f"did you mean {close}? " if close else ""
        raise ConfigurationError(f"{name!a} is not a suite", f"{hint}known suites: {', '.join(SUITES)}")
    cases = []
    kinds: tuple[tuple[Attention, list[Any]], ...] = (("naive", [*_QUICK, *_QUICK_NAIVE]), ("flash", _QUICK))
    for attention, rows in kinds:
        for title, base, model_changes, run_changes in rows:
            model = validate_model(replace(base, **model_changes, name=title))
            cases.append(Case(model, validate_run(model, _run(model, attention, run_changes), device)))
    return cases


def _run(model: Transformer, attention: Attention, changes: _Change) -> TrainingRun:
    lengths = {"source_length": 24, "target_length": 17}
    if model.architecture != "encoder-decoder":
        lengths = {"sequence_length": 32}
    return TrainingRun(**{"micro_batch_size": 2, "attention": attention, **lengths, **changes})
