"""What a set-up changes of the graph: what the backward pass makes again, how the loss is made, which weights learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from memplan.config.device import Device
from memplan.config.model import Transformer
from memplan.config.run import Attention, Precision
from memplan.config.validate import validate_model, validate_run
from memplan.errors import NotModelledError
from memplan.measure.suites.case import Case, Change, Task, kernels, make_case
from memplan.measure.suites.library import small_models, small_run
from memplan.measure.suites.small import DECODER, ENCODER, ENCODER_DECODER, LLAMA

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "bf16-mixed")

MODELS: dict[str, Transformer] = {
    "gpt-like": replace(DECODER, num_layers=7),
    "llama-like": replace(LLAMA, num_layers=7),
    "bert-like": replace(ENCODER, num_layers=6),
    "encoder-decoder": ENCODER_DECODER,
}
_DROPOUT = {"residual_dropout": 0.1, "embedding_dropout": 0.1}
_PADDED = {"padding": True, "gradient_accumulation_steps": 3}
_BUT_NORMS = ("*embedding.*", "*.attention.*", "*.feedforward.*")

SETUPS: list[tuple[str, Change, Change]] = [
    # what it shows, changes of the model, changes of the run
    ("every second layer recomputed", _DROPOUT, {"recompute": "full", "recompute_every": 2}),
    ("every third layer recomputed", {}, {"recompute": "full", "recompute_every": 3, **_PADDED}),
    ("attention recomputed", {}, {"recompute": "attention"}),
    ("attention recomputed, padding", _DROPOUT, {"recompute": "attention", **_PADDED}),
    ("chunked loss", {}, {"loss": "chunked"}),
    ("chunked loss, padding", {}, {"loss": "chunked", "loss_chunks": 3, **_PADDED}),
    ("chunked loss, large vocabulary", {"vocab_size": 20_000}, {"loss": "chunked", "loss_chunks": 16}),
    ("chunked loss, capped, untied", {"logit_soft_cap": 30.0, "tie_embeddings": False}, {"loss": "chunked"}),
    ("fused loss", {}, {"loss": "fused"}),
    ("fused loss, padding", {}, {"loss": "fused", "loss_chunks": 3, **_PADDED}),
    ("fused loss, large vocabulary", {"vocab_size": 20_000}, {"loss": "fused", "loss_chunks": 16}),
    ("fused loss, bias, untied", {"head_bias": True, "tie_embeddings": False}, {"loss": "fused"}),
    ("fused loss, frozen head", {"tie_embeddings": False}, {"loss": "fused", "frozen": ("head.*",)}),
    ("fused loss, frozen stack", {"tie_embeddings": False}, {"loss": "fused", "frozen": ("*coder.*", "token_*")}),
    ("frozen embedding", {}, {"frozen": ("*embedding*",)}),
    ("two frozen layers", {}, {"frozen_layers": 2, "frozen": ("*embedding*",)}),
    ("two frozen layers below the loss", {}, {"frozen_layers": 2, "optimizer_implementation": "foreach"}),
    ("norms and head alone", {}, {"frozen": _BUT_NORMS}),
    ("frozen queries of one layer", {}, {"frozen": ("*coder.layers.1.*.query.*",)}),
    ("frozen feed-forward, recompute", _DROPOUT, {"frozen": ("*feedforward.*",), "recompute": "full", **_PADDED}),
    (
        "all together",
        {},
        {"frozen_layers": 3, "frozen": ("*embedding*",), "recompute": "full", "recompute_every": 2, "loss": "chunked"},
    ),
]
_NAIVE_ONLY: list[tuple[str, Change, Change]] = [
    ("attention with dropout recomputed", {"attention_dropout": 0.1}, {"recompute": "attention"}),
    (
        "relative positions, attention recomputed",
        {"positions": "relative", "max_positions": 0},
        {"recompute": "attention"},
    ),
    ("relative positions, frozen", {"positions": "relative", "max_positions": 0}, {"frozen": ("*relative*",)}),
]

LIBRARY = ("llama", "llama, dropout", "llama, tied", "gpt2", "gpt2-dropout", "t5", "t5-dropout", "t5-v1.1")
_NORMS = {"gpt2": "*.ln_?.*", "llama": "*norm*", "t5": "*norm*"}
_EMBEDDINGS = {"gpt2": "*.w?e.*", "llama": "*embed_tokens*", "t5": "shared*"}
_PROJECTIONS = {"gpt2": "*.c_*", "llama": "*_proj.*", "t5": "*.[qkvo].*"}


def _library_setups(model_type: str) -> Iterator[tuple[str, Change]]:
    norms, embeddings, projections = (names[model_type] for names in (_NORMS, _EMBEDDINGS, _PROJECTIONS))
    yield "two frozen layers", {"frozen_layers": 2}
    yield "frozen projections", {"frozen": (projections, embeddings)}
    yield "frozen norms, recompute", {"frozen": (norms,), "recompute": "full", "padding": True}
    yield (
        "frozen embedding and layer, accumulation",
        {"frozen": (embeddings,), "frozen_layers": 1, "gradient_accumulation_steps": 2},
    )


def tasks(device: Device) -> Iterator[Task]:
    """Every set-up with every family, by naive attention and by the fused kernels that take it; then models of the
    library transformers."""
    kinds: tuple[Attention, ...] = ("naive", "flash") if device.backend == "cpu" else ("naive", "efficient", "flash")
    for family, base in MODELS.items():
        for title, model, run in [*SETUPS, *_NAIVE_ONLY]:
            for attention in kinds if (title, model, run) not in _NAIVE_ONLY else ("naive",):
                for precision in PRECISIONS:
                    changed = replace(base, **model)
                    if attention in kernels(changed, device, precision, run.get("padding", False)):
                        changes = {"attention": attention, "precision": precision, **_lengths(base), **run}
                        name = f"{family}, {title}"
                        yield Task(make_case(base, name, model, changes, device))
    yield from _library(device)


def _lengths(base: Transformer) -> Change:
    lengths: dict[str, int] = {"sequence_length": 40}
    if base.architecture == "encoder-decoder":
        lengths = {"source_length": 24, "target_length": 17}
    return {"micro_batch_size": 2, **lengths}


def _library(device: Device) -> Iterator[Task]:
    for key in LIBRARY:
        model = validate_model(small_models()[key])
        for title, changes in _library_setups(model.model_type):
            for attention in ("naive", "sdpa"):
                for precision in PRECISIONS:
                    settings: dict[str, Any] = {"attention": attention, "precision": precision, **changes}
                    try:
                        run = validate_run(model, small_run(model, **settings), device)
                    except NotModelledError:  # no sdpa
                        continue
                    yield Task(Case(replace(model, name=f"{key}, {title}"), run))
