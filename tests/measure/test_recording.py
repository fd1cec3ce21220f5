"""Recording many runs: going on after an interruption, and keeping what is there."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from memplan.errors import MeasurementError
from memplan.measure import history
from memplan.measure.child import Child
from memplan.measure.recording import Planned, Recording, Result, differences, history_file, repeated, requested
from memplan.measure.suites.core import FRESH
from memplan.profiles import SCHEMA_VERSION, read

from .fakes import ENVIRONMENT, LOCAL, fake_worker, planned

__all__ = ["fake_worker"]


def run(folder: Path, tasks: list[Planned], time_limit: float = 20, **options: Any) -> list[Result]:
    with Child(time_limit) as child:
        recording = Recording(child, LOCAL, folder, **options)
        recording.check(tasks)
        return [recording.result(each) for each in tasks]


def test_what_is_recorded_is_not_run_again(fake_worker: list[Any], tmp_path: Path) -> None:
    tasks = planned("one", "two")
    first = run(tmp_path, tasks[:1])
    both = run(tmp_path, tasks)
    assert [result.skipped for result in both] == [True, False]
    assert both[0].record == first[0].record
    assert [result.outcome for result in both] == ["ran", "ran"]
    assert sorted(file.name for file in tmp_path.rglob("*.json")) == sorted(result.file.name for result in both)


def test_records_lie_where_the_machine_says(fake_worker: list[Any], tmp_path: Path) -> None:
    (result,) = run(tmp_path, planned("one"))
    assert result.file.parent.name == "NVIDIA-Test-80GB-torch-2.11-driver-580"
    assert read(result.file) == result.record


@pytest.mark.parametrize("name", ["hangs", "dies", "fails"])
def test_what_says_nothing_is_run_again(name: str, fake_worker: list[Any], tmp_path: Path) -> None:
    for _ in range(2):
        (result,) = run(tmp_path, planned(name), time_limit=0.5)
        assert not result.skipped
        assert not result.as_expected
        assert result.message


def test_running_out_is_not_run_again(fake_worker: list[Any], tmp_path: Path) -> None:
    run(tmp_path, planned("exhausts"))
    (result,) = run(tmp_path, planned("exhausts"))
    assert result.skipped
    assert result.outcome == "out_of_memory"
    assert not result.as_expected  # a few bytes fit any card


def test_a_failure_does_not_keep_the_others_from_running(fake_worker: list[Any], tmp_path: Path) -> None:
    results = run(tmp_path, planned("fails", "dies", "hangs", "last"), time_limit=0.5)
    assert [result.outcome for result in results] == ["failed", "killed", "timed_out", "ran"]
    assert len(list(tmp_path.rglob("*.json"))) == 4


def test_another_environment_is_refused_before_anything_runs(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = run(tmp_path, planned("one"))
    monkeypatch.setenv("FAKE_ENVIRONMENT", json.dumps({**ENVIRONMENT, "torch": "2.11.1+cu130", "python": "3.12"}))
    with pytest.raises(
        MeasurementError, match=r"another environment: torch: 2.11.0\+cu130 there, 2.11.1\+cu130 here\n"
    ):
        run(tmp_path, planned("two", "one"))
    assert [read(file) for file in tmp_path.rglob("*.json")] == [old.record]
    (new,) = run(tmp_path, planned("one"), restart=True)
    assert new.record is not None
    assert new.record["environment"]["torch"] == "2.11.1+cu130"


def test_restart_measures_again(fake_worker: list[Any], tmp_path: Path) -> None:
    (first,) = run(tmp_path, planned("one"))
    (second,) = run(tmp_path, planned("one"), restart=True)
    assert not second.skipped
    assert first.record is not None and second.record is not None
    assert first.record["pid"] != second.record["pid"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "cannot read"), (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "newer than"), ("{}", "not a record")],
)
def test_a_file_that_is_no_record_is_left_alone(text: str, says: str, fake_worker: list[Any], tmp_path: Path) -> None:
    (good, bad) = run(tmp_path, planned("one", "two"))
    bad.file.write_text(text)
    results = run(tmp_path, planned("two", "one"))
    assert [result.outcome for result in results] == ["failed", "ran"]
    assert says in results[0].message
    assert "--restart" in results[0].message
    assert bad.file.read_text() == text
    assert read(good.file) == good.record


def test_fresh_gives_each_run_a_process(fake_worker: list[Any], tmp_path: Path) -> None:
    results = run(tmp_path, planned("one", "two", "three"), fresh=True)
    assert [result.record["process"] for result in results if result.record] == ["fresh"] * 3
    assert len({result.record["pid"] for result in results if result.record}) == 3


def test_a_task_may_ask_for_it(fake_worker: list[Any], tmp_path: Path) -> None:
    tasks = planned("one", "two") + planned("three", fresh=True)
    assert [result.record["process"] for result in run(tmp_path, tasks) if result.record] == [
        "fresh",
        "shared",
        "fresh",
    ]


def full_disk(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Writing a file with that in its name stops half-way."""
    for name, part in (("write_text", str), ("write_bytes", bytes)):
        write = getattr(Path, name)

        def half(
            self: Path, content: Any, *arguments: Any, write: Any = write, part: Any = part, **keywords: Any
        ) -> Any:
            if ending in self.name:
                write(self, content[: len(content) // 2], *arguments, **keywords)
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(self, content, *arguments, **keywords)

        monkeypatch.setattr(Path, name, half)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = run(tmp_path, planned("one"))
    full_disk(monkeypatch, ".tmp")
    with pytest.raises(MeasurementError, match=r"cannot write the record .*: No space left on device"):
        run(tmp_path, planned("one", "two"))
    assert list(tmp_path.rglob("*.*")) == [kept.file.parent, kept.file]
    assert read(kept.file) == kept.record


def test_a_history_lies_beside_its_record(fake_worker: list[Any], tmp_path: Path) -> None:
    (result,) = run(tmp_path, planned("one", history=True))
    assert result.record is not None
    file = history_file(result.file)
    assert result.record["history"] == file.name
    assert history.read(file)["device_traces"] == [[]]
    (again,) = run(tmp_path, planned("one", history=True))
    assert again.skipped
    file.unlink()
    (measured,) = run(tmp_path, planned("one", history=True))
    assert not measured.skipped
    assert file.exists()


@pytest.mark.parametrize(("ending", "says"), [(".json.gz.", "the history"), (".json.", "the")])
def test_a_history_and_its_record_are_kept_together_or_not_at_all(
    ending: str, says: str, fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, ending)
    with pytest.raises(MeasurementError, match=f"cannot write {says}"):
        run(tmp_path, planned("one", history=True))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_record_that_fails_takes_its_history_along(
    fake_worker: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Path:
        raise MeasurementError("cannot write the record")

    monkeypatch.setattr("memplan.measure.recording.save", refuse)
    with pytest.raises(MeasurementError):
        run(tmp_path, planned("one", history=True))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_processes_are_compared_by_their_bytes(fake_worker: list[Any], tmp_path: Path) -> None:
    results = run(tmp_path, planned("first", "one") + planned(f"one{FRESH}", fresh=True))
    assert repeated(results) == [(f"one{FRESH}, naive, fp32, 1 x 8", True)]
    assert results[1].record is not None
    results[1].record["tiers"]["reserved_bytes"] += 1
    assert repeated(results) == [(f"one{FRESH}, naive, fp32, 1 x 8", False)]
    results[1].record["process"] = "fresh"  # then it shows nothing
    assert repeated(results) == []


def test_differences_name_both_sides() -> None:
    assert differences({"torch": "1", "python": "a"}, {"torch": "1", "python": "b"}) == []
    assert differences({"torch": "1"}, {"torch": "2", "card": "x"}) == [
        "torch: 1 there, 2 here",
        "card: None there, x here",
    ]


def test_what_others_hold_is_no_part_of_a_request() -> None:
    from dataclasses import replace

    busy = replace(LOCAL, used_by_others_bytes=2**30)  # type: ignore[call-arg]
    assert requested(busy) == LOCAL
