"""Random configurations over everything memplan models: small enough to run for real, odd enough to find mistakes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.generation import writes
from memplan.config.inference import InferenceRun
from memplan.config.kernels import kernel_problem
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.runs import Run
from memplan.config.validate import validate_model, validate_run

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Read when torch is imported: idle OpenMP threads sleep. Spinning, they take twice as long where cores are shared."""

FRESH = settings(
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
"""For tests against real runs: a seed says which cases are drawn, and no earlier failure is kept or tried first."""

Option = TypeVar("Option")

LENGTHS = (1, 2, 3, 5, 7, 8, 16, 17, 31, 32, 33, 48)
LONG_LENGTHS = (191, 192, 200, 513, 768, 800)
"""Round the lengths at which the flash kernel's blocks change: 192 and 768 (queries), 512 (keys)."""


class Case(NamedTuple):
    """One valid configuration. Its repr is Python that makes it again, with the defaults left out."""

    model: Transformer
    run: Run
    device: Device

    def __repr__(self) -> str:
        return f"Case({_constructor(self.model)}, {_constructor(self.run)}, load_device({self.device.name!r}))"


def _constructor(settings: Transformer | Run) -> str:
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

    BYTES = 96

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


@st.composite
def card_cases(draw: st.DrawFn, *, most_layers: int = 6) -> Case:
    """A model, a run of it that CUDA takes, and a card: of Hopper, Ampere, Ada, Turing or Volta."""
    choose = Choices(draw(st.binary(min_size=Choices.BYTES, max_size=Choices.BYTES)))
    device = load_device(choose.one_of("h100-80gb", "a100-40gb", "rtx-4090", "t4", "v100-16gb"))
    precision = choose.one_of("fp32", "bf16", "bf16-mixed", "fp16-mixed")
    kernel = choose.one_of("flash", "efficient", "naive")
    model, run, _ = make_case(choose, most_layers, 1)
    model = replace(model, num_experts=0, num_experts_per_token=0)  # the CPU's alone
    for attention in (kernel, "flash", "efficient", "naive"):
        changed = replace(run, attention=attention, precision=precision)
        if kernel_problem(model, changed, device, attention) is None:
            return Case(model, validate_run(model, changed, device), device)
    raise AssertionError("naive attention takes every job")


@st.composite
def setup_cases(draw: st.DrawFn, *, most_layers: int = 6) -> Case:
    """The same, of which the optimizer step is set up in one of many ways."""
    choose = Choices(draw(st.binary(min_size=Choices.BYTES, max_size=Choices.BYTES)))
    setup = make_step(choose)
    model, run, device = make_case(choose, most_layers, 2)
    if setup.get("optimizer_in_backward"):
        setup["gradient_accumulation_steps"] = 1
    return Case(model, validate_run(model, replace(run, momentum=0.0, **setup), device), device)


OPTIMIZERS: tuple[str, ...] = ("adamw", "adam", "sgd", "adafactor", "lion", "muon")
if find_spec("bitsandbytes") is not None:
    OPTIMIZERS += ("adamw-8bit",)


def make_step(choose: Choices) -> dict[str, Any]:
    """Settings of a run that say in which precision and how parameters are updated."""
    precision, masters = choose.one_of("fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed"), "none"
    if precision in ("bf16", "fp16"):
        masters = choose.one_of("none", "deepspeed", "megatron")
    optimizer = choose.one_of(*OPTIMIZERS)
    implementations = {"adafactor": ("for-loop", "foreach"), "lion": ("for-loop",), "adamw-8bit": ("for-loop",)}
    in_backward = masters == "none" and choose.whether()
    scaling = "auto"
    if precision == "fp16" and masters == "none":
        scaling = "none"
    elif precision.startswith("fp16"):
        scaling = "none" if in_backward else choose.one_of("auto", "dynamic", "none")
    return {
        "precision": precision,
        "master_weights": masters,
        "gradient_scaling": scaling,
        "optimizer": optimizer,
        "optimizer_implementation": choose.one_of(*implementations.get(optimizer, ("for-loop", "foreach", "fused"))),
        "optimizer_in_backward": in_backward,
        "gradient_clipping": 0.0 if in_backward else choose.one_of(0.0, 1.0),
    }


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
    values.update(make_options(choose, values, flash))
    return Transformer(**values)


OPTIONS: tuple[str, ...] = ("none", "parallel", "window", "alibi", "score cap", "logit cap", "experts", "latent")


def make_options(choose: Choices, values: dict[str, Any], flash: bool) -> dict[str, Any]:
    """Options of a block beyond the plain ones: half of the models have none, the others one or several."""
    wanted = {choose.one_of(*OPTIONS), choose.one_of(*OPTIONS)} if choose.whether() else set()
    options: dict[str, Any] = {}
    if "parallel" in wanted and values["norm_placement"] == "pre" and values["architecture"] != "encoder-decoder":
        options["parallel_blocks"] = True
    if "alibi" in wanted:
        options.update(positions="alibi", max_positions=0, relative_buckets=32, relative_max_distance=128)
    if "window" in wanted:
        options["sliding_window"] = choose.one_of(1, 2, 5, 16, 64)
    if "score cap" in wanted and not flash:
        options["attention_soft_cap"] = choose.one_of(50.0, 1.0)
    if "logit cap" in wanted and values["head"] == "language_modelling":
        options["logit_soft_cap"] = choose.one_of(30.0, 1.0)
    if "latent" in wanted and "alibi" not in wanted and values["architecture"] != "encoder-decoder":
        options.update(positions="rotary", max_positions=0, relative_buckets=32, relative_max_distance=128)
        options.update(attention_bias=False, num_key_value_heads=0, kv_lora_rank=choose.one_of(1, 5, 16))
        options["q_lora_rank"] = choose.one_of(0, 1, 6, 16)
        options["rope_head_dim"] = choose.one_of(2, 4, 8)
        options["head_dim"] = options["rope_head_dim"] + choose.one_of(1, 3, 4, 8)
        options["value_head_dim"] = options["head_dim"] if flash else choose.one_of(1, 2, 7, 8, options["head_dim"])
    if "experts" in wanted:
        options["num_experts"] = choose.one_of(1, 2, 3, 5, 8)
        options["num_experts_per_token"] = choose.one_of(*range(1, options["num_experts"] + 1))
        options["feedforward_bias"] = False
    return options


def make_run(choose: Choices, model: Transformer, flash: bool, long: bool) -> TrainingRun:
    """A run of the model."""
    optimizer = choose.one_of("sgd", "adam", "adamw")
    names = ("source_length", "target_length") if model.architecture == "encoder-decoder" else ("sequence_length",)
    return TrainingRun(
        micro_batch_size=1 if long else choose.one_of(1, 2, 3),
        gradient_accumulation_steps=choose.one_of(1, 1, 2, 3),
        attention="flash" if flash else "naive",
        precision=choose.one_of("fp32", "bf16", "bf16-mixed", "fp16-mixed"),
        optimizer=optimizer,  # type: ignore[arg-type]
        optimizer_implementation=choose.one_of("for-loop", "foreach", "fused"),
        momentum=choose.one_of(0.0, 0.9) if optimizer == "sgd" else 0.0,
        recompute=choose.one_of("none", "full"),
        padding=choose.whether() and (model.head != "classification" or model.pooling != "last"),
        **{name: choose.one_of(*(LONG_LENGTHS if long else LENGTHS)) for name in names},
    )


@st.composite
def generation_cases(draw: st.DrawFn, *, most_layers: int = 5, most_threads: int = 3, most_new: int = 12) -> Case:
    """A model that writes (or, where it cannot, reads), a run of it, and the CPU with some threads."""
    content = draw(st.binary(min_size=Choices.BYTES, max_size=Choices.BYTES))
    return _generation_case(Choices(content), most_layers, most_threads, most_new)


def _generation_case(choose: Choices, most_layers: int = 5, most_threads: int = 3, most_new: int = 12) -> Case:
    long = choose.one_of(*[False] * 7, True)
    flash = choose.whether()
    device = load_device(f"cpu:{choose.one_of(*range(1, most_threads + 1))}")
    model = make_model(choose, flash, range(1, 1 + (min(most_layers, 2) if long else most_layers)))
    if choose.one_of(*[True] * 7, False):
        head = "language_modelling"
        kind = "decoder" if model.architecture == "encoder" else model.architecture
        model = replace(model, architecture=kind, head=head, pooling="mean", pooler=False, token_type_vocab_size=0)
    model = validate_model(model)
    return Case(model, validate_run(model, make_generation(choose, model, flash, long, most_new), device), device)


def make_generation(choose: Choices, model: Transformer, flash: bool, long: bool, most_new: int) -> InferenceRun:
    """A run of the model that writes, if it can."""
    padded = model.head != "classification" or model.pooling != "last"
    values: dict[str, Any] = {
        "micro_batch_size": 1 if long else choose.one_of(1, 2, 3),
        "attention": "flash" if flash else "naive",
        "precision": choose.one_of("fp32", "bf16", "fp16"),
        "padding": choose.whether() and padded,
        "prompt_length": choose.one_of(*(LONG_LENGTHS if long else LENGTHS)),
    }
    if model.architecture == "encoder-decoder":
        values["source_length"] = choose.one_of(*LENGTHS)
    if writes(model):
        room = model.max_positions - values["prompt_length"] if model.positions == "learned" else most_new
        values["new_tokens"] = min(choose.one_of(*range(most_new + 1)), room)
        values["cache"] = choose.one_of("dynamic", "static", *(() if model.sliding_window else ("paged",)))
        whole = () if flash and model.head_dim == 1 else ("int8",)
        values["cache_dtype"] = choose.one_of("same", "same", "fp16", "bf16", "fp8", *whole)
        if values["cache"] == "paged":
            values["cache_block_size"] = choose.one_of(1, 2, 3, 16)
        values["logits"] = choose.one_of("last", "all")
        values["sampling"] = choose.one_of("greedy", "sampled") if values["new_tokens"] else "greedy"
    return InferenceRun(**values)
