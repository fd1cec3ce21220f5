"""`memplan profiles`: what is recorded, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memplan.cli import run
from memplan.profiles import SCHEMA_VERSION

from ..measure.fakes import fake_worker

__all__ = ["fake_worker"]


def test_the_records_that_come_with_memplan(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles"]) == 0
    text = capsys.readouterr().out
    (cpu,) = [line for line in text.splitlines() if line.startswith("cpu ")]
    assert cpu.split() == [
        *("cpu", "2,517", "2.13.0+cpu", "2,517", "ran"),
        *("quick", "101", "of", "101,", "setups", "1,113", "of", "1,113,", "generation", "244", "of", "1,302,"),
        *("families", "1,059", "of", "1,059"),
    ]


def test_every_suite_is_covered_or_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    covered = {suite["name"] for folder in document["folders"] for suite in folder["suites"] if suite["recorded"]}
    missing = {suite["name"] for suite in document["missing_suites"]}
    assert covered | missing == {"quick", "setups", "generation", "families", "core", "boundary", "snapshots"}
    assert not covered & missing
    for suite in document["missing_suites"]:
        device = "cpu" if suite["name"] in ("quick", "setups", "generation", "families") else "local"
        assert suite["command"] == f"memplan measure --suite {suite['name']} --device {device} --out profiles"


def test_a_card_and_what_its_suites_lack(
    fake_worker: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path)]
    assert run(["measure", "--suite", "snapshots", *out]) == 0
    assert run(["measure", "--suite", "core", "--only", "gpt-like, naive*", *out]) == 0
    next(tmp_path.rglob("*.history.json.gz")).unlink()  # a history without which its record is not whole
    capsys.readouterr()
    assert run(["profiles", str(tmp_path), "--json"]) == 0
    (folder,) = json.loads(capsys.readouterr().out)["folders"]
    assert folder["card"] == "NVIDIA Test 80GB"
    assert folder["torch"] == ["2.11.0+cu130"]
    assert folder["records"] == 8 + 4
    assert folder["outcomes"]["ran"] == 12
    suites = {suite["name"]: suite for suite in folder["suites"]}
    assert suites["snapshots"]["recorded"] == 7
    assert suites["core"]["recorded"] == 4
    assert len(suites["core"]["missing"]) == suites["core"]["total"] - 4
    assert suites["boundary"]["recorded"] == 0
    assert suites["core"]["command"] == f"memplan measure --suite core --device local --out {tmp_path}"
    assert run(["profiles", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "core 4 of " in text
    assert f"         memplan measure --suite core --device local --out {tmp_path}" in text.splitlines()


def test_what_did_not_end_is_still_missing(
    fake_worker: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["measure", "--suite", "core", "--only", "gpt-like, naive, bf16, *", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.rglob("*.json")
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "outcome": "timed_out", "phases": []}))
    capsys.readouterr()
    assert run(["profiles", str(tmp_path), "--json"]) == 0
    (folder,) = json.loads(capsys.readouterr().out)["folders"]
    assert folder["outcomes"]["timed_out"] == 1
    assert {suite["name"]: suite["recorded"] for suite in folder["suites"]}["core"] == 0


def test_files_that_are_no_records_are_named_and_the_others_listed(
    fake_worker: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["measure", "--suite", "core", "--only", "gpt-like, naive, bf16, *", "--out", str(tmp_path)]) == 0
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "newer.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    capsys.readouterr()
    assert run(["profiles", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "broken.json" in captured.err
    assert "newer than" in captured.err
    assert "1 ran" in captured.out


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", str(tmp_path / "nothing")]) == 2
    captured = capsys.readouterr()
    assert "cannot read the records in" in captured.err
    assert captured.out == ""


def test_an_empty_folder_lacks_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("nothing of the suite") == 7
