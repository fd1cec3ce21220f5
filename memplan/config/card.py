"""A card: what a device knows beyond the CPU."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.config.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Card(Device):
    """An NVIDIA card, or a MIG slice of one. What is left at its default is not known."""

    compute_capability: str = ""  # as NVIDIA writes it: "9.0"
    multiprocessors: int = 0
    context_bytes: int = 0  # what a process holds beside the allocator's segments, where that was measured
    used_by_others_bytes: int = 0  # of the capacity, at the moment the card was read; `local` only
