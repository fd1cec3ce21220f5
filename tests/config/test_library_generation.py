"""Which runs that write are modelled for models of a library: what is refused is named, with what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.library.model import LibraryModel
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, MemplanError, NotModelledError
from memplan.estimate import estimate
from memplan.measure.suites.library import small_models
from memplan.measure.suites.library_generation import small_generation, tasks

CPU = load_device("cpu")


def model_of(name: str) -> LibraryModel:
    return validate_model(small_models()[name])


@pytest.mark.parametrize(
    ("name", "changes", "said", "hint"),
    [
        ("llama", {"cache": "paged"}, "cache: transformers pages its cache", "dynamic or static"),
        ("llama", {"cache_dtype": "int8"}, "cache_dtype: the caches of transformers", "--cache-dtype same"),
        ("llama", {"weight_quantization": "nf4"}, "weight_quantization: nf4", "none"),
        ("llama", {"attention": "flash"}, "flash_attention_2", "sdpa"),
        ("bloom", {"attention": "sdpa"}, "has no sdpa", "eager"),
        (
            "bloom",
            {"attention": "naive", "cache": "static", "padding": True},
            "cache: BloomForCausalLM fails",
            "dynamic",
        ),
        ("llama", {"prompt_length": 1, "padding": True}, "padding: prompts of one token", "--no-padding"),
        ("t5", {"precision": "fp16"}, "keeps wo in fp32", "bf16"),
        ("gpt_oss", {"attention": "naive", "precision": "fp16"}, "keeps norm in fp32", "bf16"),
        ("bert", {"new_tokens": 0}, "writes nothing", "reference"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(name: str, changes: dict[str, Any], said: str, hint: str) -> None:
    model = model_of(name)
    with pytest.raises(NotModelledError) as caught:
        validate_run(model, small_generation(model, **changes), CPU)
    assert said in caught.value.message
    assert hint in str(caught.value.hint)


def test_cards_are_refused() -> None:
    model = model_of("llama")
    with pytest.raises(NotModelledError, match="not modelled on h100-80gb"):
        validate_run(model, small_generation(model), load_device("h100-80gb"))


def test_a_source_within_the_positions() -> None:
    model = model_of("bart")
    with pytest.raises(ConfigurationError, match="source_length: 42 tokens are more than the model's 41 positions"):
        validate_run(model, small_generation(model, source_length=42), CPU)


def test_the_dtype_of_the_model_is_the_same() -> None:
    model = model_of("llama")
    run = small_generation(model, precision="bf16", cache_dtype="bf16")
    assert validate_run(model, run, CPU) == run


def test_the_assumptions_say_which_loop_it_is() -> None:
    model = model_of("bart")
    said = "\n".join(estimate(model, small_generation(model, prompt_length=3, cache="static"), CPU).assumptions)
    assert "by the loop of the library's documentation, not by generate()" in said
    assert "StaticCache, one for self- and one for cross-attention, with room for prompt and new tokens, 9" in said
    assert "has no logits_to_keep" in said


@pytest.mark.parametrize("name", [name for name, model in small_models().items() if model.architecture != "encoder"])
def test_long_runs_cost_what_short_ones_do(name: str) -> None:
    """Tokens beyond the first few are passed over; the totals say what the cache holds in the end."""
    model = model_of(name)
    run = small_generation(model, attention="naive", new_tokens=1000)
    try:
        result = estimate(model, run, CPU)
    except MemplanError as error:  # learned positions
        assert "more than the model's" in str(error)
        return
    assert isinstance(run, InferenceRun)
    assert 0 < result.totals.kv_cache_bytes == result.phases[-1].at_end["kv_cache"]


def test_the_suite_has_every_type_that_writes() -> None:
    every = list(tasks(CPU))
    assert len({task.title for task in every}) == len(every)
    writers = {model.model_type for model in small_models().values() if model.architecture != "encoder"}
    assert {task.case.model.model_type for task in every if isinstance(task.case.model, LibraryModel)} == writers
