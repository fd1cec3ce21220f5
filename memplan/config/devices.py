"""Devices by name: the CPU with a number of threads, or a card of the catalogue in cards.toml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memplan.config.device import DEFAULT_CPU_THREADS, Device
from memplan.config.fields import did_you_mean, show
from memplan.config.shipped import Table, read_tables
from memplan.errors import ConfigurationError

if TYPE_CHECKING:
    from memplan.config.card import Card

_MOST_THREADS = 2**31 - 1
"""`torch.set_num_threads` takes a C int."""


def names() -> tuple[str, ...]:
    """Every name `load_device` knows, the CPU first."""
    return ("cpu", *_cards())


def load_device(name: str) -> Device:
    """The device of that name: `cpu`, `cpu:8` for eight threads, or a card such as `h100-80gb`.

    `local` needs the driver, which the configuration knows nothing of: memplan.measure.local.load_device knows it too.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"device: must be a name such as cpu or h100-80gb, not {show(name)}")
    wanted = name.strip().lower()
    kind, colon, threads = wanted.partition(":")
    if kind == "cpu":
        return _cpu(_threads(threads, name) if colon else DEFAULT_CPU_THREADS)
    if kind == "local":
        raise ConfigurationError(
            f"device: {show(name)} is a card of this machine, which only its driver knows",
            "memplan.measure.local.load_device reads it, or name a card of the catalogue",
        )
    cards = _cards()
    if wanted not in cards:
        known = ["cpu", "local", *cards]
        raise ConfigurationError(
            f"device: {show(name)} is not known{did_you_mean(wanted, known)}", _known(wanted, cards)
        )
    return _card(wanted, cards[wanted])


def catalogue() -> tuple[Card, ...]:
    """Every card of the catalogue, in its order: data centre, workstation, consumer, each with the newest first."""
    return tuple(_card(name, table) for name, table in _cards().items())


def card_named(driver_name: str, capacity_bytes: int) -> Card | None:
    """The card of the catalogue that the driver calls `driver_name`; of several sizes the one nearest `capacity_bytes`.

    None where the catalogue has no such card.
    """
    same = [
        _card(name, table) for name, table in _cards().items() if driver_name in str(table["driver_names"]).split(", ")
    ]
    return min(same, key=lambda card: abs(card.capacity_bytes - capacity_bytes), default=None)


def _cards() -> dict[str, Table]:
    tables = read_tables(os.path.join(os.path.dirname(__file__), "cards.toml"))
    return {name: table for name, table in tables.items() if name}


def _card(name: str, table: Table) -> Card:
    from memplan.config.card import Card  # takes a millisecond, and the CPU does without

    return Card(
        name=name,
        backend="cuda",
        capacity_bytes=int(table["capacity_bytes"]),
        description=str(table["description"]),
        source=str(table["source"]),
        compute_capability=str(table["compute_capability"]),
        multiprocessors=int(table["multiprocessors"]),
    )


def _known(wanted: str, cards: dict[str, Table]) -> str:
    """What can be asked for. There are too many cards to name but those that the word is part of."""
    alike = [name for name in cards if wanted and wanted in name]
    among_them = f", among them {', '.join(alike)}" if alike else ""
    return f"known are cpu, cpu:<threads>, local, and the {len(cards)} cards that `memplan devices` lists{among_them}"


def _cpu(threads: int) -> Device:
    plain = threads == DEFAULT_CPU_THREADS
    return Device(
        name="cpu" if plain else f"cpu:{threads}",
        backend="cpu",
        threads=threads,
        description=f"CPU, {threads} {'thread' if threads == 1 else 'threads'}",
    )


def _threads(text: str, name: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= 10  # ten digits hold every C int
    if not digits or not 1 <= int(text) <= _MOST_THREADS:
        raise ConfigurationError(f"device: {show(name)} asks for no possible number of threads; cpu:8 asks for eight")
    return int(text)
