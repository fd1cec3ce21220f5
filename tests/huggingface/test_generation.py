"""Models of the library that write: the cache, the peaks and every birth of a run, against the real class."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memplan.config.library.model import validate_library_model
from memplan.estimate import Estimate, backend_of, estimate
from memplan.huggingface.generation import trace_library_generation
from memplan.ops.backend import release

from .small import SMALL
from .strategies import CPU, Generation
from .strategies import generations as random_generations

WRITERS = sorted(name for name, model in SMALL.items() if model.architecture != "encoder")
TYPES = sorted({SMALL[name].model_type for name in WRITERS})
EXAMPLES = int(os.environ.get("MEMPLAN_EXAMPLES", "3"))

common = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("model_type", TYPES)
@settings(common, max_examples=3 * EXAMPLES)
@given(data=st.data())
def test_tokens_passed_over_and_layers_traced_once_for_many_change_nothing(
    model_type: str, data: st.DataObject
) -> None:
    model, run = data.draw(random_generations(model_type))
    backend = backend_of(CPU)
    short = trace_library_generation(model, run, backend).moments()
    full = trace_library_generation(model, run, backend, every_layer=True, every_token=True).moments()
    for name in run.phases:
        assert (name in short) == (name in full)
        if name in full:
            for ours, theirs in zip(short[name], full[name], strict=True):
                assert (ours.size, _held(ours.components)) == (theirs.size, _held(theirs.components))


def _held(components: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in components.items() if size}


torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from memplan.measure import library_generation as real  # noqa: E402

from .compare import GENERATION, generations, same, show  # noqa: E402


@pytest.mark.parametrize("model_type", TYPES)
@common
@given(data=st.data())
def test_the_cache_is_as_large_as_the_librarys(model_type: str, data: st.DataObject) -> None:
    """Every storage that the library's cache object holds, once."""
    case: Generation = data.draw(random_generations(model_type))
    expected = {phase.name: phase.at_end["kv_cache"] for phase in _estimate(case).phases}
    assert real_cache_bytes(case) == expected


def real_cache_bytes(case: Generation) -> dict[str, int]:
    """At the end of each phase: bytes of the storages behind the cache's tensors, views of them counted whole."""
    torch.manual_seed(0)
    model, run = case
    built, prompt = real.build_for_generation(model, run), real.make_prompt(model, run)
    cache = real.make_cache(built, model, run)
    seen: list[int] = []

    def count(phase: str) -> None:
        if phase == real.HELD:
            storages = {held.untyped_storage().data_ptr(): held.untyped_storage() for held in real.tensors_of(cache)}
            seen.append(sum(storage.nbytes() for storage in storages.values()))

    real.generate(built, prompt, cache, model, run, count)
    return {"prefill": seen[0]} | ({"decode": seen[-1]} if run.new_tokens > 1 else {})


@pytest.mark.parametrize("model_type", TYPES)
@common
@given(data=st.data())
def test_phases_are_those_of_the_run(model_type: str, data: st.DataObject) -> None:
    """Peaks, ends and components at both."""
    case: Generation = data.draw(random_generations(model_type))
    expected, measured = _estimate(case), real.measure_library_generation(*case, CPU)
    for phase, seen in zip(expected.phases, measured["phases"], strict=True):
        assert phase.name == seen["name"]
        assert (phase.peak_allocated_bytes, phase.end_allocated_bytes) == (
            seen["peak_allocated_bytes"],
            seen["end_allocated_bytes"],
        )
        assert (_held(phase.at_peak), _held(phase.at_end)) == (_held(seen["at_peak"]), _held(seen["at_end"]))
    assert measured["sdpa_kernels"] == list(expected.sdpa_kernels)


@pytest.mark.parametrize("name", WRITERS)
def test_every_birth_of_a_run(name: str) -> None:
    """Both caches, padding, sampling, prompts of one token and of more than a window, in three precisions: one of each
    (MEMPLAN_THOROUGH=1 takes every combination)."""
    config = validate_library_model(SMALL[name])
    every = generations(config)
    for run in every if "MEMPLAN_THOROUGH" in os.environ else every[:: len(GENERATION) + 1]:
        assert same(config, run) or show(config, run), run


def _estimate(case: Generation) -> Estimate:
    return estimate(*case, CPU, release(torch.__version__))
