"""A message explained with what ran: the card, what was given wrongly, what is held besides, and what would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.allocator import Settings
from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.config.load import load_model
from memplan.config.run import TrainingRun
from memplan.errors import ConfigurationError, NotModelledError
from memplan.oom.explain import Explanation, explain, read
from memplan.oom.failing import run
from memplan.oom.message import Message
from memplan.oom.parse import parse

from .failed import GIB, MIB, Failed, is_it, named, reports, short


def explained(failed: Failed, text: str = "", **changes: object) -> Explanation:
    chosen = replace(failed.run, **changes)  # type: ignore[arg-type]
    return explain(reports(text or failed.message()), failed.model, chosen)


def test_the_card_is_the_one_with_the_capacity() -> None:
    failed = named("gpt2", "rtx-4090", 20.0, micro_batch_size=16, sequence_length=1024, attention="naive")
    failed = failed._replace(context=load_device("rtx-4090").capacity_bytes - failed.room)
    result = explained(failed).found
    assert result is not None and result.guessed and result.search.exact
    assert result.search.device.name == "rtx-4090"
    assert is_it(result.search, failed)


def test_expandable_segments_are_supposed_where_only_they_agree() -> None:
    options = {"micro_batch_size": 24, "sequence_length": 1024}
    failed = named("gpt2", "a100-40gb", 28.0, "expandable_segments:True", **options)
    failed = failed._replace(context=load_device("a100-40gb").capacity_bytes - failed.room)
    result = explained(failed).found
    assert result is not None and result.search.exact
    assert result.supposed == "expandable_segments:True"
    assert is_it(result.search, failed)


WRONG = {
    "micro_batch_size": (12, {"micro_batch_size": 24}),
    "sequence_length": (512, {"sequence_length": 1024}),
    "attention": ("naive", {"attention": "efficient"}),
    "precision": ("bf16-mixed", {"precision": "fp32"}),
    "recompute": ("full", {"recompute": "none"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_was_given_wrongly_is_found_where_the_rest_agrees(name: str) -> None:
    given, expected = WRONG[name]
    failed = short("a100-40gb", 0.9, micro_batch_size=24, sequence_length=1024)
    result = explained(failed, **{name: given}).found
    assert result is not None and not result.search.exact
    assert all(alternative.exact for alternative in result.alternatives)
    alternative = next(each for each in result.alternatives if each.changes == expected)
    assert alternative.candidate.tensor.title == failed.tensor.title
    if name in ("micro_batch_size", "sequence_length"):
        assert result.search.verdict == "no_such_size" and result.nearest


def test_what_is_held_besides_is_told() -> None:
    failed = short("a100-40gb", 0.9, micro_batch_size=24, sequence_length=1024)
    failed = failed._replace(besides=600 * MIB, context=failed.context - 600 * MIB)
    result = explained(failed).found
    assert result is not None and result.search.verdict == "one" and not result.search.exact
    best = result.search.best
    assert best is not None and is_it(result.search, failed)
    assert best.besides == pytest.approx(600 * MIB, abs=6 * MIB)
    assert result.changes.besides == best.besides
    assert result.alternatives == ()


def test_what_others_hold_is_taken_off_the_card() -> None:
    failed = named("gpt2", "a100-40gb", 26.0, micro_batch_size=16, sequence_length=1024, attention="naive")
    rest = load_device("a100-40gb").capacity_bytes - failed.room - failed.context
    result = explained(failed._replace(others=(rest // 3, rest - rest // 3)))
    assert result.others_bytes == pytest.approx(rest, abs=0.03 * GIB)
    assert result.found is not None
    changes = result.found.changes
    assert changes.limit == pytest.approx(failed.room + failed.context, abs=0.03 * GIB)
    assert changes.upper > changes.limit
    assert changes.found and all(change.needs <= changes.limit for change in changes.found if change.kind == "run")


def test_freeing_what_others_hold_comes_first_where_it_is_enough() -> None:
    failed = short("a100-40gb", 0.8, micro_batch_size=24, sequence_length=1024)
    result = explained(failed._replace(context=500 * MIB, others=(failed.context - 500 * MIB,))).found
    assert result is not None
    assert result.changes.found[0].kind == "others"
    assert result.changes.found[0].needs == result.changes.upper < 39 * GIB


def test_expandable_segments_are_told_where_the_replay_goes_through_with_them() -> None:
    failed = named("gpt2", "a100-40gb", 30.0, micro_batch_size=24, sequence_length=1024)
    failed = failed._replace(context=load_device("a100-40gb").capacity_bytes - failed.room)
    assert run(failed.steps.expansion, Settings(expandable_segments=True), failed.room).failure is None
    result = explained(failed).found
    assert result is not None
    first = result.changes.found[0]
    assert (first.kind, first.setting) == ("allocator", "expandable_segments:True")


def test_nothing_is_proposed_for_a_run_that_fits() -> None:
    failed = named("gpt2", "a100-40gb", 30.0, micro_batch_size=24, sequence_length=1024)
    failed = failed._replace(context=load_device("a100-40gb").capacity_bytes - failed.room)
    result = explained(failed, micro_batch_size=2).found
    assert result is not None and result.changes.fits and result.changes.found == ()
    assert result.search.expected is None and result.search.peak < failed.room


def test_a_traceback_decides_where_the_figures_do_not() -> None:
    chosen = TrainingRun(micro_batch_size=16, sequence_length=1024)
    text = "CUDA out of memory. Tried to allocate 3.07 GiB. GPU 0 has a total capacity of 23.61 GiB"
    before = '  File "train.py", line 9, in <module>\n    loss.backward()\n'
    plain = explain(reports(text), load_model("gpt2"), chosen).found
    traced = explain(reports(before + text), load_model("gpt2"), chosen).found
    assert plain is not None and traced is not None
    assert plain.search.verdict == traced.search.verdict == "several"
    assert 0 < traced.search.consistent < plain.search.consistent
    assert {each.phase for each in traced.search.candidates[: traced.search.consistent]} == {"backward"}
    assert traced.because == ("train.py:9 in <module>: loss.backward()",)


def test_a_message_without_a_size_tells_where_the_run_is_predicted_to_fail() -> None:
    text = "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    chosen = TrainingRun(micro_batch_size=64, sequence_length=1024)
    result = explain(reports(text), load_model("gpt2"), chosen, load_device("t4")).found
    assert result is not None and result.search.verdict == "predicted"
    assert result.search.best is not None and result.search.expected is not None
    assert result.search.best.tensor.size == result.search.expected.size
    small = explain(reports(text), load_model("gpt2"), TrainingRun(sequence_length=128), load_device("t4")).found
    assert small is not None and small.search.verdict == "none" and small.search.candidates == ()


def test_the_cpu_says_the_size_itself() -> None:
    size = 8 * 1024 * 50257 * 4
    text = f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {size} bytes. Error code 12 (Cannot ...)"
    chosen = TrainingRun(micro_batch_size=8, sequence_length=1024, attention="naive")
    result = explain(reports(text), load_model("gpt2"), chosen).found
    assert result is not None and result.search.device.name == "cpu"
    assert result.search.sized >= 4 and result.search.best is not None
    assert all(each.tensor.size == size for each in result.search.candidates)
    assert result.search.best.rises and result.changes.limit == 0


def test_the_asynchronous_allocator_is_not_replayed() -> None:
    text = (
        "Allocation on device 0 would exceed allowed memory. (out of memory)\nCurrently allocated     : 2.00 GiB\n"
        "Requested               : 147.24 MiB\nDevice limit            : 23.69 GiB\n"
        "Free (according to CUDA): 2.94 MiB\n"
    )
    result = explain(reports(text), load_model("gpt2"), TrainingRun(micro_batch_size=2, sequence_length=512)).found
    assert result is not None and result.search.room is None and result.search.expected is None
    assert result.search.candidates and all(each.tensor.size == 154389504 for each in result.search.candidates)


# ---- what is refused


def refused(text: str, device: Device | None = None) -> str:
    with pytest.raises((ConfigurationError, NotModelledError)) as caught:
        explain(reports(text), load_model("gpt2"), TrainingRun(sequence_length=64), device)
    return f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("backend", ["HIP", "XPU", "MPS", "NPU"])
def test_kernels_without_rules_are_refused_by_name(backend: str) -> None:
    text = f"{backend} out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 16.00 GiB of which"
    if backend == "MPS":
        text = "MPS backend out of memory (MPS allocated: 8.89 GB). Tried to allocate 6.25 MB on private pool."
    assert f"{backend}, whose kernels memplan has no rules for" in refused(text)


def test_devices_that_contradict_the_message() -> None:
    cuda = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which"
    host = "DefaultCPUAllocator: not enough memory: you tried to allocate 5077901088 bytes."
    assert "of a card, not of cpu" in refused(cuda, load_device("cpu"))
    assert "not of t4" in refused(host, load_device("t4"))
    assert "does not say how much the card has" in refused("RuntimeError: CUDA error: out of memory")
    assert "no card of the catalogue has 5.55 GiB" in refused(cuda.replace("79.15", "5.55"))


def test_reading_alone_needs_no_model() -> None:
    failed = short("t4", 0.5, micro_batch_size=2, sequence_length=64)
    result = read(reports(failed.message()))
    assert result.found is None and result.sizes
    assert any(each.low <= failed.failure.size <= each.high for each in result.sizes)
    with pytest.raises(ConfigurationError):
        read(())


def test_messages_are_values() -> None:
    failed = short("t4", 0.5, micro_batch_size=2, sequence_length=64)
    one, other = (parse(failed.message(), 1) for _ in range(2))
    assert isinstance(one, Message) and one == other
