"""On a card: one tiny configuration measured and compared with its estimate, alone and behind others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA card", allow_module_level=True)

from memplan.allocator import parse_settings  # noqa: E402
from memplan.allocator.replay import replay_snapshot  # noqa: E402
from memplan.config.device import Device  # noqa: E402
from memplan.measure.child import Child  # noqa: E402
from memplan.measure.local import load_device  # noqa: E402
from memplan.measure.prediction import predict, rules_of  # noqa: E402
from memplan.measure.recording import requested  # noqa: E402
from memplan.measure.suite import tasks  # noqa: E402
from memplan.measure.suites.case import Task  # noqa: E402
from memplan.profiles import read, save  # noqa: E402
from memplan.verify import verify  # noqa: E402

CASES = ("gpt-like, tiny, naive, fp32", "llama-like, tiny, flash, bf16", "original-transformer-like, tiny, efficient")


@pytest.fixture(scope="module")
def card() -> Device:
    return requested(load_device("local"))


def named(beginning: str, card: Device, suite: str = "core") -> Task:
    return next(task for task in tasks(suite, card) if task.title.startswith(beginning))


def without_process(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("phases", "sdpa_kernels", "tensor_bytes", "steps")}


@pytest.mark.parametrize("title", CASES)
def test_the_estimate_is_the_run(title: str, card: Device, tmp_path: Path) -> None:
    task = named(title, card)
    with Child(300) as child:
        record = child.attempt(*task.case, card).record
    assert record["outcome"] == "ran", record.get("error")
    assert read(save(record, tmp_path)) == record
    verification = verify(*task.case, card, record)
    assert verification.right_kernel
    allocated = verification.tiers["allocated"]
    assert allocated.difference == 0, (allocated, verification.phases)
    assert verification.tiers["reserved"].within(10), verification.tiers
    tiers = record["tiers"]
    assert tiers["allocated_bytes"] <= tiers["reserved_bytes"] <= tiers["device_bytes"]
    steps = record["steps"]
    assert steps[-1]["peak_allocated_bytes"] == steps[-2]["peak_allocated_bytes"]  # steady


def test_a_run_behind_others_needs_what_it_needs_alone(card: Device) -> None:
    chosen = [named(title, card) for title in CASES]
    with Child(300) as child:
        child.attempt(*chosen[1].case, card)
        child.attempt(*chosen[2].case, card)
        shared = child.attempt(*chosen[0].case, card).record
        child.replace()
        fresh = child.attempt(*chosen[0].case, card).record
    assert (shared["process"], fresh["process"]) == ("shared", "fresh")
    assert without_process(shared) == without_process(fresh)
    assert shared["tiers"]["reserved_bytes"] == fresh["tiers"]["reserved_bytes"]


def test_running_out_of_memory_is_recorded_and_the_next_run_goes_on(card: Device) -> None:
    from dataclasses import replace

    task = named(CASES[0], card)
    too_many = replace(task.case.run, micro_batch_size=4 * card.capacity_bytes // (4 * 128 * 500))
    with Child(300) as child:
        exhausted = child.attempt(task.case.model, too_many, card).record
        assert exhausted["outcome"] == "out_of_memory", exhausted.get("error")
        assert exhausted["out_of_memory"]["requested_bytes"] > 0
        after = child.attempt(*task.case, card).record
    assert after["outcome"] == "ran"


def test_a_recorded_history_replays(card: Device) -> None:
    task = named("small blocks", card, "snapshots")
    with Child(300) as child:
        attempt = child.attempt(*task.case, card, history=True)
    assert attempt.history is not None, attempt.message
    rules = rules_of(attempt.record["environment"])
    comparison = replay_snapshot(attempt.history, parse_settings(rules.allocator_settings, rules.torch))
    assert comparison.same, comparison.difference
    assert predict(*task.case, card, rules).reserved_bytes == attempt.record["tiers"]["reserved_bytes"]
