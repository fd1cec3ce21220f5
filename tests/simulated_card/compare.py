"""Random configurations, estimated and run on the simulated card: what differs, in bytes.

python -m tests.simulated_card.compare [--examples N] [--seed N] [--device NAME]
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from memplan.config.device import Device
from memplan.config.kernels import kernel_problem
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import estimate
from memplan.ops.backend import release

from .card import make_card, run_for_real


def draw(choose: random.Random, device: Device) -> tuple[Transformer, TrainingRun]:
    """A configuration that the card takes, of sizes at which kernels choose other ways."""
    while True:
        model, run = draw_model(choose), None
        run = draw_run(choose, model)
        if kernel_problem(model, run, device, run.attention) is None:
            return model, validate_run(model, run, device)


def draw_model(choose: random.Random) -> Transformer:
    one = choose.choice
    heads = one((1, 2, 4, 8, 12))
    architecture, positions = (
        one(("encoder", "decoder", "encoder-decoder")),
        one(("sinusoidal", "learned", "rotary", "relative")),
    )
    head = "language_modelling"
    if architecture != "encoder-decoder":
        head = one(("language_modelling", "language_modelling", "classification", "token_classification"))
    values: dict[str, Any] = {
        "architecture": architecture,
        "vocab_size": one((50, 300, 1001, 5000, 32_000)),
        "hidden_size": one((64, 128, 256, 384, 512, 768)),
        "num_layers": one((1, 2, 3, 4, 5, 7)),
        "num_attention_heads": heads,
        "num_key_value_heads": one([groups for groups in range(heads, 0, -1) if heads % groups == 0]),
        "head_dim": one((8, 16, 20, 32, 40, 64, 80, 128)),
        "intermediate_size": one((64, 256, 1000, 1024, 2048)),
        "norm": one(("layernorm", "rmsnorm")),
        "norm_placement": one(("pre", "post")),
        "activation": one(("relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu")),
        "positions": positions,
        "max_positions": 4096 if positions == "learned" else 0,
        "head": head,
    }
    for name in (
        "attention_bias",
        "feedforward_bias",
        "scale_attention",
        "scale_embeddings",
        "embedding_norm",
        "tie_embeddings",
    ):
        values[name] = one((True, False))
    for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
        values[name] = one((0.0, 0.1))
    if architecture == "encoder":
        values["token_type_vocab_size"] = one((0, 2))
    if architecture == "encoder-decoder":
        values["num_encoder_layers"] = one((1, 2, 3, 4, 5))
    if head == "language_modelling":
        values["head_bias"], values["head_transform"] = one((True, False)), one((True, False))
    else:
        values["num_labels"] = one((1, 2, 5))
    if head == "classification":
        values["pooling"] = one(("mean", "first", "last", *(("class_token",) if architecture == "encoder" else ())))
        values["pooler"] = one((True, False))
    return validate_model(Transformer(**values))


def draw_run(choose: random.Random, model: Transformer) -> TrainingRun:
    one = choose.choice
    optimizer = one(("sgd", "adam", "adamw"))
    names = ("source_length", "target_length") if model.architecture == "encoder-decoder" else ("sequence_length",)
    padding = one((True, False)) and (model.head != "classification" or model.pooling != "last")
    return TrainingRun(
        micro_batch_size=one((1, 2, 3, 8)),
        gradient_accumulation_steps=one((1, 1, 2, 3)),
        attention=one(("naive", "flash", "efficient")),
        precision=one(("fp32", "bf16", "bf16-mixed", "fp16-mixed")),
        optimizer=optimizer,
        optimizer_implementation=one(("for-loop", "foreach", "fused")),
        momentum=one((0.0, 0.9)) if optimizer == "sgd" else 0.0,
        recompute=one(("none", "full")),
        padding=padding,
        **{name: one((1, 7, 32, 33, 128, 200, 512, 1000, 2048)) for name in names},
    )


def differences(predicted: Any, measured: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Figures that are not the same: allocated and reserved bytes of every phase."""
    for phase, seen in zip(predicted.phases, measured["phases"], strict=True):
        for name in ("peak_allocated_bytes", "end_allocated_bytes", "peak_reserved_bytes"):
            if getattr(phase, name) != seen[name]:
                yield f"{phase.name} {name}", getattr(phase, name) - seen[name]


def spelled(configuration: Transformer | TrainingRun) -> str:
    """Python that makes it again, with the defaults left out."""
    given = (
        f"{field.name}={getattr(configuration, field.name)!r}"
        for field in fields(configuration)
        if getattr(configuration, field.name) != field.default
    )
    return f"{type(configuration).__name__}({', '.join(given)})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="h100-80gb")
    arguments = parser.parse_args()
    device, card = make_card(arguments.device)
    import torch

    rules = release(torch.__version__)
    allocated = reserved = 0
    for index in range(arguments.examples):
        model, run = draw(random.Random(arguments.seed * 100_003 + index), device)
        measured = run_for_real(model, run, card)
        found = dict(differences(estimate(model, run, device, rules, steps=len(measured["steps"])), measured))
        if found:
            print(index, measured["outcome"], found, spelled(model), spelled(run))
        allocated += any("allocated" in name for name in found)
        reserved += any("reserved" in name for name in found)
    print(f"PyTorch {torch.__version__}, {arguments.device}: {arguments.examples} configurations,", end=" ")
    print(f"{allocated} differ in allocated bytes, {reserved} in reserved bytes")
    return int(allocated > 0)


if __name__ == "__main__":
    code = main()
    os._exit(code)  # PyTorch's threads do not end on a card whose events never come
