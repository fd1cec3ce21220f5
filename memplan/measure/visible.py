"""Which cards CUDA sees, and in which order: the driver's own numbering, as CUDA_VISIBLE_DEVICES changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Process(NamedTuple):
    """A process that computes on a card. `used_bytes` is None where the driver does not say."""

    pid: int
    used_bytes: int | None


class Reading(NamedTuple):
    """A card, or one MIG slice of it, at the moment it was read. Sizes in bytes.

    total = reserved + used + free. `reserved_bytes` is what the driver keeps for itself; one that does not tell it
    apart (before 510) leaves it out of the total, and it is 0 here. Total less reserved is what the CUDA runtime calls
    the card's total memory: on an L40S of 46068 MiB, 479 of them reserved, 45589 (github.com/thamada/nvidia-smi, gls/).
    """

    number: int  # of the card, in the driver's order: by PCI bus, as nvidia-smi counts
    uuid: str
    name: str
    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    free_bytes: int
    compute_capability: str
    multiprocessors: int  # 0 where the driver does not say
    processes: tuple[Process, ...]
    part_of: str = ""  # of a MIG slice: the card's uuid

    def process_bytes(self, pid: int) -> int | None:
        """What the process holds of this card; None where the driver does not list it, or does not say."""
        held = [process.used_bytes for process in self.processes if process.pid == pid]
        if not held or held[0] is None or held[0] > self.used_bytes:  # a structure misread by a mismatched driver
            return None
        return held[0]


def visible(readings: Sequence[Reading], environment: Mapping[str, str]) -> tuple[Reading, ...]:
    """What a CUDA program can have, in the order in which it counts them. All of it where CUDA_VISIBLE_DEVICES is not
    set; else what that names, by number or by the beginning of a uuid, up to the first that names nothing.

    Of a card in MIG mode that is named as a whole, CUDA sees one slice. A card named twice makes CUDA see none.
    """
    setting = environment.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return tuple(readings)
    seen: list[Reading] = []
    for word in setting.split(","):
        reading = _named(word.strip(), readings)
        if reading is None:
            break
        if reading in seen:
            return ()
        seen.append(reading)
    return tuple(seen)


def order_is_known(readings: Sequence[Reading], environment: Mapping[str, str]) -> bool:
    """Whether CUDA's numbers are the driver's. Unless told otherwise (CUDA_DEVICE_ORDER), CUDA puts the fastest card
    first, by a rule that is not published: the order is known where the cards are alike, or are named by uuid."""
    kinds = {
        reading.name.partition(" MIG ")[0] for reading in readings
    }  # a slice is named "NVIDIA A100 ... MIG 1g.5gb"
    if environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(kinds) <= 1:
        return True
    words = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    return not any(word.strip().isdigit() for word in words)


def beginning_with(uuid: str, readings: Sequence[Reading]) -> list[Reading]:
    """The cards and slices whose uuid begins so; the slices of a card that does stand for it."""
    start = uuid.lower()
    return [
        reading
        for reading in readings
        if reading.uuid.lower().startswith(start) or (reading.part_of and reading.part_of.lower().startswith(start))
    ]


def _named(word: str, readings: Sequence[Reading]) -> Reading | None:
    if word.isascii() and word.isdigit():
        return next((reading for reading in readings if reading.number == int(word)), None)
    if not word.startswith(("GPU-", "MIG-")):
        return None
    found = beginning_with(word, readings)
    cards = {reading.number for reading in found}
    return found[0] if len(cards) == 1 and (len(found) == 1 or found[0].part_of) else None
