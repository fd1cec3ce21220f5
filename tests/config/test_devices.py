"""Devices by name."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from memplan.config import devices, shipped
from memplan.config.card import Card
from memplan.config.device import DEFAULT_CPU_THREADS, Device
from memplan.config.devices import card_named, catalogue, load_device, names
from memplan.profiles import fields

from .conftest import refused

CARDS = Path(devices.__file__).with_name("cards.toml")
TABLES = tomllib.loads(CARDS.read_text(encoding="utf-8"))


def test_the_cpu() -> None:
    assert load_device("cpu").threads == DEFAULT_CPU_THREADS
    assert load_device("cpu").capacity_bytes == 0
    eight = load_device("cpu:8")
    assert (eight.name, eight.backend, eight.threads) == ("cpu:8", "cpu", 8)
    assert load_device(f"cpu:{DEFAULT_CPU_THREADS}") == load_device(" CPU ")


@pytest.mark.parametrize("name", ["cpu:", "cpu:0", "cpu:-1", "cpu:x", "cpu:1.5", "cpu:²", "cpu:9999999999", "cpu:1:2"])
def test_impossible_numbers_of_threads(name: str) -> None:
    with refused("device: ", "cpu:8 asks for eight"):
        load_device(name)


def test_the_catalogue_is_wide_and_mostly_read_off_the_driver() -> None:
    assert names() == ("cpu", *TABLES)
    assert [card.name for card in catalogue()] == list(TABLES)
    read = [name for name, table in TABLES.items() if "nominal" not in table]
    assert len(read) >= 40
    for name in read:
        assert "nominal" not in TABLES[name]["source"]


def test_the_catalogue_is_sorted() -> None:
    """Data centre, workstation, consumer; within each a newer generation comes before an older one."""
    sections = re.split(r"^# -+ .*$", CARDS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(sections) == 3
    for section in sections:
        majors = [int(table["compute_capability"].split(".")[0]) for table in tomllib.loads(section).values()]
        assert majors == sorted(majors, reverse=True)


@pytest.mark.parametrize("name", TABLES)
def test_every_card_has_a_capacity_with_a_source(name: str) -> None:
    card, table = load_device(name), TABLES[name]
    assert (card.name, card.backend, card.threads) == (name, "cuda", 0)
    nominal = table["nominal_gb"] * 2**30
    assert 0.9 * nominal < card.capacity_bytes < nominal
    assert card.description.startswith("NVIDIA ")
    assert re.fullmatch(r"\d{1,2}\.\d", card.compute_capability)
    assert 10 <= card.multiprocessors <= 192
    if table.get("nominal"):
        assert card.source.startswith("nominal; no driver reading")
    else:
        assert re.search(r"https://github\.com/|torchcodec documentation", card.source)
    sizes = [int(part[:-2]) for part in name.split("-") if part.endswith("gb")]
    assert sizes in ([], [table["nominal_gb"]])


def test_nominal_figures_are_those_of_another_card() -> None:
    read = {table["capacity_bytes"] for table in TABLES.values() if "nominal" not in table}
    read.add(15_808 * 2**20)  # the RTX 5070 Ti's own, whose source has no address
    read.add(25_286_672_384)  # an RTX 3090's
    for table in TABLES.values():
        assert "nominal" not in table or table["capacity_bytes"] in read


def test_the_capacities_of_the_projects_own_notes() -> None:
    assert round(load_device("h100-80gb").capacity_bytes / 2**30, 1) == 79.2
    assert load_device("t4").capacity_bytes == 14_912 * 2**20
    assert load_device("H100-80GB") == load_device("h100-80gb")


@pytest.mark.parametrize(
    ("name", "compute_capability", "multiprocessors"),
    [("h100-80gb", "9.0", 132), ("h100-pcie-80gb", "9.0", 114), ("a100-40gb", "8.0", 108), ("rtx-4090", "8.9", 128),
     ("t4", "7.5", 40), ("v100-16gb", "7.0", 80), ("b200", "10.0", 148), ("rtx-5090", "12.0", 170)],
)  # fmt: skip
def test_what_kernels_depend_on(name: str, compute_capability: str, multiprocessors: int) -> None:
    card = load_device(name)
    assert (card.compute_capability, card.multiprocessors) == (compute_capability, multiprocessors)


def test_cards_by_the_drivers_name() -> None:
    def named(name: str, capacity: int = 0) -> str | None:
        card = card_named(name, capacity)
        return None if card is None else card.name

    assert named("NVIDIA H100 80GB HBM3") == "h100-80gb"
    assert named("NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert named("Tesla T4") == "t4"
    assert named("NVIDIA GeForce RTX 4060 Ti", 8_188 * 2**20) == "rtx-4060-ti-8gb"
    assert named("NVIDIA GeForce RTX 4060 Ti", 16_380 * 2**20) == "rtx-4060-ti-16gb"
    assert named("NVIDIA") is None


def test_unknown_cards_get_the_nearest() -> None:
    with refused("device: 'h100' is not known", 'did you mean "h100-80gb"?', "h100-pcie-80gb, h100-nvl-94gb"):
        load_device("h100")
    with refused("device: 'rtx4090' is not known", 'did you mean "rtx-4090"?', "`memplan devices`"):
        load_device("rtx4090")
    with refused("device: '' is not known", f"the {len(TABLES)} cards"):
        load_device("")


@pytest.mark.parametrize("name", ["local", "LOCAL:1"])
def test_the_local_card_is_the_drivers_business(name: str) -> None:
    with refused("only its driver knows", "memplan.measure.local.load_device"):
        load_device(name)


@pytest.mark.parametrize("name", [None, 3, ["cpu"]])
def test_a_device_is_named_by_text(name: Any) -> None:
    with refused("device: must be a name"):
        load_device(name)


def test_a_record_makes_the_kind_of_device_it_was_made_of() -> None:
    card, cpu = load_device("h100-80gb"), load_device("cpu")
    assert isinstance(card, Card)
    assert not isinstance(cpu, Card)
    assert Device(**fields(card)) == card
    assert Device(**fields(cpu)) == cpu
    old = Device(name="a100", backend="cuda", capacity_bytes=7)  # a record of before the fields of Card
    assert (type(old), old.compute_capability, old.context_bytes) == (Card, "", 0)


def test_the_cpus_record_has_no_fields_of_a_card() -> None:
    cpu = load_device("cpu")
    assert list(fields(cpu)) == ["name", "backend", "capacity_bytes", "threads", "description", "source"]
    assert (cpu.compute_capability, cpu.multiprocessors, cpu.used_by_others_bytes) == ("", 0, 0)
    with pytest.raises(TypeError):
        Device(name="cpu", backend="cpu", multiprocessors=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["cpu", "l4"])
def test_a_device_can_be_copied(name: str) -> None:
    device = load_device(name)
    for twin in (copy.copy(device), copy.deepcopy(device), pickle.loads(pickle.dumps(device))):
        assert twin == device
        assert hash(twin) == hash(device)
    assert dataclasses.replace(device, name="other").backend == device.backend


def test_what_others_hold_cannot_be_had() -> None:
    card = dataclasses.replace(load_device("l4"), used_by_others_bytes=2**30)
    assert card.available_bytes == card.capacity_bytes - 2**30
    assert dataclasses.replace(card, used_by_others_bytes=2**60).available_bytes == 0


def test_the_catalogue_is_read_by_the_fast_reader() -> None:
    read = shipped.read_tables(str(CARDS))
    assert {name: table for name, table in read.items() if name} == TABLES
