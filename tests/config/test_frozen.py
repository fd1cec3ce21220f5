"""Patterns of parameter names, and the set-ups of the graph that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.frozen import frozen_names, layers_of
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, NotModelledError
from memplan.estimate import estimate, ledger_lines
from memplan.measure.suites.library import small_models, small_run

CPU = load_device("cpu")
GPT2 = validate_model(load_model("gpt2", {"num_layers": 3, "attention_dropout": 0}))
NAMES = [
    "token_embedding.weight",
    *(f"encoder.layers.{number}.{part}.weight" for number in range(2) for part in ("norm", "query")),
    *(f"decoder.layers.{number}.{part}.weight" for number in range(11) for part in ("norm", "query")),
    "head.projection.bias",
]


def run(**changes: Any) -> TrainingRun:
    return TrainingRun(**{"sequence_length": 16, **changes})


def test_patterns_are_those_of_file_names() -> None:
    assert frozen_names(run(frozen=("*embedding*", "head.*")), NAMES) == {NAMES[0], NAMES[-1]}
    assert frozen_names(run(frozen=("decoder.layers.1.*",)), NAMES) == {
        "decoder.layers.1.norm.weight",
        "decoder.layers.1.query.weight",
    }
    assert len(frozen_names(run(frozen=("*.[01].norm.*",)), NAMES)) == 4
    assert frozen_names(run(), NAMES) == set()


def test_the_lowest_layers_are_the_encoders_and_then_the_decoders() -> None:
    assert layers_of(NAMES)[:4] == ["encoder.layers.0.", "encoder.layers.1.", "decoder.layers.0.", "decoder.layers.1."]
    frozen = frozen_names(run(frozen_layers=4), NAMES)
    assert {name.rpartition(".layers.")[0] for name in frozen} == {"encoder", "decoder"}
    assert "decoder.layers.1.norm.weight" in frozen
    assert "decoder.layers.10.norm.weight" not in frozen  # no matter how it is spelled
    assert len(frozen) == 8


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("*querry*", "encoder.layers.0.query.weight"), ("*.Query.*", "query"), ("embedding", "token_embedding.weight")],
)
def test_a_pattern_that_matches_nothing_is_told_with_the_nearest_names(pattern: str, nearest: str) -> None:
    with pytest.raises(ConfigurationError, match="frozen: no parameter is called") as caught:
        frozen_names(run(frozen=(pattern,)), NAMES)
    assert caught.value.hint is not None and nearest in caught.value.hint


@pytest.mark.parametrize("changes", [{"frozen": ("*",)}, {"frozen": ("*embedding*", "head*"), "frozen_layers": 13}])
def test_something_has_to_learn(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="nothing is left to train"):
        frozen_names(run(**changes), NAMES)


def test_an_estimate_refuses_both_by_name() -> None:
    for pattern, message in (("*nowhere*", "no parameter"), ("*", "nothing is left")):
        with pytest.raises(ConfigurationError, match=message):
            estimate(GPT2, run(frozen=(pattern,)), CPU)


def test_frozen_weights_count_as_parameters_and_have_nothing_else() -> None:
    whole, part = estimate(GPT2, run(), CPU), estimate(GPT2, run(frozen_layers=2), CPU)
    assert part.totals.parameters_bytes == whole.totals.parameters_bytes
    assert part.totals.parameter_count == whole.totals.parameter_count
    layer = 4 * sum(size for size in (768 * 2304 + 2304, 768 * 768 + 768, 2 * 768 * 3072 + 3072 + 768, 4 * 768))
    assert whole.totals.gradients_bytes - part.totals.gradients_bytes == 2 * layer
    assert any("frozen weights" in line for line in part.assumptions)
    lines = [
        line for line in ledger_lines(GPT2, run(frozen_layers=2), CPU) if line.reason == "weights that are not trained"
    ]
    assert sum(line.size * line.copies for line in lines) == 2 * layer
    assert {line.reason for line in lines} == {"weights that are not trained"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recompute": "attention"}, "each attention"),
        ({"recompute": "full", "recompute_every": 2}, "multiple of 2"),
        ({"loss": "chunked"}, "8 chunks of tokens"),
        ({"loss": "fused", "loss_chunks": 4}, "4 chunks of tokens"),
    ],
)
def test_every_set_up_is_among_the_assumptions(changes: dict[str, Any], words: str) -> None:
    for device in (CPU, load_device("h100-80gb")):
        assert any(words in line for line in estimate(GPT2, run(**changes), device).assumptions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recompute": "attention"}, "recompute: transformers checkpoints whole layers"),
        ({"recompute": "full", "recompute_every": 2}, "recompute_every: transformers checkpoints every layer"),
        ({"loss": "chunked"}, "loss: .* makes all logits at once"),
        ({"loss": "fused"}, "loss: .* makes all logits at once"),
    ],
)
def test_what_the_library_does_not_offer_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    model = validate_model(small_models()["llama"])
    with pytest.raises(NotModelledError, match=message):
        validate_run(model, small_run(model, **changes), CPU)


def test_a_fused_loss_does_not_go_with_capped_logits() -> None:
    model = validate_model(replace(GPT2, logit_soft_cap=30.0))
    with pytest.raises(NotModelledError, match="loss: fused is not modelled with logit_soft_cap"):
        validate_run(model, run(loss="fused"), CPU)
    assert validate_run(model, run(loss="chunked"), CPU).loss == "chunked"
