"""The child process: what becomes of a run that ends badly, and when the next one gets a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memplan.config.devices import load_device
from memplan.errors import MeasurementError, NotModelledError
from memplan.measure.child import Attempt, Child
from memplan.profiles import read, save

from .fakes import ENVIRONMENT, LOCAL, case, fake_worker

__all__ = ["fake_worker"]


def attempt(child: Child, name: str, history: bool = False) -> Attempt:
    return child.attempt(*case(name), LOCAL, history)


def test_runs_share_a_process_and_say_so(fake_worker: list[Any]) -> None:
    with Child() as child:
        records = [attempt(child, "tiny").record for _ in range(3)]
    assert [record["process"] for record in records] == ["fresh", "shared", "shared"]
    assert len({record["pid"] for record in records}) == len(fake_worker) == 1
    assert records[0]["environment"] == ENVIRONMENT


def test_a_process_of_its_own_on_request(fake_worker: list[Any]) -> None:
    with Child() as child:
        first = attempt(child, "tiny").record
        child.replace()
        second = attempt(child, "tiny").record
    assert [first["process"], second["process"]] == ["fresh", "fresh"]
    assert first["pid"] != second["pid"]


@pytest.mark.parametrize("name", ["leaves something", "fails", "exhausts the memory of a library"])
def test_what_leaves_the_card_in_doubt_ends_the_process(name: str, fake_worker: list[Any]) -> None:
    with Child() as child:
        attempt(child, name)
        assert attempt(child, "tiny").record["process"] == "fresh"
    assert len(fake_worker) == 2


def test_running_out_of_memory_is_a_result_and_the_process_goes_on(fake_worker: list[Any]) -> None:
    with Child() as child:
        exhausted = attempt(child, "exhausts")
        assert exhausted.record["outcome"] == "out_of_memory"
        assert exhausted.message == ""
        assert attempt(child, "tiny").record["process"] == "shared"


def test_a_run_that_hangs_is_stopped_and_recorded(fake_worker: list[Any]) -> None:
    with Child(time_limit=0.5) as child:
        hung = attempt(child, "hangs")
        assert hung.record["outcome"] == "timed_out"
        assert hung.record["time_limit_seconds"] == 0.5
        assert hung.record["environment"] == ENVIRONMENT
        assert hung.message == "the process that ran hangs did not end within 0.5 seconds"
        assert attempt(child, "tiny").record["outcome"] == "ran"
    assert len(fake_worker) == 2


def test_starting_a_process_is_not_the_run_s_time(fake_worker: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_START_SECONDS", "1.5")
    with Child(time_limit=1) as child:
        for _ in range(2):
            assert attempt(child, "tiny").record["outcome"] == "ran"
            child.replace()
    assert len(fake_worker) == 2


def test_a_child_that_is_killed_is_recorded_with_its_signal(fake_worker: list[Any]) -> None:
    with Child() as child:
        killed = attempt(child, "dies")
        assert (killed.record["outcome"], killed.record["signal"]) == ("killed", 9)
        assert "killed by signal 9" in killed.message
        assert "last words" in killed.message
        assert "last words" not in str(killed.record)
        assert attempt(child, "tiny").record["process"] == "fresh"


def test_a_failure_is_recorded_by_its_first_line(fake_worker: list[Any]) -> None:
    with Child() as child:
        failed = attempt(child, "fails")
    assert failed.record["outcome"] == "failed"
    assert failed.record["error"] == "ValueError: it broke"
    assert failed.message == "ValueError: it broke\nin detail"


@pytest.mark.parametrize("name", ["tiny", "exhausts", "hangs", "dies", "fails"])
def test_every_record_can_be_kept(name: str, fake_worker: list[Any], tmp_path: Path) -> None:
    with Child(time_limit=0.5) as child:
        record = attempt(child, name).record
    assert read(save(record, tmp_path)) == record


def test_the_history_is_no_part_of_the_record(fake_worker: list[Any]) -> None:
    with Child() as child:
        seen = attempt(child, "tiny", history=True)
    assert seen.history is not None
    assert "history" not in seen.record


def test_where_nothing_can_run_the_reason_is_told(fake_worker: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_ENVIRONMENT", "{}")
    with Child() as child, pytest.raises(MeasurementError, match="no card") as error:
        attempt(child, "tiny")
    assert error.value.hint == "buy one"


def test_measure_raises_what_attempt_records(fake_worker: list[Any]) -> None:
    with Child(time_limit=0.5) as child:
        assert child.measure(*case(), LOCAL)["outcome"] == "ran"
        for name, says in (
            ("exhausts", "out of memory"),
            ("hangs", "0.5 seconds"),
            ("dies", "signal 9"),
            ("fails", "it broke"),
        ):
            with pytest.raises(MeasurementError, match=says):
                child.measure(*case(name), LOCAL)


def test_a_card_by_its_name_is_refused(fake_worker: list[Any]) -> None:
    card = load_device("h100-80gb")
    with Child() as child, pytest.raises(NotModelledError, match="real runs on h100-80gb"):
        child.attempt(*case(), card)
    assert not fake_worker


def test_on_the_cpu_a_record_is_what_it_always_was() -> None:
    pytest.importorskip("torch")
    cpu = load_device("cpu")
    small = case("tiny", cpu)
    with Child() as child:
        measured = child.measure(*small, cpu)
        attempted = child.attempt(*small, cpu).record
    assert list(measured) == [
        "schema_version",
        "memplan_version",
        "kind",
        "request",
        "environment",
        "sdpa_kernels",
        "phases",
    ]
    assert attempted == measured
