"""The suite `quick`: every option there is, with models small enough for the CPU, by each attention kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import Attention
from memplan.measure.suites.case import Case, Change, Task, kernels, make_case
from memplan.measure.suites.small import CLASSIFIER, DECODER, ENCODER, ENCODER_DECODER, LLAMA

_ROWS: list[tuple[str, Transformer, Change, Change]] = [
    # what it shows, base, changes of the model, changes of the run
    ("gpt-like", DECODER, {}, {}),
    ("one layer", DECODER, {"num_layers": 1}, {}),
    ("many layers", DECODER, {"num_layers": 12}, {"sequence_length": 16}),
    ("long", DECODER, {"num_layers": 2}, {"sequence_length": 800, "micro_batch_size": 1}),
    ("medium length", DECODER, {"num_layers": 2}, {"sequence_length": 200}),
    ("single token", DECODER, {}, {"sequence_length": 1, "micro_batch_size": 1}),
    ("large vocabulary", DECODER, {"vocab_size": 20_000}, {}),
    ("untied", DECODER, {"tie_embeddings": False, "head_bias": True}, {}),
    ("llama-like", LLAMA, {}, {}),
    ("llama-like bf16", LLAMA, {}, {"precision": "bf16", "optimizer_implementation": "fused"}),
    ("llama-like bf16-mixed", LLAMA, {}, {"precision": "bf16-mixed", "recompute": "full"}),
    ("multi-query", LLAMA, {"num_key_value_heads": 1}, {"optimizer_implementation": "foreach"}),
    ("multi-head", LLAMA, {"num_key_value_heads": 4}, {"optimizer": "adam"}),
    ("wide heads", LLAMA, {"head_dim": 48, "activation": "geglu"}, {}),
    ("post-norm rmsnorm", LLAMA, {"norm_placement": "post", "activation": "silu"}, {"precision": "bf16"}),
    (
        "gelu_tanh, dropout",
        DECODER,
        {"activation": "gelu_tanh", "residual_dropout": 0.1, "embedding_dropout": 0.1},
        {},
    ),
    ("recompute", DECODER, {"residual_dropout": 0.1}, {"recompute": "full"}),
    ("recompute bf16", LLAMA, {}, {"recompute": "full", "precision": "bf16"}),
    ("accumulation", DECODER, {}, {"gradient_accumulation_steps": 3}),
    ("accumulation, recompute", LLAMA, {}, {"gradient_accumulation_steps": 2, "recompute": "full"}),
    ("sgd", DECODER, {}, {"optimizer": "sgd"}),
    ("sgd with momentum", DECODER, {}, {"optimizer": "sgd", "momentum": 0.9, "optimizer_implementation": "foreach"}),
    ("adam foreach", DECODER, {}, {"optimizer": "adam", "optimizer_implementation": "foreach"}),
    ("adamw fused", DECODER, {}, {"optimizer_implementation": "fused"}),
    ("padding", DECODER, {}, {"padding": True, "precision": "bf16-mixed"}),
    ("bert-like", ENCODER, {}, {}),
    ("bert-like, padding", ENCODER, {"residual_dropout": 0.1}, {"padding": True, "recompute": "full"}),
    ("bert-like bf16-mixed", ENCODER, {}, {"precision": "bf16-mixed"}),
    ("class token", CLASSIFIER, {"pooling": "class_token"}, {}),
    ("class token, one sequence", CLASSIFIER, {"pooling": "class_token"}, {"micro_batch_size": 1, "padding": True}),
    ("first token and pooler", CLASSIFIER, {"pooling": "first", "pooler": True}, {"precision": "bf16"}),
    ("mean pooling", CLASSIFIER, {"pooling": "mean"}, {"padding": True}),
    ("last token of a decoder", replace(LLAMA, head="classification", pooling="last"), {}, {}),
    (
        "token classification",
        ENCODER,
        {"head": "token_classification", "head_transform": False, "head_bias": False},
        {},
    ),
    ("original transformer", ENCODER_DECODER, {}, {}),
    ("original transformer, dropout", ENCODER_DECODER, {"residual_dropout": 0.1}, {"precision": "bf16-mixed"}),
    ("encoder-decoder, padding", ENCODER_DECODER, {}, {"padding": True, "precision": "bf16"}),
    ("encoder-decoder, recompute", ENCODER_DECODER, {"norm_placement": "pre"}, {"recompute": "full"}),
    (
        "encoder-decoder, rotary, accumulation",
        ENCODER_DECODER,
        {"positions": "rotary"},
        {"gradient_accumulation_steps": 2},
    ),
    ("encoder-decoder, learned positions", ENCODER_DECODER, {"positions": "learned", "max_positions": 64}, {}),
    ("parallel blocks", DECODER, {"parallel_blocks": True}, {}),
    ("sliding window", LLAMA, {"sliding_window": 8}, {}),
    ("sliding window, padding", ENCODER, {"sliding_window": 8}, {"padding": True, "precision": "bf16"}),
    ("alibi", DECODER, {"positions": "alibi", "max_positions": 0}, {"precision": "bf16-mixed"}),
    ("alibi encoder, padding", ENCODER, {"positions": "alibi", "max_positions": 0}, {"padding": True}),
    ("capped logits", LLAMA, {"logit_soft_cap": 30.0}, {}),
]
_EXPERTS = {"num_experts": 4, "num_experts_per_token": 2}
_CPU_ONLY: list[tuple[str, Transformer, Change, Change]] = [
    ("experts", LLAMA, _EXPERTS, {}),
    ("experts bf16-mixed", LLAMA, {**_EXPERTS, "activation": "relu"}, {"precision": "bf16-mixed", "recompute": "full"}),
]
_NAIVE_ONLY: list[tuple[str, Transformer, Change, Change]] = [
    ("capped scores", LLAMA, {"attention_soft_cap": 50.0}, {}),
    ("attention dropout", DECODER, {"attention_dropout": 0.1}, {}),
    ("attention dropout, recompute", LLAMA, {"attention_dropout": 0.1}, {"recompute": "full", "precision": "bf16"}),
    (
        "t5-like",
        replace(ENCODER_DECODER, positions="relative", norm="rmsnorm", norm_placement="pre", scale_attention=False),
        {},
        {},
    ),
    (
        "t5-like bf16-mixed",
        replace(ENCODER_DECODER, positions="relative", norm="rmsnorm", norm_placement="pre", activation="geglu"),
        {},
        {"precision": "bf16-mixed", "padding": True},
    ),
]


def tasks(device: Device) -> Iterator[Task]:
    """Naive first, then the fused kernels that take the configuration."""
    kinds: tuple[Attention, ...] = ("naive", "flash") if device.backend == "cpu" else ("naive", "efficient", "flash")
    rows = [*_ROWS, *(_CPU_ONLY if device.backend == "cpu" else ())]
    for attention in kinds:
        for title, base, model, run in [*rows, *(_NAIVE_ONLY if attention == "naive" else ())]:
            precision, padding = run.get("precision", "fp32"), run.get("padding", False)
            if attention in kernels(replace(base, **model), device, precision, padding):
                yield Task(_case(title, base, attention, model, run, device))


def _case(title: str, base: Transformer, attention: Attention, model: Change, run: Change, device: Device) -> Case:
    lengths = {"source_length": 24, "target_length": 17}
    if base.architecture != "encoder-decoder":
        lengths = {"sequence_length": 32}
    return make_case(base, title, model, {"micro_batch_size": 2, "attention": attention, **lengths, **run}, device)
