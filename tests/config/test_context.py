"""What a process costs on a card beside the allocator's segments."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from memplan.config import context, shipped
from memplan.config.context import context_of
from memplan.config.device import Device
from memplan.config.devices import load_device
from memplan.units import MIB

FILE = Path(context.__file__).with_name("contexts.toml")
READINGS = tomllib.loads(FILE.read_text(encoding="utf-8"))


def card(compute_capability: str) -> Device:
    return Device(name="a card", backend="cuda", compute_capability=compute_capability)  # type: ignore[call-arg]


def test_the_flat_reader_agrees_with_tomllib() -> None:
    read = shipped.read_tables(str(FILE))
    assert {name: table for name, table in read.items() if name} == READINGS


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_says_where_it_is_from(name: str) -> None:
    reading = READINGS[name]
    assert 64 * MIB < reading["low_bytes"] <= reading["high_bytes"] < 1.5 * 2**30
    assert "https://github.com/" in reading["source"]
    assert reading["how"]
    assert reading["software"]
    assert reading["state"] in ("bare", "working")
    assert reading["loading"] in ("lazy", "eager")


def test_readings_of_the_out_of_memory_message_are_what_it_leaves() -> None:
    """In use, less allocated, less reserved besides; 0.005 GiB either way for each figure of two decimals."""
    reading = READINGS["l40s"]
    middle = (44.47 - 43.89) * 2**30 - 79.61 * MIB
    assert (reading["low_bytes"], reading["high_bytes"]) == (
        pytest.approx(middle - 0.01 * 2**30, abs=1),
        pytest.approx(middle + 0.01 * 2**30, abs=1),
    )


def test_a_measurement_on_the_card_wins() -> None:
    device = dataclasses.replace(load_device("h100-80gb"), context_bytes=523 * MIB)  # type: ignore[call-arg]
    found = context_of(device)
    assert (found.low, found.bytes, found.high) == (523 * MIB,) * 3
    assert found.basis == "523 MiB measured on this card"


@pytest.mark.parametrize("name", ["h100-80gb", "a100-80gb", "l4", "t4", "rtx-3090", "b200", "rtx-5090"])
def test_the_point_is_the_upper_reading_of_the_family(name: str) -> None:
    device = load_device(name)
    family = [reading for reading in READINGS.values() if reading["compute_capability"] == device.compute_capability]
    found = context_of(device)
    assert found.bytes == found.high == max(reading["high_bytes"] for reading in family)
    assert found.low == min(reading["low_bytes"] for reading in family)
    assert f"compute capability {device.compute_capability}" in found.basis
    assert "not measured on this card" in found.basis


def test_cards_nobody_has_read() -> None:
    assert context_of(card("10.3")).high == context_of(card("10.0")).high
    assert "10.x" in context_of(card("10.3")).basis
    widest = context_of(card("13.0"))
    lazy = [reading for reading in READINGS.values() if reading["loading"] == "lazy"]
    assert widest.low == min(reading["low_bytes"] for reading in lazy)
    assert widest.bytes == max(reading["high_bytes"] for reading in lazy)
    assert "of any card" in widest.basis
    assert repr(context_of(card(""))) == repr(widest)


def test_old_readings_are_taken_where_there_are_no_others_and_said_to_be_old() -> None:
    found = context_of(load_device("v100-32gb"))
    assert found.bytes == READINGS["titan-v"]["high_bytes"]
    assert "every kernel loaded at the start" in found.basis
