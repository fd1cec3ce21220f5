"""`memplan presets` and `memplan devices`."""

from __future__ import annotations

import json

import pytest

from memplan.cli import run
from memplan.config.card import Card
from memplan.errors import MissingDependencyError
from memplan.measure import local


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
    assert lines[0].split() == ["device", "capacity", "bytes", "compute", "description"]
    (h100,) = [line for line in lines if line.startswith("h100-80gb ")]
    assert h100.split()[3:6] == ["85,027,979,264", "9.0", "NVIDIA"]
    (cpu,) = [line for line in lines if line.startswith("cpu ")]
    assert cpu.split()[1:4] == ["-", "-", "-"]


def test_devices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--json"]) == 0
    devices = {device["name"]: device for device in json.loads(capsys.readouterr().out)}
    assert devices["cpu"]["capacity_bytes"] is None
    h100 = devices["h100-80gb"]
    assert h100["capacity_bytes"] == 85_027_979_264
    assert (h100["compute_capability"], h100["multiprocessors"], h100["used_by_others_bytes"]) == ("9.0", 132, None)


def test_this_machines_cards_come_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(name="local", backend="cuda", capacity_bytes=80 * 2**30, compute_capability="9.0",
                multiprocessors=132, used_by_others_bytes=3 * 2**30, description="NVIDIA H100 80GB HBM3")  # fmt: skip
    monkeypatch.setattr(local, "local_devices", lambda: (card,))
    assert run(["devices"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.startswith("local ")
    assert first.endswith("9.0  NVIDIA H100 80GB HBM3, 3.00 GiB in use by others")
    assert run(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["used_by_others_bytes"] == 3 * 2**30


def test_the_list_does_without_a_driver(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[Card, ...]:
        raise MissingDependencyError("no driver")

    monkeypatch.setattr(local, "local_devices", refuse)
    assert run(["devices"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].startswith("cpu ")
    assert captured.err == ""
