"""Devices by name."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.config.device import DEFAULT_CPU_THREADS
from memplan.config.devices import load_device, names
from memplan.errors import NotModelledError

from .conftest import refused


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


@pytest.mark.parametrize("name", [name for name in names() if name != "cpu"])
def test_every_card_has_a_capacity_with_a_source(name: str) -> None:
    card = load_device(name)
    assert (card.name, card.backend, card.threads) == (name, "cuda", 0)
    assert 8 * 2**30 < card.capacity_bytes < 256 * 2**30
    assert card.description.startswith("NVIDIA ")
    assert card.source
    nominal = [int(part[:-2]) for part in name.split("-") if part.endswith("gb")]
    assert not nominal or card.capacity_bytes < nominal[0] * 2**30


def test_the_capacities_of_the_projects_own_notes() -> None:
    assert round(load_device("h100-80gb").capacity_bytes / 2**30, 1) == 79.2
    assert load_device("t4").capacity_bytes == 14_912 * 2**20
    assert load_device("H100-80GB") == load_device("h100-80gb")


def test_unknown_cards_get_the_nearest() -> None:
    with refused("device: 'h100' is not known", 'did you mean "h100-80gb"?', "a100-40gb"):
        load_device("h100")
    with refused("device: '' is not known"):
        load_device("")


def test_the_local_card_comes_later() -> None:
    with refused("local is not modelled yet", "CUDA support", error=NotModelledError):
        load_device("local")


@pytest.mark.parametrize("name", [None, 3, ["cpu"]])
def test_a_device_is_named_by_text(name: Any) -> None:
    with refused("device: must be a name"):
        load_device(name)
