"""Random configurations of every type: the real class has as many parameters, and a step of it the same peaks."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from memplan.config.library.model import LibraryModel
from memplan.estimate import estimate
from memplan.ops.backend import release

from .small import SMALL, small_run
from .strategies import CPU, Case, cases, models

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
from memplan.measure.library import build_model  # noqa: E402
from memplan.measure.run import measure_training  # noqa: E402

TYPES = sorted({model.model_type for model in SMALL.values()})
MOST_USED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "bert", "t5", "mixtral")
EXAMPLES = int(os.environ.get("MEMPLAN_EXAMPLES", "4"))

common = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("model_type", TYPES)
@common
@given(data=st.data())
def test_the_real_class_has_as_many_parameters(model_type: str, data: st.DataObject) -> None:
    model: LibraryModel = data.draw(models(model_type))
    shortest = {
        name: 1 for name in ("sequence_length", "source_length", "target_length") if getattr(small_run(model), name)
    }
    run = small_run(model, attention="naive", **shortest)
    with torch.device("meta"):
        real = build_model(model, run)
    assert estimate(model, run, CPU).totals.parameter_count == sum(each.numel() for each in real.parameters())


@pytest.mark.parametrize("model_type", [name for name in TYPES if name in MOST_USED])
@common
@given(data=st.data())
def test_the_peaks_are_those_of_the_run(model_type: str, data: st.DataObject) -> None:
    case: Case = data.draw(cases(model_type))
    expected = estimate(*case, CPU, release(torch.__version__))
    measured = measure_training(*case, CPU)
    differences = {
        phase.name: (phase.peak_allocated_bytes - seen["peak_allocated_bytes"], phase.at_peak, seen["at_peak"])
        for phase, seen in zip(expected.phases, measured["phases"], strict=True)
        if phase.peak_allocated_bytes != seen["peak_allocated_bytes"]
    }
    assert differences == {}
    if case.run.attention == "sdpa":
        assert measured["sdpa_kernels"] == list(expected.sdpa_kernels)
