"""Laws of writing: what a longer context, a block, a window or a card can and cannot do to the cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from memplan.capacity import largest_batch, most_within
from memplan.config.devices import load_device
from memplan.config.generation import writes
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.model import Transformer
from memplan.config.validate import validate_run
from memplan.estimate import Estimate, backend_of, estimate
from memplan.replay import replay
from memplan.transformer.program import trace_generation

from .strategies import Case, generation_cases

CPU = load_device("cpu")
H100 = load_device("h100-80gb")
LLAMA = load_model("llama-3.2-1b")
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def written(model: Transformer, **settings: Any) -> Estimate:
    return estimate(model, InferenceRun(**settings), CPU)


def cache_bytes(case: Case, **changes: Any) -> int:
    run = replace(case.run, **changes)
    return estimate(case.model, run, case.device).totals.kv_cache_bytes


@EXAMPLES
@given(case=generation_cases(), more=st.integers(1, 20))
def test_a_longer_context_never_needs_less_cache(case: Case, more: int) -> None:
    """But for a window that has grown: after the prompt it is a view of the whole of it."""
    assume(writes(case.model) and case.model.positions != "learned")
    assume(case.run.cache != "dynamic" or not case.model.sliding_window)
    longer = cache_bytes(case, prompt_length=case.run.prompt_length + more)
    assert longer >= cache_bytes(case)
    assert cache_bytes(case, new_tokens=case.run.new_tokens + more) >= cache_bytes(case)


@EXAMPLES
@given(case=generation_cases())
def test_what_has_room_for_all_holds_at_least_what_has_grown(case: Case) -> None:
    assume(writes(case.model) and not case.model.sliding_window)
    grown = cache_bytes(case, cache="dynamic", cache_block_size=16)
    assert cache_bytes(case, cache="static", cache_block_size=16) >= grown
    assert cache_bytes(case, cache="paged") >= grown


@pytest.mark.parametrize("size", [1, 7, 16, 64])
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 100])
def test_pages_waste_less_than_a_block_a_sequence_and_layer(size: int, tokens: int) -> None:
    settings: dict[str, Any] = {"micro_batch_size": 3, "prompt_length": 9, "new_tokens": tokens, "precision": "bf16"}
    paged = written(LLAMA, **settings, cache="paged", cache_block_size=size).totals.kv_cache_bytes
    static = written(LLAMA, **settings, cache="static").totals.kv_cache_bytes
    a_token = 2 * LLAMA.num_key_value_heads * LLAMA.head_dim * 2
    blocks = -(-(9 + tokens) // size)
    table = 3 * blocks * 4
    assert paged == 3 * LLAMA.num_layers * blocks * size * a_token + table
    assert static <= paged - table < static + 3 * LLAMA.num_layers * size * a_token


@pytest.mark.parametrize(("dtype", "width"), [("same", 4.0), ("fp16", 2.0), ("bf16", 2.0), ("fp8", 1.0), ("int8", 1.0)])
def test_a_cache_by_its_dtype(dtype: Any, width: float) -> None:
    """In closed form: int8 has a scale of 4 bytes for each token and head beside."""
    run = {"prompt_length": 50, "new_tokens": 8, "cache": "static", "cache_dtype": dtype}
    of_head = LLAMA.head_dim * width + (4 if dtype == "int8" else 0)
    expected = 2 * LLAMA.num_layers * LLAMA.num_key_value_heads * 58 * of_head
    assert written(LLAMA, **run).totals.kv_cache_bytes == expected


def test_a_window_bounds_the_cache() -> None:
    model = replace(LLAMA, sliding_window=32)
    a_token = 2 * LLAMA.num_layers * LLAMA.num_key_value_heads * LLAMA.head_dim * 4
    for prompt in (100, 1000):
        assert written(model, prompt_length=prompt, new_tokens=9, cache="static").totals.kv_cache_bytes == 32 * a_token
        # what is kept is a view of the 31 tokens before and the last one
        assert written(model, prompt_length=prompt, new_tokens=9).totals.kv_cache_bytes == 32 * a_token
        assert written(model, prompt_length=prompt, new_tokens=1).totals.kv_cache_bytes == prompt * a_token


def test_latent_attention_keeps_the_narrow_vector() -> None:
    latent = replace(
        LLAMA, num_key_value_heads=0, head_dim=192, kv_lora_rank=512, rope_head_dim=64, value_head_dim=128,
        attention_bias=False,
    )  # fmt: skip
    found = written(latent, prompt_length=40, new_tokens=8, attention="naive").totals.kv_cache_bytes
    assert found == LLAMA.num_layers * 47 * (512 + 64) * 4


def test_logits_of_the_last_token_alone_are_fewer() -> None:
    last, every = (written(LLAMA, prompt_length=500, new_tokens=3, logits=kind) for kind in ("last", "all"))
    assert every.peak.peak_allocated_bytes - last.peak.peak_allocated_bytes > 300 * LLAMA.vocab_size * 4
    assert every.phases[1] == last.phases[1]


@pytest.mark.parametrize("new_tokens", [0, 1])
def test_without_a_step_there_is_no_decode(new_tokens: int) -> None:
    assert [phase.name for phase in written(LLAMA, prompt_length=5, new_tokens=new_tokens).phases] == ["prefill"]


@pytest.mark.parametrize("cache", ["dynamic", "static", "paged"])
def test_a_long_run_is_traced_as_quickly_as_a_short_one(cache: Any) -> None:
    runs = [InferenceRun(prompt_length=8192, new_tokens=number, cache=cache) for number in (256, 4096)]
    short, long = (trace_generation(LLAMA, validate_run(LLAMA, run, CPU), backend_of(CPU)) for run in runs)
    assert len(long.events) <= len(short.events) < 3000


# On a card


def on_h100(**settings: Any) -> InferenceRun:
    return validate_run(LLAMA, InferenceRun(precision="bf16", **settings), H100)


@pytest.mark.parametrize("settings", [{"cache": "dynamic"}, {"cache": "static"}, {"cache": "paged"}], ids=str)
def test_the_replay_of_a_sample_is_near_that_of_every_step(settings: dict[str, Any]) -> None:
    """Allocated within a thousandth, by what blocks are larger than what was asked for; reserved within 4 %, since a
    growing cache leaves gaps that depend on every step."""
    run = on_h100(micro_batch_size=16, prompt_length=16, new_tokens=80, **settings)
    sample = trace_generation(LLAMA, run, backend_of(H100))
    every = trace_generation(LLAMA, run, backend_of(H100), every_step=True)
    assert sample.sampled and not every.sampled
    ours, theirs = replay(sample), replay(every)
    for phase in run.phases:
        assert ours.phases[phase].peak_allocated == pytest.approx(theirs.phases[phase].peak_allocated, rel=0.001)
    assert ours.peak_reserved == pytest.approx(theirs.peak_reserved, rel=0.04)


def test_the_assumptions_say_what_was_sampled() -> None:
    many = estimate(LLAMA, on_h100(prompt_length=16, new_tokens=80), H100)
    few = estimate(LLAMA, on_h100(prompt_length=16, new_tokens=20), H100)
    assert any("of 79 steps of decode are replayed in full" in line for line in many.assumptions)
    assert not any("steps of decode" in line for line in few.assumptions)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    run = on_h100(prompt_length=8000, new_tokens=8)
    most = largest_batch(LLAMA, run, H100)

    def verdict(batch: int) -> str:
        fit = estimate(LLAMA, replace(run, micro_batch_size=batch), H100).fit
        assert fit is not None
        return fit.verdict

    assert verdict(most) == "fits"
    assert verdict(most + 1) != "fits"
    assert largest_batch(load_model("llama-3-70b"), run, H100) == 0


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=300), room=st.integers(0, 12_000), most=st.integers(1, 300)
)
def test_most_within_is_what_counting_finds(steps: list[int], room: int, most: int) -> None:
    most = min(most, len(steps))

    def needed(count: int) -> int:
        return 100 + sum(steps[:count])

    assert most_within(needed, room, most) == max((n for n in range(1, most + 1) if needed(n) <= room), default=0)
