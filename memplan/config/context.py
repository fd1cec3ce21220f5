"""What the driver counts for a process beside the allocator's segments: context, kernels, libraries."""

from __future__ import annotations

import os

from memplan.config.device import Device
from memplan.config.shipped import Table, read_tables
from memplan.units import MIB


class Context:
    """An estimate of it, in bytes: the range of the readings it stands on, the figure to reckon with (`bytes`, never
    below the range's upper end where nothing was measured), the most that was read on any card where this one was not
    measured (`widest`), and what it is based on."""

    __slots__ = ("basis", "bytes", "high", "low", "widest")

    def __init__(self, low: int, high: int, basis: str, widest: int = 0) -> None:
        self.low = low
        self.high = high
        self.bytes = high
        self.basis = basis
        self.widest = max(widest, high)

    def __repr__(self) -> str:
        return f"Context(low={self.low}, high={self.high}, bytes={self.bytes}, basis={self.basis!r})"


def context_of(device: Device) -> Context:
    """The context of a process that runs a model on a card.

    A measurement on the card itself (`device.context_bytes`) wins; else the published readings of contexts.toml for its
    compute capability; else those for the same major number; else those for every card. Readings of processes that
    load kernels lazily win over older ones. The upper end of what was read is taken.
    Known limitations: one process on one card, so no NCCL; what further libraries take for themselves is not in it.
    """
    if device.context_bytes:
        measured = device.context_bytes
        return Context(measured, measured, f"{measured / MIB:,.0f} MiB measured on this card")
    readings = _readings()
    lazy = [table for table in readings if table["loading"] == "lazy"]
    family = device.compute_capability
    major = family.partition(".")[0]
    for some, whose in (
        ([table for table in lazy if table["compute_capability"] == family], f"of compute capability {family}"),
        ([table for table in readings if table["compute_capability"] == family], f"of compute capability {family}"),
        ([table for table in lazy if _major(table) == major], f"of compute capability {major}.x"),
    ):
        if some:
            return _range(some, whose, readings)
    return _range(lazy, "of any card", readings)


def _range(readings: list[Table], whose: str, every: list[Table]) -> Context:
    low = min(int(table["low_bytes"]) for table in readings)
    high = max(int(table["high_bytes"]) for table in readings)
    count = f"{len(readings)} published {'reading' if len(readings) == 1 else 'readings'} {whose}"
    eager = "" if all(table["loading"] == "lazy" for table in readings) else ", with every kernel loaded at the start"
    basis = f"{count}{eager}: {low / MIB:,.0f} to {high / MIB:,.0f} MiB, of which the most; not measured on this card"
    return Context(low, high, basis, max(int(table["high_bytes"]) for table in every))


def _major(table: Table) -> str:
    return str(table["compute_capability"]).partition(".")[0]


def _readings() -> list[Table]:
    tables = read_tables(os.path.join(os.path.dirname(__file__), "contexts.toml"))
    return [table for name, table in tables.items() if name]
