"""`memplan presets` and `memplan devices`."""

from __future__ import annotations

import json

import pytest

from memplan.cli import run


def test_presets_with_their_parameter_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["preset", "parameters", "architecture"]
    assert ["gpt2", "124,439,808", "decoder"] in rows
    assert ["llama-3-8b", "8,030,261,248", "decoder"] in rows


def test_presets_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    assert {"name": "gpt2", "architecture": "decoder", "parameter_count": 124_439_808} in presets


def test_devices_with_their_capacity(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["device", "capacity", "bytes", "description"]
    assert any(line.startswith("h100-80gb") and "85,027,979,264" in line for line in lines)


def test_devices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--json"]) == 0
    devices = {device["name"]: device for device in json.loads(capsys.readouterr().out)}
    assert devices["cpu"]["capacity_bytes"] is None
    assert devices["h100-80gb"]["capacity_bytes"] == 85_027_979_264
