"""Every bad model and run is refused by the name of its field; every default is resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from memplan.config.card import Card
from memplan.config.device import Device
from memplan.config.fields import LARGEST
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, NotModelledError

from .conftest import refused

Small = Callable[..., Transformer]
CPU = Device(name="cpu", backend="cpu", threads=2)
CARD = Card(name="h100-80gb", backend="cuda", capacity_bytes=80 * 2**30, compute_capability="9.0", multiprocessors=132)
WRONG_WHOLE_NUMBERS: tuple[Any, ...] = (
    1.5,
    768.0,
    "768",
    True,
    None,
    [768],
    {},
    -1,
    2**63,
    10**5000,
    float("nan"),
    float("inf"),
)
RUN = TrainingRun(sequence_length=8)
LATENT: dict[str, Any] = {
    "kv_lora_rank": 5, "rope_head_dim": 4, "head_dim": 7, "value_head_dim": 6, "attention_bias": False,
}  # fmt: skip


def test_defaults_are_resolved(small: Small) -> None:
    model = validate_model(small())
    assert (model.num_key_value_heads, model.head_dim, model.num_encoder_layers) == (4, 6, 0)
    assert validate_model(small(architecture="encoder-decoder")).num_encoder_layers == 2
    assert validate_model(small(architecture="encoder-decoder", num_encoder_layers=5)).num_encoder_layers == 5
    assert validate_model(small(hidden_size=23, head_dim=8)).head_dim == 8
    assert validate_model(small(attention_dropout=0)) == validate_model(small())


def test_a_valid_model_stays_as_it_is(small: Small) -> None:
    model = validate_model(small(num_key_value_heads=1))
    assert validate_model(model) == model
    assert type(validate_model(small(attention_dropout=0)).attention_dropout) is float


def test_sizes_up_to_pytorchs_limit_pass(small: Small) -> None:
    assert validate_model(small(vocab_size=LARGEST)).vocab_size == LARGEST
    with refused("vocab_size: 9223372036854775808 is larger than PyTorch's 2**63 - 1"):
        validate_model(small(vocab_size=LARGEST + 1))


@pytest.mark.parametrize("value", WRONG_WHOLE_NUMBERS, ids=lambda value: str(type(value)))
@pytest.mark.parametrize("name", [field.name for field in fields(Transformer) if field.type == "int"])
def test_every_size_of_a_model_must_be_a_whole_number(small: Small, name: str, value: object) -> None:
    with refused(f"{name}: "):
        validate_model(small(**{name: value}))


@pytest.mark.parametrize("value", WRONG_WHOLE_NUMBERS, ids=lambda value: str(type(value)))
@pytest.mark.parametrize("name", [field.name for field in fields(TrainingRun) if field.type == "int"])
def test_every_size_of_a_run_must_be_a_whole_number(small: Small, name: str, value: Any) -> None:
    with refused(f"{name}: "):
        validate_run(small(), replace(RUN, **{name: value}), CPU)


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "num_layers", "num_attention_heads", "intermediate_size"]
)
def test_zero_is_refused_where_something_must_be(small: Small, name: str) -> None:
    with refused(f"{name}: must be at least 1, not 0"):
        validate_model(small(**{name: 0}))


@pytest.mark.parametrize("value", [1, 1.0, -0.1, "0.1", True, None, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("name", ["embedding_dropout", "attention_dropout", "residual_dropout"])
def test_dropout_is_a_share_below_one(small: Small, name: str, value: object) -> None:
    with refused(f"{name}: must be a number from 0 up to, not including, 1"):
        validate_model(small(**{name: value}))


@pytest.mark.parametrize("value", [1, 0, "true", None])
@pytest.mark.parametrize("name", [field.name for field in fields(Transformer) if field.type == "bool"])
def test_switches_are_true_or_false(small: Small, name: str, value: object) -> None:
    with refused(f"{name}: must be true or false"):
        validate_model(small(**{name: value}))


@pytest.mark.parametrize("value", [-0.1, "30", True, None, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("name", ["attention_soft_cap", "logit_soft_cap"])
def test_a_cap_is_a_number(small: Small, name: str, value: object) -> None:
    with refused(f"{name}: must be a number of at least 0, not "):
        validate_model(small(**{name: value}))


def test_names_are_printable(small: Small) -> None:
    for name in ("", "two\nlines", "\x1b[31m", "\ud800", 7, None):
        with refused("name: must be "):
            validate_model(small(name=name))


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("architecture", "decoders", "decoder"),
        ("positions", "rotery", "rotary"),
        ("norm", "LayerNorm", "layernorm"),
        ("norm_placement", "prior", "pre"),
        ("activation", "swi-glu", "swiglu"),
        ("head", "language_modeling", "language_modelling"),
        ("pooling", "cls_token", "class_token"),
    ],
)
def test_an_unknown_word_gets_the_nearest(small: Small, name: str, value: str, near: str) -> None:
    with refused(f"{name}: must be one of ", f'did you mean "{near}"?'):
        validate_model(small(**{name: value}))


@pytest.mark.parametrize("name", ["architecture", "positions", "norm", "activation", "head", "pooling"])
@pytest.mark.parametrize("value", [None, 3, ["rotary"], {"a": 1}, "x" * 10_000])
def test_a_word_must_be_text(small: Small, name: str, value: object) -> None:
    with refused(f"{name}: must be one of "):
        validate_model(small(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"hidden_size": 25}, ("num_attention_heads: hidden_size 25 is not divisible by 4", "5 would do", "head_dim")),
        ({"num_key_value_heads": 3}, ("num_key_value_heads: 4 attention heads are not divisible by 3", "2 would do")),
        ({"num_key_value_heads": 8}, ("num_key_value_heads: 4 attention heads are not divisible by 8",)),
        ({"head_dim": 5}, ("head_dim: rotary positions turn pairs, so head_dim must be even, not 5",)),
        ({"hidden_size": 20}, ("head_dim: rotary positions turn pairs, so head_dim must be even, not 5",)),
        ({"positions": "sinusoidal", "hidden_size": 25, "head_dim": 4}, ("hidden_size: sinusoidal", "even, not 25")),
        ({"positions": "learned"}, ("max_positions: is missing: learned positions",)),
        ({"max_positions": 8}, ("max_positions: must be left out (0): rotary",)),
        ({"positions": "relative", "relative_buckets": 2}, ("relative_buckets: must be at least 4",)),
        ({"positions": "relative", "relative_max_distance": 16}, ("relative_max_distance: must be more than half",)),
        ({"relative_buckets": 16}, ('relative_buckets: only positions = "relative"',)),
        ({"relative_max_distance": 16}, ('relative_max_distance: only positions = "relative"',)),
        ({"positions": "alibi", "max_positions": 8}, ("max_positions: must be left out (0): alibi",)),
        ({"num_encoder_layers": 2}, ("num_encoder_layers: only an encoder-decoder",)),
        ({"token_type_vocab_size": 2}, ('token_type_vocab_size: only architecture = "encoder"',)),
        ({"head": "classification", "pooling": "class_token"}, ("pooling: a class token on a decoder", "first, last")),
        ({"pooling": "class_token"}, ("pooling: a class token on a decoder",)),
        (
            {"architecture": "encoder", "pooling": "class_token"},
            ('pooling: a class token needs head = "classification"',),
        ),
        ({"architecture": "encoder-decoder", "head": "classification"}, ('head: must be "language_modelling"',)),
        ({"architecture": "encoder-decoder", "head": "token_classification"}, ('head: must be "language_modelling"',)),
        ({"architecture": "encoder-decoder", "token_type_vocab_size": 2}, ("token_type_vocab_size: only",)),
        ({"head": "classification", "head_transform": True}, ("head_transform: must be false",)),
        ({"head": "token_classification", "head_bias": True}, ("head_bias: must be false",)),
        ({"pooler": True}, ('pooler: must be false: only head = "classification"',)),
        ({"head": "token_classification", "pooler": True}, ("pooler: must be false",)),
        ({"head": "classification", "logit_soft_cap": 30}, ("logit_soft_cap: must be 0: only head",)),
        ({"q_lora_rank": 4}, ("q_lora_rank: must be left out (0): only latent attention",)),
        ({**LATENT, "value_head_dim": 0}, ("value_head_dim: is missing",)),
        ({**LATENT, "head_dim": 0}, ("head_dim: is missing",)),
        ({**LATENT, "rope_head_dim": 3}, ("rope_head_dim: rotary positions turn pairs, so it must be even, not 3",)),
        ({**LATENT, "rope_head_dim": 8}, ("rope_head_dim: is a part of head_dim 7: it must be smaller, not 8",)),
        ({**LATENT, "positions": "sinusoidal"}, ('kv_lora_rank: latent attention needs positions = "rotary"',)),
        ({**LATENT, "architecture": "encoder-decoder"}, ("kv_lora_rank: must be left out (0) on an encoder-decoder",)),
        ({**LATENT, "attention_bias": True}, ("attention_bias: must be false with kv_lora_rank",)),
        ({**LATENT, "num_key_value_heads": 2}, ("num_key_value_heads: must be left out with kv_lora_rank",)),
        ({"num_experts": 4, "feedforward_bias": False}, ("num_experts_per_token: is missing",)),
        ({"num_experts_per_token": 2}, ("num_experts_per_token: must be left out: num_experts is 0",)),
        (
            {"num_experts": 4, "num_experts_per_token": 5, "feedforward_bias": False},
            ("num_experts_per_token: must be at most the 4 of num_experts, not 5",),
        ),
        ({"num_experts": 4, "num_experts_per_token": 1}, ("feedforward_bias: must be false with num_experts",)),
        ({"parallel_blocks": True, "norm_placement": "post"}, ('parallel_blocks: needs norm_placement = "pre"',)),
        ({"parallel_blocks": True, "architecture": "encoder-decoder"}, ("parallel_blocks: must be false on an enc",)),
    ],
)
def test_fields_that_contradict_each_other(small: Small, changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    with refused(*parts):
        validate_model(small(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "classification", "pooling": "first", "pooler": True},
        {"head": "classification", "pooling": "last"},
        {"architecture": "encoder", "head": "classification", "pooling": "class_token"},
        {"architecture": "encoder", "head_transform": True, "head_bias": True, "token_type_vocab_size": 2},
        {"hidden_size": 25, "head_dim": 6},
        {"positions": "learned", "max_positions": 1},
        {"num_key_value_heads": 1},
        LATENT,
        {**LATENT, "q_lora_rank": 3, "num_key_value_heads": 4},
    ],
)
def test_fields_that_go_together(small: Small, changes: dict[str, Any]) -> None:
    validate_model(small(**changes))


def test_every_error_at_once(small: Small) -> None:
    wrong = small(vocab_size=-1, hidden_size=25, num_layers="two", pooler=True, norm="batch")
    with refused("5 problems", "vocab_size: ", "num_attention_heads: ", "num_layers: ", "pooler: ", "norm: "):
        validate_model(wrong)


def test_a_wrong_field_is_not_blamed_twice(small: Small) -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate_model(small(hidden_size="wide", positions="rotary"))
    assert str(caught.value) == "hidden_size: must be a whole number, not 'wide'"


@pytest.mark.parametrize("other", [None, 3, "gpt2", {"vocab_size": 1}, RUN])
def test_something_that_is_not_a_model(other: Any) -> None:
    with refused("model: must be a Transformer"):
        validate_model(other)


def test_something_that_is_not_a_run_or_a_device(small: Small) -> None:
    other: Any = {}
    with refused("run: must be a TrainingRun"):
        validate_run(small(), other, CPU)
    with refused("device: must be a Device"):
        validate_run(small(), RUN, other)


@pytest.mark.parametrize(
    ("architecture", "run", "parts"),
    [
        ("decoder", TrainingRun(), ("sequence_length: is missing", "--sequence-length")),
        (
            "encoder-decoder",
            TrainingRun(),
            ("source_length: is missing", "target_length: is missing", "--target-length"),
        ),
        ("encoder-decoder", TrainingRun(source_length=4), ("target_length: is missing",)),
        (
            "encoder-decoder",
            TrainingRun(sequence_length=4),
            (
                "sequence_length: an encoder-decoder takes source_length and target_length",
                "--source-length and --target",
            ),
        ),
        ("decoder", TrainingRun(source_length=4), ("source_length: a decoder takes sequence_length instead",)),
        ("encoder", TrainingRun(sequence_length=4, target_length=4), ("target_length: an encoder takes",)),
    ],
)
def test_lengths_follow_the_architecture(
    small: Small, architecture: str, run: TrainingRun, parts: tuple[str, ...]
) -> None:
    with refused(*parts):
        validate_run(validate_model(small(architecture=architecture)), run, CPU)


def test_a_length_that_is_missing_is_said_once(small: Small) -> None:
    with pytest.raises(ConfigurationError) as caught:
        validate_run(validate_model(small(architecture="encoder-decoder")), RUN, CPU)
    assert "\n" not in str(caught.value)


def test_learned_positions_bound_the_length() -> None:
    gpt2 = load_model("gpt2")
    naive = TrainingRun(sequence_length=1024, attention="naive")
    assert validate_run(gpt2, naive, CPU) == naive
    with refused("sequence_length: 1025 tokens are too many", "1024 learned positions"):
        validate_run(gpt2, replace(naive, sequence_length=1025), CPU)


def test_a_class_token_takes_a_position(small: Small) -> None:
    model = validate_model(
        small(
            architecture="encoder", positions="learned", max_positions=8, head="classification", pooling="class_token"
        )
    )
    validate_run(model, TrainingRun(sequence_length=7), CPU)
    with refused("sequence_length: 8 tokens are too many", "at most 7 beside the class token"):
        validate_run(model, TrainingRun(sequence_length=8), CPU)


def test_learned_positions_bound_source_and_target(small: Small) -> None:
    model = validate_model(small(architecture="encoder-decoder", positions="learned", max_positions=8))
    with refused("source_length: 9 tokens", "target_length: 10 tokens"):
        validate_run(model, TrainingRun(source_length=9, target_length=10), CPU)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"momentum": 0.9}, ('momentum: must be 0: only optimizer = "sgd"', "adamw")),
        ({"momentum": 1.0, "optimizer": "sgd"}, ("momentum: must be a number from 0",)),
        ({"momentum": -0.1, "optimizer": "sgd"}, ("momentum: must be a number from 0",)),
        ({"attention": "flashy"}, ("attention: must be one of sdpa, naive, flash, efficient", 'did you mean "flash"?')),
        ({"precision": "bf-16"}, ("precision: must be one of", 'did you mean "bf16"?')),
        ({"optimizer": "adamW2"}, ("optimizer: must be one of", 'did you mean "adamw"?')),
        ({"optimizer_implementation": "for_loop"}, ('did you mean "for-loop"?',)),
        ({"recompute": "all"}, ("recompute: must be one of none, full",)),
        ({"padding": 1}, ("padding: must be true or false",)),
        ({"micro_batch_size": 0, "gradient_accumulation_steps": 0}, ("2 problems", "micro_batch_size: ", "gradient_")),
    ],
)
def test_runs_that_contradict_themselves(small: Small, changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    with refused(*parts):
        validate_run(validate_model(small()), replace(RUN, **changes), CPU)


def test_momentum_with_sgd(small: Small) -> None:
    run = replace(RUN, optimizer="sgd", momentum=0.9)
    assert validate_run(validate_model(small()), run, CPU) == replace(run, attention="flash")


def test_flash_attention_with_a_position_bias_is_not_modelled() -> None:
    run = TrainingRun(source_length=4, target_length=4)
    for device in (CPU, CARD):
        with refused("math kernel", "--attention naive", error=NotModelledError):
            validate_run(load_model("t5-small"), run, device)
    validate_run(load_model("t5-small"), replace(run, attention="naive"), CPU)


def test_flash_attention_with_dropout_is_not_modelled_on_the_cpu() -> None:
    with refused("attention_dropout = 0.1", "--set attention_dropout=0", "--attention naive", error=NotModelledError):
        validate_run(load_model("gpt2"), RUN, CPU)
    assert validate_run(load_model("gpt2"), RUN, CARD).attention == "efficient"
    validate_run(load_model("gpt2", {"attention_dropout": 0}), RUN, CPU)
    validate_run(load_model("llama-3-8b"), RUN, CPU)


def test_a_sliding_window_is_a_mask_that_flash_attention_does_not_take_on_a_card(small: Small) -> None:
    model, run = validate_model(small(sliding_window=4)), replace(RUN, precision="bf16")
    assert validate_run(model, run, CPU).attention == "flash"
    wide = validate_model(small(sliding_window=4, head_dim=8))
    assert validate_run(wide, run, CARD).attention == "efficient"
    with refused(
        "takes no mask on CUDA, which a sliding window needs", "--attention efficient", error=NotModelledError
    ):
        validate_run(wide, replace(run, attention="flash"), CARD)


def test_alibi_is_a_mask_that_flash_attention_does_not_take_on_a_card(small: Small) -> None:
    model, run = validate_model(small(positions="alibi", head_dim=8)), replace(RUN, precision="bf16")
    assert validate_run(model, run, CPU).attention == "flash"
    assert validate_run(model, run, CARD).attention == "efficient"
    with refused('which positions = "alibi" needs', "--attention efficient", error=NotModelledError):
        validate_run(model, replace(run, attention="flash"), CARD)


def test_fused_attention_with_capped_scores_is_not_modelled(small: Small) -> None:
    model = validate_model(small(attention_soft_cap=50, head_dim=8))
    for device in (CPU, CARD):
        with refused("does not take attention_soft_cap = 50", "--attention naive", error=NotModelledError):
            validate_run(model, RUN, device)
    validate_run(model, replace(RUN, attention="naive"), CPU)


def test_fused_attention_needs_values_as_wide_as_queries(small: Small) -> None:
    model = validate_model(small(**LATENT))
    with refused("values of 6 beside a head_dim of 7 is not modelled", "--attention naive", error=NotModelledError):
        validate_run(model, RUN, CPU)
    validate_run(model, replace(RUN, attention="naive"), CPU)
    validate_run(validate_model(small(**{**LATENT, "value_head_dim": 7})), RUN, CPU)


def test_experts_are_modelled_on_the_cpu_only(small: Small) -> None:
    model = validate_model(small(num_experts=4, num_experts_per_token=2, feedforward_bias=False))
    validate_run(model, RUN, CPU)
    with refused("num_experts = 4", "on the CPU only", error=NotModelledError):
        validate_run(model, RUN, CARD)


def test_a_wrong_run_is_refused_before_an_unmodelled_one() -> None:
    with refused("micro_batch_size: "):
        validate_run(load_model("gpt2"), replace(RUN, micro_batch_size=0), CPU)
