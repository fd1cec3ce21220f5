"""The state dict of every model beside the real one: names, shapes, dtypes, what is tied, and every module."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.checkpoint.tree import model_state
from memplan.config.models import Model
from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model
from memplan.measure.suites.library import small_models

from ..reference.small import MODELS, configuration
from .lengths import any_length

torch = pytest.importorskip("torch")
from memplan.measure.run import subject_of  # noqa: E402  (imports torch)

LIBRARY = small_models()
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def compare(model: Model, run: TrainingRun) -> None:
    state = model_state(model, run)
    real: Any = subject_of(model, run).model
    entries = real.state_dict()
    first: dict[int, str] = {}
    ours = [
        (
            entry.name,
            entry.tensor.shape,
            entry.tensor.dtype,
            first.setdefault(id(entry.tensor.storage), entry.name),
        )
        for entry in state.entries
    ]
    first = {}
    theirs = [
        (name, tuple(tensor.shape), DTYPES[tensor.dtype], first.setdefault(tensor.untyped_storage()._cdata, name))
        for name, tensor in entries.items()
    ]
    assert ours == theirs
    assert dict(state.modules) == {path: each["version"] for path, each in entries._metadata.items()}
    assert len(state.modules) == len(entries._metadata)
    parameters = [(name, parameter.requires_grad) for name, parameter in real.named_parameters()]
    assert [(entry.name, entry.requires_grad) for entry in state.parameters] == parameters


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("key", LIBRARY)
def test_every_model_of_the_library(key: str, precision: str) -> None:
    pytest.importorskip("transformers")
    model = validate_model(LIBRARY[key])
    compare(model, any_length(model, precision=precision, attention="naive"))


@pytest.mark.parametrize("name", MODELS)
def test_reference_models(name: str) -> None:
    model = configuration(**MODELS[name])
    compare(model, any_length(model, attention="naive"))
