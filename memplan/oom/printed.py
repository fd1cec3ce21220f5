"""Sizes as messages print them: two decimals of a unit, so every printed size stands for a range of bytes.

format_size of c10/cuda/CUDACachingAllocator.cpp (later c10/core/CachingDeviceAllocator.h) prints up to 1024 bytes as
bytes, up to 1 MiB in KiB, up to 1 GiB in MiB and all above in GiB. aten/src/ATen/mps/MPSAllocator.h printed the same
quotients in single precision and called them KB, MB and GB.
"""

from __future__ import annotations

from dataclasses import dataclass

from memplan.units import GIB, KIB, MIB, TIB

_UNITS = {"bytes": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB, "kb": KIB, "mb": MIB, "gb": GIB}
_SINGLE_PRECISION = frozenset({"kb", "mb", "gb"})

UNKNOWN_FROM = 1 << 56
"""No machine has so much: the driver answers with all bits set where it does not know (NVML_VALUE_NOT_AVAILABLE)."""


@dataclass(frozen=True, slots=True)
class Printed:
    """A size as it is printed, and the least and the most bytes that print so."""

    text: str
    low: int
    high: int

    @property
    def middle(self) -> int:
        """The bytes in the middle."""
        return (self.low + self.high) // 2

    @property
    def exact(self) -> bool:
        """Whether only one size prints so."""
        return self.low == self.high

    def __contains__(self, size: int) -> bool:
        return self.low <= size <= self.high

    def distance(self, size: int) -> int:
        """How many bytes `size` lies outside: 0 within, negative below."""
        return size - self.high if size > self.high else min(size - self.low, 0)


def printed(number: str, unit: str) -> Printed | None:
    """The range of `number` (digits, maybe with decimals) of `unit`; None for a size that stands for "not known".

    Both ends are included, whichever way a tie was rounded.
    """
    name = unit.lower()
    scale = _UNITS[name]
    whole, _, decimals = number.partition(".")
    text = f"{number} {unit}"
    tens: int = 10 ** len(decimals)
    value = int(whole + decimals)
    if value * scale // tens >= UNKNOWN_FROM:
        return None
    if scale == 1 and not decimals:
        return Printed(text, value, value)
    low = max(-(-(2 * value - 1) * scale // (2 * tens)), 0)
    high = (2 * value + 1) * scale // (2 * tens)
    if name in _SINGLE_PRECISION:
        low, high = low - (low >> 23), high + (high >> 23)
    # A size beyond the unit's own range would have been printed in another one.
    least, most = (scale + 1 if scale > KIB else KIB + 1), (scale * 1024 if scale < GIB else high)
    if low <= most and high >= least:
        low, high = max(low, least), min(high, most)
    return Printed(text, low, high)


def spelled(size: int) -> str:
    """`size` bytes as PyTorch prints them: `20.00 MiB`, and 1 GiB as `1024.00 MiB`."""
    if size <= KIB:
        return f"{size} bytes"
    for scale, unit in ((KIB, "KiB"), (MIB, "MiB")):
        if size <= scale * 1024:
            return f"{size / scale:.2f} {unit}"
    return f"{size / GIB:.2f} GiB"


def together(sizes: list[Printed]) -> tuple[int, int]:
    """The least and the most bytes that several printed sizes add up to."""
    return sum(size.low for size in sizes), sum(size.high for size in sizes)
