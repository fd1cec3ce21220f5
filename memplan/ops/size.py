"""Numbers that know their names, so that the ledger can spell formulas."""

from __future__ import annotations

from collections.abc import Iterable


class Size(int):
    """An integer with a name. Arithmetic gives plain integers; shapes carry the named ones along."""

    name: str

    def __new__(cls, value: int, name: str) -> Size:
        if type(value) is not int and hasattr(value, "named"):  # one that knows more of itself (symbols.py)
            named: Size = value.named(name)
            return named
        size = super().__new__(cls, value)
        size.name = name
        return size


def spell(size: int) -> str:
    """The name of a size, or its digits."""
    return size.name if isinstance(size, Size) else str(size)


def product(sizes: Iterable[int]) -> Size:
    """A product that is spelled out."""
    value = 1
    names = []
    for size in sizes:
        value *= size
        names.append(spell(size))
    return Size(value, " * ".join(names))
