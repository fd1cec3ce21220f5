"""Adapters, on weights that are whole or quantised: of the reference transformer and of the library's models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.validate import validate_model, validate_run
from memplan.measure.suites.case import Case, Change, Task, kernels, lengths, make_case
from memplan.measure.suites.library import small_models, small_run
from memplan.measure.suites.small import CLASSIFIER, DECODER, ENCODER, ENCODER_DECODER, LLAMA

EVERY = ("query", "key", "value", "output", "gate", "up", "down")
BF16 = {"precision": "bf16"}
RECOMPUTED = {"recompute": "full", "gradient_accumulation_steps": 2}

_ROWS: list[tuple[str, Transformer, Change]] = [
    ("lora", LLAMA, {}),
    ("lora, every linear layer", LLAMA, {"lora_targets": EVERY, "lora_rank": 16}),
    ("lora, bf16", LLAMA, {**BF16, "lora_targets": EVERY}),
    ("lora in bf16", LLAMA, {**BF16, "lora_dtype": "bf16", "optimizer_implementation": "fused"}),
    ("lora, bf16-mixed, dropout", LLAMA, {"precision": "bf16-mixed", "lora_dropout": 0.1}),
    ("lora, fp16-mixed", DECODER, {"precision": "fp16-mixed", "optimizer_implementation": "foreach"}),
    ("lora, recompute", LLAMA, RECOMPUTED),
    ("lora, recompute, bf16-mixed", DECODER, {**RECOMPUTED, "precision": "bf16-mixed"}),
    ("lora above the first layer's graph", DECODER, {"lora_targets": ("feedforward.down",)}),
    ("lora, bert-like, padding", ENCODER, {"padding": True}),
    ("lora, classifier", CLASSIFIER, {"lora_targets": ("value", "classifier")}),
    ("lora, encoder-decoder", ENCODER_DECODER, {"lora_targets": ("query", "cross_attention.output")}),
    ("lora, sgd", DECODER, {"optimizer": "sgd", "momentum": 0.9}),
    ("qlora", LLAMA, {**BF16, "weight_quantization": "nf4", "lora_targets": EVERY}),
    ("qlora, single quantisation", LLAMA, {**BF16, "weight_quantization": "nf4", "double_quantization": False}),
    ("qlora, recompute", LLAMA, {**BF16, **RECOMPUTED, "weight_quantization": "nf4", "lora_targets": EVERY}),
    ("qlora, bf16-mixed", DECODER, {"precision": "bf16-mixed", "weight_quantization": "nf4"}),
    ("qlora, fp32, encoder-decoder", ENCODER_DECODER, {"weight_quantization": "nf4"}),
    ("int8", LLAMA, {**BF16, "weight_quantization": "int8", "lora_targets": EVERY}),
    ("int8, bert-like, dropout", ENCODER, {"weight_quantization": "int8", "lora_dropout": 0.1, "padding": True}),
    ("int8, recompute, bf16-mixed", LLAMA, {**RECOMPUTED, "precision": "bf16-mixed", "weight_quantization": "int8"}),
]

_MODELS = ("llama", "gpt2", "mistral", "t5", "bert")
_RUNS: tuple[tuple[str, Change], ...] = (
    ("lora", {}),
    ("lora, dropout, padding", {"lora_dropout": 0.1, "padding": True}),
    ("lora, bf16", BF16),
    ("lora in bf16", {**BF16, "lora_dtype": "bf16", "attention": "naive"}),
    ("lora, bf16-mixed", {"precision": "bf16-mixed", "optimizer_implementation": "fused"}),
    ("qlora, bf16", {**BF16, "weight_quantization": "nf4"}),
    ("qlora, recompute, bf16-mixed", {**RECOMPUTED, "precision": "bf16-mixed", "weight_quantization": "nf4"}),
    ("qlora, single quantisation", {"weight_quantization": "nf4", "double_quantization": False, "attention": "naive"}),
    ("int8, bf16", {**BF16, "weight_quantization": "int8"}),
    ("int8, recompute", {**RECOMPUTED, "weight_quantization": "int8"}),
    ("lora, recompute", RECOMPUTED),
    ("lora, recompute, bf16-mixed", {**RECOMPUTED, "precision": "bf16-mixed", "attention": "naive"}),
)


def tasks(device: Device) -> Iterator[Task]:
    """The reference transformer by each kernel it takes, then the library's models."""
    for title, base, run in _ROWS:
        for attention in kernels(base, device, run.get("precision", "fp32"), run.get("padding", False)):
            sizes = {"micro_batch_size": 2, "attention": attention, **lengths(base, 32)}
            yield Task(make_case(base, title, {}, {"lora_rank": 4, **sizes, **run}, device))
    for key in _MODELS:
        model = validate_model(small_models()[key])
        for title, changes in _RUNS:
            if device.backend == "cuda" and "weight_quantization" in changes:
                continue
            checked = validate_run(model, small_run(model, lora_rank=4, **changes), device)
            yield Task(Case(replace(model, name=f"{key}, {title}"), checked))
