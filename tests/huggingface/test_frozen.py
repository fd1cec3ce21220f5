"""Frozen weights of the library's models: the same names in both wings, and the same births."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from memplan.config.frozen import layers_of
from memplan.config.library.model import validate_library_model
from memplan.errors import ConfigurationError, MemplanError
from memplan.estimate import backend_of
from memplan.huggingface.models import build_model
from memplan.huggingface.program import trace_library_training
from memplan.huggingface.settings import Settings
from memplan.ops.trace import Trace

from .small import SMALL, small_run
from .strategies import CPU

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from memplan.measure import library  # noqa: E402

from .compare import same, show  # noqa: E402

FROZEN: tuple[dict[str, Any], ...] = (
    {"frozen_layers": 1, "frozen": ("*embed*", "*wte*", "*wpe*", "shared*")},
    {"frozen": ("*.bias", "*norm*", "*LayerNorm*", "*ln_*", "*relative*")},
    {"frozen_layers": 2, "recompute": "full"},
    {"frozen": ("*[qk]*weight", "*fc*", "*mlp*", "*dense*"), "gradient_accumulation_steps": 2},
)
"""Patterns that no parameter of a type matches are left out."""


def names_of(key: str) -> list[str]:
    """Those of the sizes-only model."""
    model = validate_library_model(SMALL[key])
    trace = Trace(backend_of(CPU))
    built = build_model(trace, model, Settings.of(small_run(model, attention="naive"), True))
    return [name for names in built.names().values() for name in names]


@pytest.mark.parametrize("key", SMALL)
def test_parameters_have_the_librarys_names(key: str) -> None:
    model = validate_library_model(SMALL[key])
    with torch.device("meta"):
        real = library.build_model(model, small_run(model, attention="naive"))
    theirs = [name for name, parameter in real.named_parameters() if parameter.requires_grad]
    assert names_of(key) == theirs
    assert len(layers_of(theirs)) == model.num_layers + model.num_encoder_layers


def known(key: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes without patterns that no parameter matches."""
    from memplan.config.frozen import frozen_names

    names, kept = names_of(key), []
    for pattern in changes.get("frozen", ()):
        try:
            frozen_names(small_run(validate_library_model(SMALL[key]), frozen=(pattern,)), names)
        except ConfigurationError:
            continue
        kept.append(pattern)
    return {**changes, "frozen": tuple(kept)}


def some(keys: list[str]) -> list[tuple[str, int]]:
    """Each type with one of the ways to freeze, in turn (MEMPLAN_THOROUGH=1 takes every one)."""
    ways = len(FROZEN)
    if "MEMPLAN_THOROUGH" in os.environ:
        return [(key, number) for key in keys for number in range(ways)]
    return [(key, place % ways) for place, key in enumerate(keys)]


@pytest.mark.parametrize(("key", "number"), some(list(SMALL)))
def test_every_birth_of_a_step(key: str, number: int) -> None:
    config = validate_library_model(SMALL[key])
    place = list(SMALL).index(key) + number
    attention = ("naive", "sdpa")[place % 2] if "sdpa" in config.attentions else "naive"
    precision = ("fp32", "bf16", "bf16-mixed")[place % 3]
    run = small_run(config, attention=attention, precision=precision, **known(key, FROZEN[number]))
    assert same(config, run) or show(config, run), run


@pytest.mark.parametrize(("key", "number"), some([key for key in SMALL if hasattr(SMALL[key], "num_hidden_layers")]))
def test_composed_layers_are_the_layers_one_by_one(key: str, number: int) -> None:
    changes = FROZEN[number]
    try:
        config = validate_library_model(replace(SMALL[key], num_hidden_layers=9))  # type: ignore[call-arg]
    except MemplanError:
        pytest.skip("its layers are told one by one")
    run = small_run(config, attention="naive", precision="bf16-mixed", **known(key, changes))
    ours, theirs = (trace_library_training(config, run, backend_of(CPU), every).moments() for every in (False, True))
    for phase, (peak, end) in theirs.items():
        assert (phase, ours[phase][0].size, ours[phase][1].size) == (phase, peak.size, end.size)
        assert {name: size for name, size in ours[phase][1].components.items() if size} == {
            name: size for name, size in end.components.items() if size
        }
