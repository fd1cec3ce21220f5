"""Random configurations over everything memplan models: small enough to run for real, odd enough to find mistakes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

from hypothesis import strategies as st

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Read when torch is imported: idle OpenMP threads sleep. Spinning, they take twice as long where cores are shared."""

Option = TypeVar("Option")

LENGTHS = (1, 2, 3, 5, 7, 8, 16, 17, 31, 32, 33, 48)
LONG_LENGTHS = (191, 192, 200, 513, 768, 800)
"""Round the lengths at which the flash kernel's blocks change: 192 and 768 (queries), 512 (keys)."""


class Case(NamedTuple):
    """One valid configuration. Its repr is Python that makes it again, with the defaults left out."""

    model: Transformer
    run: TrainingRun
    device: Device

    def __repr__(self) -> str:
        return f"Case({_constructor(self.model)}, {_constructor(self.run)}, load_device({self.device.name!r}))"


def _constructor(settings: Transformer | TrainingRun) -> str:
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    given = (
        f"{field.name}={values[field.name]!r}" for field in fields(settings) if values[field.name] != field.default
    )
    return f"{type(settings).__name__}({', '.join(given)})"


class Choices:
    """One byte for each decision, in order; a byte of 0 takes the first option, which should be the simplest.

    Bytes from one draw, and not one draw for each decision: Hypothesis mutates what it drew in several parts, so that
    five of six configurations would be copies with few changes. A shrunk failure still takes first options.
    """

    BYTES = 64

    def __init__(self, content: bytes) -> None:
        self.content = iter(content)

    def one_of(self, *options: Option) -> Option:
        """One of the options, each as likely as any other."""
        return options[next(self.content) % len(options)]

    def whether(self) -> bool:
        """False or True."""
        return self.one_of(False, True)


@st.composite
def cases(draw: st.DrawFn, *, most_layers: int = 6, most_threads: int = 3) -> Case:
    """A model, a run of it, and the CPU with some threads.

    One in eight has a length at which flash attention's blocks are larger, and then one or two layers and one sequence.
    """
    content = draw(st.binary(min_size=Choices.BYTES, max_size=Choices.BYTES))
    return make_case(Choices(content), most_layers, most_threads)


def make_case(choose: Choices, most_layers: int, most_threads: int) -> Case:
    """The configuration these choices stand for."""
    long = choose.one_of(*[False] * 7, True)
    flash = choose.whether()
    device = load_device(f"cpu:{choose.one_of(*range(1, most_threads + 1))}")
    model = validate_model(make_model(choose, flash, range(1, 1 + (min(most_layers, 2) if long else most_layers))))
    return Case(model, validate_run(model, make_run(choose, model, flash, long), device), device)


def make_model(choose: Choices, flash: bool, layers: Sequence[int]) -> Transformer:
    """A model of small sizes, with room for every length that `make_run` chooses. With `flash`, one that PyTorch's CPU
    kernel takes: without a trained bias on the scores and without attention dropout."""
    heads = choose.one_of(1, 2, 3, 4, 6)
    values: dict[str, Any] = {
        "architecture": choose.one_of("encoder", "decoder", "encoder-decoder"),
        "vocab_size": choose.one_of(1, 2, 7, 50, 300, 1001),
        "num_layers": choose.one_of(*layers),
        "num_attention_heads": heads,
        "num_key_value_heads": choose.one_of(*(groups for groups in range(heads, 0, -1) if heads % groups == 0)),
        "intermediate_size": choose.one_of(1, 5, 16, 32, 50),
        "norm": choose.one_of("layernorm", "rmsnorm"),
        "norm_placement": choose.one_of("pre", "post"),
        "activation": choose.one_of("relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu"),
        "attention_bias": choose.whether(),
        "feedforward_bias": choose.whether(),
        "scale_attention": choose.whether(),
        "embedding_dropout": choose.one_of(0.0, 0.0, 0.1, 0.5),
        "attention_dropout": 0.0 if flash else choose.one_of(0.0, 0.0, 0.1, 0.5),
        "residual_dropout": choose.one_of(0.0, 0.0, 0.1, 0.5),
        "scale_embeddings": choose.whether(),
        "embedding_norm": choose.whether(),
        "tie_embeddings": choose.whether(),
    }
    positions = choose.one_of("sinusoidal", "learned", "rotary", *(() if flash else ("relative",)))
    values["positions"] = positions
    values["head_dim"] = choose.one_of(*((2, 4, 6, 8, 16) if positions == "rotary" else (1, 2, 3, 4, 7, 8, 16)))
    odd_sizes = (1, 3, 8, 13, 16, 24, 35)
    values["hidden_size"] = choose.one_of(*((2, 6, 8, 16, 24, 34) if positions == "sinusoidal" else odd_sizes))
    if positions == "learned":
        values["max_positions"] = choose.one_of(LONG_LENGTHS[-1] + 1, 1024)
    elif positions == "relative":
        values["relative_buckets"] = choose.one_of(4, 7, 8, 32)
        values["relative_max_distance"] = choose.one_of(17, 128)
    if values["architecture"] == "encoder":
        values["token_type_vocab_size"] = choose.one_of(0, 0, 1, 2)
    elif values["architecture"] == "encoder-decoder":
        values["num_encoder_layers"] = choose.one_of(*layers)
    head = "language_modelling"
    if values["architecture"] != "encoder-decoder":
        head = choose.one_of("language_modelling", "classification", "token_classification")
    values["head"] = head
    if head == "language_modelling":
        values["head_bias"], values["head_transform"] = choose.whether(), choose.whether()
    else:
        values["num_labels"] = choose.one_of(1, 2, 5)
    if head == "classification":
        class_token = ("class_token",) if values["architecture"] == "encoder" else ()
        values["pooling"] = choose.one_of("mean", "first", "last", *class_token)
        values["pooler"] = choose.whether()
    return Transformer(**values)


def make_run(choose: Choices, model: Transformer, flash: bool, long: bool) -> TrainingRun:
    """A run of the model."""
    optimizer = choose.one_of("sgd", "adam", "adamw")
    names = ("source_length", "target_length") if model.architecture == "encoder-decoder" else ("sequence_length",)
    return TrainingRun(
        micro_batch_size=1 if long else choose.one_of(1, 2, 3),
        gradient_accumulation_steps=choose.one_of(1, 1, 2, 3),
        attention="flash" if flash else "naive",
        precision=choose.one_of("fp32", "bf16", "bf16-mixed"),
        optimizer=optimizer,  # type: ignore[arg-type]
        optimizer_implementation=choose.one_of("for-loop", "foreach", "fused"),
        momentum=choose.one_of(0.0, 0.9) if optimizer == "sgd" else 0.0,
        recompute=choose.one_of("none", "full"),
        padding=choose.whether() and (model.head != "classification" or model.pooling != "last"),
        **{name: choose.one_of(*(LONG_LENGTHS if long else LENGTHS)) for name in names},
    )
