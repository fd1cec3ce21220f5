"""Random configurations over everything memplan models: small enough to run for real, odd enough to find mistakes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple, get_args

from hypothesis import strategies as st

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.model import Transformer
from memplan.config.run import Attention, TrainingRun
from memplan.config.validate import validate_model, validate_run

LONG = (191, 192, 200, 513, 768, 800)
"""Lengths round which the flash kernel's blocks change: 192 and 768 (queries), 512 (keys)."""


class Case(NamedTuple):
    """One valid configuration. Its repr is Python that makes it again, with the defaults left out."""

    model: Transformer
    run: TrainingRun
    device: Device

    def __repr__(self) -> str:
        return f"Case({_constructor(self.model)}, {_constructor(self.run)}, load_device({self.device.name!r}))"


def _constructor(settings: Transformer | TrainingRun) -> str:
    given = [field for field in fields(settings) if getattr(settings, field.name) != field.default]
    return (
        f"{type(settings).__name__}({', '.join(f'{field.name}={getattr(settings, field.name)!r}' for field in given)})"
    )


@st.composite
def models(draw: st.DrawFn, *, attention: Attention = "naive", most_layers: int = 6) -> Transformer:
    """A validated model of small sizes. `max_positions` has room for every length that `runs` draws. With `flash`, what
    PyTorch's CPU kernel takes: no trained bias on the scores and no attention dropout."""
    flash = attention == "flash"
    boolean = st.booleans()
    architecture = draw(st.sampled_from(("encoder", "decoder", "encoder-decoder")))
    positions = draw(st.sampled_from(("learned", "sinusoidal", "rotary") + ("relative",) * (not flash)))
    head = "language_modelling"
    if architecture != "encoder-decoder":
        head = draw(st.sampled_from(("language_modelling", "classification", "token_classification")))
    heads = draw(st.sampled_from((1, 2, 3, 4, 6)))
    head_dims = (2, 4, 6, 8, 16) if positions == "rotary" else (1, 2, 3, 4, 7, 8, 16)
    hidden_sizes = (2, 6, 8, 16, 24, 34) if positions == "sinusoidal" else (1, 3, 8, 13, 16, 24, 35)
    dropouts = st.sampled_from((0.0, 0.0, 0.1, 0.5))
    changes: dict[str, Any] = {}
    if positions == "learned":
        changes["max_positions"] = draw(st.sampled_from((LONG[-1] + 1, 1024)))
    elif positions == "relative":
        changes["relative_buckets"] = draw(st.sampled_from((4, 7, 8, 32)))
        changes["relative_max_distance"] = draw(st.sampled_from((17, 128)))
    if architecture == "encoder":
        changes["token_type_vocab_size"] = draw(st.sampled_from((0, 0, 1, 2)))
    elif architecture == "encoder-decoder":
        changes["num_encoder_layers"] = draw(st.integers(1, most_layers))
    if head == "language_modelling":
        changes["head_bias"], changes["head_transform"] = draw(boolean), draw(boolean)
    else:
        changes["num_labels"] = draw(st.sampled_from((1, 2, 5)))
    if head == "classification":
        poolings = ("first", "last", "mean", "class_token") if architecture == "encoder" else ("first", "last", "mean")
        changes["pooling"], changes["pooler"] = draw(st.sampled_from(poolings)), draw(boolean)
    return validate_model(
        Transformer(
            architecture=architecture,  # type: ignore[arg-type]
            vocab_size=draw(st.sampled_from((1, 2, 7, 50, 300, 1001))),
            hidden_size=draw(st.sampled_from(hidden_sizes)),
            num_layers=draw(st.integers(1, most_layers)),
            num_attention_heads=heads,
            num_key_value_heads=draw(
                st.sampled_from([groups for groups in range(1, heads + 1) if heads % groups == 0])
            ),
            head_dim=draw(st.sampled_from(head_dims)),
            intermediate_size=draw(st.sampled_from((1, 5, 16, 32, 50))),
            positions=positions,
            norm=draw(st.sampled_from(("layernorm", "rmsnorm"))),
            norm_placement=draw(st.sampled_from(("pre", "post"))),
            activation=draw(st.sampled_from(("relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu"))),
            attention_bias=draw(boolean),
            feedforward_bias=draw(boolean),
            scale_attention=draw(boolean),
            embedding_dropout=draw(dropouts),
            attention_dropout=0.0 if flash else draw(dropouts),
            residual_dropout=draw(dropouts),
            scale_embeddings=draw(boolean),
            embedding_norm=draw(boolean),
            tie_embeddings=draw(boolean),
            head=head,
            **changes,
        )
    )


@st.composite
def runs(
    draw: st.DrawFn, model: Transformer, device: Device, *, attention: Attention = "naive", long: bool = False
) -> TrainingRun:
    """A validated run of `model`."""
    lengths = st.sampled_from((1, 2, 3, 5, 7, 8, 16, 17, 31, 32, 33, 48))
    optimizer = draw(st.sampled_from(("adamw", "adam", "sgd")))
    changes: dict[str, Any] = {}
    names = ("source_length", "target_length") if model.architecture == "encoder-decoder" else ("sequence_length",)
    for name in names:
        changes[name] = draw(st.sampled_from(LONG) if long and draw(st.booleans()) else lengths)
    return validate_run(
        model,
        TrainingRun(
            micro_batch_size=draw(st.sampled_from((1,) if long else (1, 2, 3))),
            gradient_accumulation_steps=draw(st.sampled_from((1, 1, 2, 3))),
            attention=attention,
            precision=draw(st.sampled_from(("fp32", "bf16", "bf16-mixed"))),
            optimizer=optimizer,
            optimizer_implementation=draw(st.sampled_from(("for-loop", "foreach", "fused"))),
            momentum=draw(st.sampled_from((0.0, 0.9))) if optimizer == "sgd" else 0.0,
            recompute=draw(st.sampled_from(("none", "full"))),
            padding=draw(st.booleans()),
            **changes,
        ),
        device,
    )


@st.composite
def cases(draw: st.DrawFn, *, most_layers: int = 6, most_threads: int = 3) -> Case:
    """A model, a run of it and the CPU with some threads. One in eight has a length at which flash's blocks are larger,
    and then few layers."""
    attention = draw(st.sampled_from(get_args(Attention)))
    long = draw(st.integers(0, 7)) == 7
    model = draw(models(attention=attention, most_layers=min(most_layers, 2) if long else most_layers))
    device = load_device(f"cpu:{draw(st.integers(1, most_threads))}")
    return Case(model, draw(runs(model, device, attention=attention, long=long)), device)
