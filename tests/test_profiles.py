"""The estimator is graded on every recorded run, on any machine, without torch; and what is no record is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memplan
from memplan.errors import MeasurementError
from memplan.profiles import (
    SCHEMA_VERSION,
    Record,
    file_name,
    folder_name,
    outcome_of,
    profiles_folder,
    read,
    read_all,
    record_path,
    request_of,
    save,
)
from memplan.verify import verify

from .records import CARD, card_record

PROFILES = Path(__file__).parent.parent / "profiles"
RECORDS = sorted(PROFILES.glob("*/*.json"))
ON_CPU = sorted(PROFILES.glob("cpu/*.json"))


def changed(record: Record, *path: str | int, to: Any) -> Record:
    """A copy of `record` in which the value at `path` is another."""
    copy: Record = json.loads(json.dumps(record))
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return copy


def without(record: Record, *path: str | int) -> Record:
    """A copy of `record` in which `path` is missing."""
    copy = changed(record, *path, to=None)
    place: Any = copy
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return copy


def test_there_are_records() -> None:
    assert len(ON_CPU) >= 80


def test_every_record_lies_where_its_request_and_environment_say() -> None:
    for file in RECORDS:
        assert file.relative_to(PROFILES).as_posix() == record_path(read(file))


@pytest.mark.parametrize("file", ON_CPU[::10], ids=lambda file: file.stem)
def test_the_estimate_equals_the_recorded_run(file: Path) -> None:
    """A tenth of them: `memplan verify --recorded` grades all, in .ci/run behind these tests."""
    record = read(file)
    verification = verify(*request_of(record), record)
    assert verification.worst == 0
    assert verification.exact


def test_a_record_survives_being_written_and_read(tmp_path: Path) -> None:
    record = read(ON_CPU[0])
    assert read(save(record, tmp_path)) == record
    assert [file.suffix for file in tmp_path.glob("*/*")] == [".json"]  # nothing temporary is left


def test_a_record_of_a_card_survives_being_written_and_read(tmp_path: Path) -> None:
    record = card_record(reserved=20 * 2**20, on_device=600 * 2**20)
    file = save(record, tmp_path)
    assert read(file) == record
    assert request_of(read(file))[2] == CARD


@pytest.mark.parametrize("outcome", ["out_of_memory", "timed_out", "killed", "failed"])
def test_a_run_that_did_not_end_is_a_record_without_phases(outcome: str, tmp_path: Path) -> None:
    assert outcome_of(read(save(card_record(outcome=outcome), tmp_path))) == outcome


def test_a_changed_record_is_seen() -> None:
    record = read(ON_CPU[0])
    record["phases"][0]["at_end"]["activations"] += 4
    assert verify(*request_of(record), record).worst == 4


def test_the_names_of_records_on_the_cpu_stay() -> None:
    record = read(PROFILES / "cpu" / "gpt-like-naive-fp32-cd12b40e.json")
    assert record_path(record) == "cpu/gpt-like-naive-fp32-cd12b40e.json"


def test_records_of_other_releases_drivers_and_settings_stand_side_by_side() -> None:
    on_cpu = read(ON_CPU[0])
    assert folder_name(changed(on_cpu, "environment", "torch", to="2.6.0+cpu")) == "cpu-torch-2.6"
    record = card_record()
    assert folder_name(record) == "h100-80gb-torch-2.13-driver-580"
    local = changed(record, "request", "device", "name", to="local:1")
    assert folder_name(local) == folder_name(record)
    slice_of_it = changed(local, "environment", "card", to="NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    assert folder_name(slice_of_it) == "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-torch-2.13-driver-580"
    busy = changed(local, "request", "device", "used_by_others_bytes", to=2**20)
    assert record_path(busy) == record_path(record)
    unknown = changed(record, "environment", "driver", to=None)
    assert folder_name(unknown) == "h100-80gb-torch-2.13"
    expandable = changed(record, "environment", "allocator_settings", to="expandable_segments:True")
    assert folder_name(expandable) == folder_name(record)
    assert file_name(expandable) != file_name(record)
    assert file_name(card_record(environment={"allocator_settings": ""})) == file_name(record)


def test_a_checkout_and_an_installation_know_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert memplan.__file__ is not None
    assert Path(profiles_folder()).samefile(PROFILES)
    package = tmp_path / "memplan"
    (package / "profiles_data").mkdir(parents=True)
    monkeypatch.setattr("memplan.residuals.__file__", str(package / "residuals.py"))
    assert Path(profiles_folder()) == package / "profiles_data"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot read"),
        ("[]", "is not a record"),
        ("{}", "is not a record"),
        ('{"schema_version": true}', "is not a record"),
        ('{"schema_version": 1', "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("\xff", "cannot read"),
        (json.dumps({"schema_version": SCHEMA_VERSION + 1}), "newer than"),
        (json.dumps({"schema_version": SCHEMA_VERSION}), "kind: must be one of training_step, generation"),
    ],
)
def test_what_is_no_record_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(MeasurementError, match=says) as caught:
        read(file)
    assert "record.json" in caught.value.message


DAMAGE: dict[str, tuple[Callable[[Record], Record], str]] = {
    "kind": (lambda record: changed(record, "kind", to="snapshot"), "kind: must be one of training_step, generation"),
    "outcome": (lambda record: changed(record, "outcome", to="crashed"), "outcome: must be one of ran"),
    "environment": (lambda record: changed(record, "environment", to=[]), "environment: must name the release"),
    "no torch": (lambda record: without(record, "environment", "torch"), "environment: must name the release"),
    "no request": (lambda record: without(record, "request"), "request: must hold a model, a run and a device"),
    "no run": (lambda record: without(record, "request", "run"), "request: must hold a run"),
    "unknown field": (
        lambda record: changed(record, "request", "run", "micro_batch", to=2),
        'request.run.micro_batch: is not a known key; did you mean "micro_batch_size"',
    ),
    "missing field": (
        lambda record: without(record, "request", "model", "hidden_size"),
        "request.model.hidden_size: is missing",
    ),
    "text for a size": (
        lambda record: changed(record, "request", "model", "hidden_size", to="64"),
        "request.model.hidden_size: must be a whole number",
    ),
    "unknown word": (
        lambda record: changed(record, "request", "run", "precision", to="fp64"),
        "request.run.precision: must be one of",
    ),
    "no device": (lambda record: without(record, "request", "device", "name"), "request: must hold a device"),
    "foreign device": (
        lambda record: changed(record, "request", "device", "backend", to="tpu"),
        "request.device.backend: must be cpu or cuda",
    ),
    "device field": (
        lambda record: changed(record, "request", "device", "colour", to="green"),
        "request.device.colour: is not a known key",
    ),
    "capacity": (
        lambda record: changed(record, "request", "device", "capacity_bytes", to=-1),
        "request.device.capacity_bytes: must be a size",
    ),
    "kernels": (lambda record: changed(record, "sdpa_kernels", to="flash"), "sdpa_kernels: must be a list"),
    "no kernels": (lambda record: without(record, "sdpa_kernels"), "sdpa_kernels: must be a list"),
    "phases": (lambda record: changed(record, "phases", to={}), "phases: must be a list"),
    "no phases": (lambda record: without(record, "phases"), "phases: must be a list"),
    "phase": (lambda record: changed(record, "phases", 0, to=7), "phases: one of them has no name"),
    "no peak": (
        lambda record: without(record, "phases", 1, "peak_allocated_bytes"),
        "phases.loss: must hold peak_allocated_bytes",
    ),
    "fraction": (
        lambda record: changed(record, "phases", 1, "peak_allocated_bytes", to=1.5),
        "phases.loss.peak_allocated_bytes: must be a size",
    ),
    "components": (
        lambda record: changed(record, "phases", 2, "at_peak", to={"parameters": None}),
        "phases.backward.at_peak: must hold sizes by component",
    ),
    "no tiers": (lambda record: without(record, "tiers"), "tiers: must hold sizes by tier"),
    "tier": (lambda record: changed(record, "tiers", "reserved_bytes", to="much"), "tiers.reserved_bytes: must be"),
    "no allocated": (lambda record: without(record, "tiers", "allocated_bytes"), "tiers: must hold allocated_bytes"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_refused_by_its_fault(name: str, tmp_path: Path) -> None:
    damage, says = DAMAGE[name]
    file = tmp_path / "record.json"
    file.write_text(json.dumps(damage(card_record())))
    with pytest.raises(MeasurementError) as caught:
        read(file)
    assert f"{file} is damaged: {says}" in caught.value.message


def test_unreadable_records_stop_no_others(tmp_path: Path) -> None:
    whole = save(card_record(), tmp_path)
    (whole.parent / "a.json").write_text("{")
    (whole.parent / "z.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    (tmp_path / "README.md").write_text("not a record, and not said to be one")
    before = whole.read_bytes()
    records, problems = read_all(tmp_path)
    assert [file for file, _ in records] == [whole]
    assert [file.name for file, _ in problems] == ["a.json", "z.json"]
    assert "newer" in problems[1][1]
    assert whole.read_bytes() == before


def test_records_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(card_record()))
    assert [file.parent.name for file, _ in read_all(tmp_path)[0]] == ["a", "b", "c"]


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"cannot read the records in .*missing: No such file"):
        read_all(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(MeasurementError, match=r"cannot read the records in .*file: Not a directory"):
        read_all(tmp_path / "file")


def test_a_folder_below_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    whole = save(card_record(), tmp_path)
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # permissions do not hold root back
    records, problems = read_all(tmp_path)
    assert [file for file, _ in records] == [whole]
    ((place, why),) = problems
    assert place.name == "locked"
    assert "Permission denied" in why


def test_a_record_without_its_phases_is_refused() -> None:
    record = read(ON_CPU[0])
    with pytest.raises(MeasurementError, match="no phase backward"):
        verify(*request_of(record), {**record, "phases": [p for p in record["phases"] if p["name"] != "backward"]})


def test_a_run_that_did_not_end_has_nothing_to_compare() -> None:
    record = card_record(outcome="timed_out")
    with pytest.raises(MeasurementError, match="the run of small did not end: timed out"):
        verify(*request_of(record), record)
