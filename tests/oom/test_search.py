"""The tensor behind a message is found: of runs that the allocator's simulation makes fail, and of those that PyTorch's
own CUDA builds have run out of memory with on a simulated card (profiles/)."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from memplan.allocator import Settings
from memplan.config.devices import load_device
from memplan.config.inference import InferenceRun
from memplan.config.load import load_model
from memplan.config.validate import validate_run
from memplan.estimate import backend_of, trace
from memplan.expansion import expand
from memplan.oom.alive import alive_at
from memplan.oom.failing import rooms, run
from memplan.oom.hints import Hints
from memplan.oom.parse import parse
from memplan.oom.printed import spelled
from memplan.oom.search import Search, search
from memplan.oom.steps import Steps
from memplan.profiles import Record, outcome_of, request_of
from memplan.profiles import read as read_record
from memplan.timeline import timeline_of

from .failed import MIB, Failed, drawn, is_it, named

CASES = 105
RECORDS = Path(__file__).parents[2] / "profiles"


def found(failed: Failed, text: str) -> Search:
    message = parse(text, 1)
    assert message is not None
    device = replace(failed.device, capacity_bytes=failed.capacity)
    return search(message, Hints(), failed.model, failed.run, device, (2, 13), failed.settings)


@cache
def cases() -> tuple[Failed, ...]:
    return tuple(drawn(20, CASES))


@pytest.mark.parametrize("style", ["new", "old", "oldest"])
def test_of_generated_messages_the_tensor_is_found_in_first_place(style: str) -> None:
    """All of them: as long as the configuration is the one that ran, the replay ends as the run did."""
    mine = cases()[{"new": 0, "old": 1, "oldest": 2}[style] :: 3]
    results = [(failed, found(failed, failed.message(style))) for failed in mine]
    hits = [is_it(result, failed) for failed, result in results]
    assert len(hits) == CASES // 3 and all(hits), f"{sum(hits)} of {len(hits)}"
    for failed, result in results:
        assert result.exact and result.best is not None and result.best.failure is not None
        assert result.verdict in ("one", "several")
        assert result.best.phase == failed.failure.phase
        assert result.alive is not None
        assert result.alive.allocated == failed.failure.allocated


def test_without_what_is_free_most_are_found_still() -> None:
    """Asked and allocated alone: the room for PyTorch is then known to a context or so."""
    share = 0
    for failed in cases()[:24]:
        text = re.sub(r"of which .*? is free\. .*?(?=Of the allocated)", "", failed.message())
        text = re.sub(r", and \S+ \S+ is reserved by.*", "", text)
        plain = failed._replace(others=())
        message = parse(text, 1)
        assert message is not None and message.free is None and message.unallocated is None
        share += is_it(found(plain, text.replace(spelled(failed.capacity), spelled(plain.capacity))), failed)
    assert share >= 21, f"{share} of 24"


def test_a_model_that_is_too_large_fails_while_it_is_loaded() -> None:
    failed = named("gpt2", "t4", 0.3, micro_batch_size=1, sequence_length=16)
    result = found(failed, failed.message())
    assert is_it(result, failed) and result.best is not None
    assert (result.best.step, result.best.phase) == ("loading", "initial")
    assert result.alive is not None and result.alive.components["activations"] == 0


def test_a_run_that_writes() -> None:
    model, device = load_model("gpt2"), load_device("t4")
    chosen = InferenceRun(micro_batch_size=8, prompt_length=512, new_tokens=4)
    checked = validate_run(model, chosen, device)
    steps = Steps(expand(trace(model, checked, backend_of(device))))
    peak = run(steps.expansion, Settings(), None).peak
    failure = run(steps.expansion, Settings(), peak * 9 // 10).failure
    assert failure is not None
    failed = Failed(model, checked, device, steps, failure, peak * 9 // 10)  # type: ignore[arg-type]
    result = found(failed, failed.message())
    assert is_it(result, failed) and result.exact


# ---- real failures of PyTorch's CUDA builds


def recorded() -> list[Record]:
    records = []
    for file in sorted(RECORDS.glob("*/*.json")):
        if '"out_of_memory"' in file.read_text(encoding="utf-8"):
            record = read_record(file)
            if outcome_of(record) == "out_of_memory":
                records.append(record)
    return records


def worded(figures: dict[str, int]) -> str:
    """The message that the figures of a record were read from; they are the middles of what was printed."""
    asked, capacity, free, allocated, loose = (
        spelled(figures[f"{name}_bytes"])
        for name in ("requested", "capacity", "free", "allocated", "reserved_but_unallocated")
    )
    return (
        f"CUDA out of memory. Tried to allocate {asked}. GPU 0 has a total capacity of {capacity} of which {free} is "
        f"free. Of the allocated memory {allocated} is allocated by PyTorch, and {loose} is reserved by PyTorch but "
        "unallocated."
    )


@pytest.mark.parametrize("record", recorded(), ids=lambda record: record["request"]["model"]["name"])
def test_of_every_recorded_failure_phase_and_step_are_found(record: Record) -> None:
    model, chosen, device = request_of(record)
    figures = record["out_of_memory"]
    message = parse(worded(figures), 1)
    assert message is not None
    result = search(message, Hints(), model, chosen, device, (2, 13))
    best = result.best
    assert best is not None and best.failure is not None
    assert (best.failure.step, best.phase) == (figures["step"], figures["phase"])
    assert result.exact and result.verdict == "one"


def test_there_are_recorded_failures() -> None:
    assert len(recorded()) >= 16


# ---- what the search stands on


def test_the_steps_are_those_of_the_timeline_and_of_the_replay() -> None:
    for failed in cases()[:12]:
        steps = failed.steps
        over = timeline_of(trace(failed.model, failed.run, backend_of(failed.device)))
        assert (steps.later.timeline.events, steps.later.timeline.phases) == (over.events, over.phases)
        for ours, theirs in zip(steps.later.timeline.tensors, over.tensors, strict=True):
            assert (ours.title, ours.born, ours.died) == (theirs.title, theirs.born, theirs.died)
        result = run(steps.expansion, Settings(), None, 3)
        for number, stage in ((1, steps.first), (2, steps.later), (3, steps.later)):
            blocks = steps.blocks(result.blocks, number)
            tensors = stage.timeline.tensors
            assert len(blocks) == len(tensors)
            for block, tensor in zip(blocks, tensors, strict=True):
                assert 0 <= block - (tensor.size + 511) // 512 * 512 <= MIB
            assert min(stage.timeline.allocated(blocks)) >= 0
        first = {tensor.component for tensor in steps.first.timeline.tensors if tensor.born < 0}
        assert "gradients" not in first and "optimizer_state" not in first


def test_what_was_alive_adds_up_for_every_candidate() -> None:
    for failed in cases()[:10]:
        result = found(failed, failed.message())
        unbounded = run(failed.steps.expansion, Settings(), None, 3).blocks
        for candidate in result.candidates:
            alive = alive_at(candidate, failed.steps, unbounded)
            assert alive.allocated == candidate.allocated == sum(alive.components.values())
            assert alive.allocated - sum(line.size * line.copies for line in alive.largest) >= 0


def test_the_room_of_a_message_is_among_those_that_are_tried() -> None:
    for failed in cases()[:40]:
        message = parse(failed.message(), 1)
        assert message is not None
        from memplan.config.context import context_of

        tried = rooms(message, failed.capacity, context_of(failed.device))
        assert any(size // (2 * MIB) == failed.room // (2 * MIB) for size in tried)
