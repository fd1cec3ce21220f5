"""The promise of `memplan checkpoint`: every file has the very length that torch.save and safetensors give it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from memplan.config.library.types import TYPES
from memplan.config.validate import validate_model
from memplan.errors import MeasurementError
from memplan.measure.suites.library import small_models
from memplan.measure.suites.small import CLASSIFIER, DECODER, ENCODER, ENCODER_DECODER, LLAMA

from ..huggingface.strategies import models as library_models
from ..strategies import Case, cases
from .lengths import any_length

torch = pytest.importorskip("torch")
from .real import both  # noqa: E402  (imports torch)

REFERENCE = {model.name: model for model in (DECODER, LLAMA, ENCODER, ENCODER_DECODER)} | {"classifier": CLASSIFIER}
LIBRARY = small_models()
TYPES_NAMED = ("llama", "gpt2", "t5", "bert", "mistral", "gemma2", "mixtral", "opt")

RUNS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "adam, foreach": {"optimizer": "adam", "optimizer_implementation": "foreach"},
    "fused": {"optimizer_implementation": "fused"},
    "sgd": {"optimizer": "sgd", "precision": "bf16-mixed"},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.9, "precision": "bf16"},
    "scaled": {"precision": "fp16-mixed"},
    "masters": {"precision": "bf16", "master_weights": "megatron"},
    "fp16": {"precision": "fp16", "gradient_scaling": "none"},
    "fp16 with masters": {"precision": "fp16", "master_weights": "megatron"},
    "sgd with masters": {"precision": "bf16", "master_weights": "deepspeed", "optimizer": "sgd", "momentum": 0.5},
}
SEARCH = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "phases": (Phase.generate, Phase.shrink),
    "suppress_health_check": list(HealthCheck),
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("name", REFERENCE)
def test_reference_models(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = validate_model(REFERENCE[name])
    expected, written = both(model, any_length(model, **options), tmp_path)
    assert len(written) == 5
    assert expected == written


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("key", LIBRARY)
def test_models_of_the_library(key: str, precision: str, tmp_path: Path) -> None:
    """In bf16 in shards, with an index."""
    pytest.importorskip("transformers")
    model = validate_model(LIBRARY[key])
    shard = 50 * 10**9 if precision == "fp32" else 40_000
    expected, written = both(model, any_length(model, precision=precision), tmp_path, shard=shard)
    assert len(written) == 5 if precision == "fp32" else len(written) > 7
    assert expected == written


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("key", ["llama", "bert", "pegasus"])
def test_every_way_to_train_models_of_the_library(key: str, options: dict[str, Any], tmp_path: Path) -> None:
    """BERT has a parameter of two names, Pegasus tables that are not trained."""
    pytest.importorskip("transformers")
    model = validate_model(LIBRARY[key])
    expected, written = both(model, any_length(model, **options), tmp_path)
    assert expected == written


@pytest.mark.parametrize("step", [1, 255, 256, 65_535, 65_536, 2**31])
def test_steps_of_many_digits(step: int, tmp_path: Path) -> None:
    model = validate_model(DECODER)
    expected, written = both(model, any_length(model, precision="fp16-mixed"), tmp_path, step=step)
    assert expected == written


@settings(max_examples=40, **SEARCH)
@given(case=cases(), options=st.sampled_from(list(RUNS.values())))
def test_random_reference_models(case: Case, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected, written = both(case.model, any_length(case.model, **options), Path(folder))
    assert expected == written


@settings(max_examples=40, **SEARCH)
@given(data=st.data(), shard=st.sampled_from([50 * 10**9, 30_000, 200_000]))
def test_random_models_of_the_library(data: st.DataObject, shard: int) -> None:
    pytest.importorskip("transformers")
    model = data.draw(st.sampled_from(sorted(TYPES)).flatmap(library_models))
    precision = data.draw(st.sampled_from(["fp32", "bf16"]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            expected, written = both(model, any_length(model, precision=precision), Path(folder), shard=shard)
        except MeasurementError:  # sizes that a kernel does not take, a vocabulary without the token that begins
            reject()
    assert expected == written
