"""The promise for models that write: the estimate of prefill and decode is the run in real PyTorch, to the byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.validate import validate_model, validate_run
from memplan.estimate import estimate
from memplan.ops.backend import release

from .records import residuals_of
from .strategies import FRESH, Case, generation_cases

torch = pytest.importorskip("torch")
from memplan.measure.generation import measure_generation  # noqa: E402  (imports torch)

EXAMPLES = 80


def residuals(case: Case) -> dict[str, int]:
    """What differs between estimate and run, in bytes: `phase.peak`, `phase.end`, and each component at both."""
    assert isinstance(case.run, InferenceRun)
    expected = estimate(*case, release(torch.__version__))
    measured = measure_generation(case.model, case.run, case.device)
    assert measured["sdpa_kernels"] == ([] if case.run.attention == "naive" else ["flash"])
    assert expected.totals.kv_cache_bytes == measured["phases"][-1]["at_end"].get("kv_cache", 0)
    return residuals_of(expected, measured)


@settings(FRESH, max_examples=EXAMPLES)
@given(case=generation_cases(most_new=14))
def test_the_estimate_is_the_run(case: Case) -> None:
    assert residuals(case) == {}


LARGER: dict[str, tuple[Transformer, InferenceRun]] = {
    "gpt2, two layers": (
        replace(load_model("gpt2"), num_layers=2),
        InferenceRun(micro_batch_size=2, prompt_length=128, new_tokens=40, sampling="sampled", padding=True),
    ),
    "gpt2, two layers, static, naive, bf16": (
        replace(load_model("gpt2"), num_layers=2),
        InferenceRun(prompt_length=64, new_tokens=30, attention="naive", precision="bf16", cache="static"),
    ),
    "t5-small, two layers, paged in int8": (
        replace(load_model("t5-small"), num_layers=2, num_encoder_layers=2),
        InferenceRun(
            micro_batch_size=2, source_length=96, new_tokens=20, attention="naive", padding=True, cache="paged",
            cache_dtype="int8",
        ),
    ),
    "bert-base, two layers": (
        replace(load_model("bert-base"), num_layers=2),
        InferenceRun(micro_batch_size=2, prompt_length=128, padding=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGER)
def test_larger_examples(name: str) -> None:
    device = load_device("cpu")
    model, run = LARGER[name]
    model = validate_model(model)
    assert residuals(Case(model, validate_run(model, run, device), device)) == {}
