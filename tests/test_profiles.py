"""The estimator is graded on every recorded run, on any machine, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memplan.errors import MeasurementError
from memplan.profiles import SCHEMA_VERSION, file_name, read, request_of, save
from memplan.verify import verify

PROFILES = Path(__file__).parent.parent / "profiles"
RECORDS = sorted(PROFILES.glob("*/*.json"))


def test_there_are_records() -> None:
    assert len(RECORDS) >= 80


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.stem)
def test_the_estimate_equals_the_recorded_run(file: Path) -> None:
    record = read(file)
    assert file.name == file_name(record)
    verification = verify(*request_of(record), record)
    assert verification.worst == 0
    assert verification.exact


def test_a_record_survives_being_written_and_read(tmp_path: Path) -> None:
    record = read(RECORDS[0])
    assert read(save(record, tmp_path)) == record
    assert [file.suffix for file in tmp_path.glob("*/*")] == [".json"]  # nothing temporary is left


def test_a_changed_record_is_seen(tmp_path: Path) -> None:
    record = read(RECORDS[0])
    record["phases"][0]["at_end"]["activations"] += 4
    assert verify(*request_of(record), record).worst == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot read"),
        ("[]", "is not a record"),
        ("{}", "is not a record"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "newer than"),
    ],
)
def test_what_is_no_record_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(text)
    with pytest.raises(MeasurementError, match=says):
        read(file)


def test_a_record_without_its_phases_is_refused() -> None:
    record = read(RECORDS[0])
    with pytest.raises(MeasurementError, match="no phase backward"):
        verify(*request_of(record), {**record, "phases": [p for p in record["phases"] if p["name"] != "backward"]})
