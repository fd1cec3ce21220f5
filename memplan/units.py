"""Bytes, and the two families of units a reader meets. Sizes are integers of bytes everywhere inside."""

from __future__ import annotations

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12

ITEM_BYTES = {
    "fp32": 4, "bf16": 2, "fp16": 2, "int64": 8, "bool": 1, "uint8": 1, "fp64": 8, "int32": 4,
    "int16": 2, "int8": 1, "fp8": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of one element by dtype name."""


def human(size: int) -> str:
    """`size` bytes in the largest binary unit that keeps the number at least 1: `9.31 GiB`, `512 B`."""
    magnitude = abs(size)
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if magnitude >= unit:
            return f"{size / unit:,.2f} {name}"
    return f"{size:,} B"
