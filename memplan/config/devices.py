"""Devices by name: the CPU with a number of threads, or a card of the catalogue in cards.toml."""

from __future__ import annotations

import os

from memplan.config.device import DEFAULT_CPU_THREADS, Device
from memplan.config.fields import did_you_mean, show
from memplan.config.shipped import Table, read_tables
from memplan.errors import ConfigurationError, NotModelledError

_MOST_THREADS = 2**31 - 1
"""`torch.set_num_threads` takes a C int."""


def names() -> tuple[str, ...]:
    """Every name `load_device` knows, the CPU first."""
    return ("cpu", *_cards())


def load_device(name: str) -> Device:
    """The device of that name: `cpu`, `cpu:8` for eight threads, or a card such as `h100-80gb`."""
    if not isinstance(name, str):
        raise ConfigurationError(f"device: must be a name such as cpu or h100-80gb, not {show(name)}")
    wanted = name.strip().lower()
    if wanted == "local":
        raise NotModelledError("device: local is not modelled yet: it comes with CUDA support", "name a card or cpu")
    kind, colon, threads = wanted.partition(":")
    if kind == "cpu":
        return _cpu(_threads(threads, name) if colon else DEFAULT_CPU_THREADS)
    cards = _cards()
    if wanted not in cards:
        known = ["cpu", "local", *cards]
        raise ConfigurationError(f"device: {show(name)} is not known{did_you_mean(wanted, known)}", _known(cards))
    card = cards[wanted]
    return Device(
        name=wanted,
        backend="cuda",
        capacity_bytes=int(card["capacity_bytes"]),
        description=str(card["description"]),
        source=str(card["source"]),
    )


def _cards() -> dict[str, Table]:
    tables = read_tables(os.path.join(os.path.dirname(__file__), "cards.toml"))
    return {name: table for name, table in tables.items() if name}


def _known(cards: dict[str, Table]) -> str:
    return f"known are cpu, cpu:<threads>, {', '.join(cards)}"


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
