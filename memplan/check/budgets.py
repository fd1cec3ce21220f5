"""Sizes as people write them: with a unit, always."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memplan.config.fields import show
from memplan.errors import ConfigurationError, nearest
from memplan.units import GB, GIB, KB, KIB, MB, MIB, TB, TIB

UNITS = {
    "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "kB": KB, "MB": MB, "GB": GB, "TB": TB,
}  # fmt: skip

_WRITTEN = re.compile(r"\s*([0-9]+(?:[._][0-9]+)*)\s*([A-Za-z%]*)\s*\Z")
_LOOSE = {"k": "KiB or kB", "m": "MiB or MB", "g": "GiB or GB", "t": "TiB or TB"}

PARTS = 10**6
"""Shares are held as whole numbers of millionths, so that no rounding differs between machines."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Either so many bytes, or a share in millionths; `text` is how it was written."""

    text: str
    size: int = 0
    share: int = 0

    def of(self, whole: int) -> int:
        """In bytes; a share is taken of `whole`."""
        return whole * self.share // PARTS if self.share else self.size

    @property
    def possible(self) -> bool:
        """Whether it can be a part of something: no share of more than all of it."""
        return self.share <= PARTS


def parse_amount(value: object, shares: bool = True, zero: bool = False) -> Amount:
    """`"24 GiB"`, or `"90 %"` where shares are allowed, and nothing at all where `zero` is. Raises ConfigurationError
    that says what would be right."""
    examples = '"24 GiB" or "90 %"' if shares else '"24 GiB"'
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ConfigurationError(
            f"must have a unit, not the bare number {show(value)}: 24 GiB are not 24 GB", f"write {examples}"
        )
    found = _WRITTEN.match(value) if isinstance(value, str) else None
    if found is None:
        raise ConfigurationError(f"must be a size with a unit, such as {examples}, not {show(value)}")
    number, unit = found.group(1).replace("_", ""), found.group(2)
    if not unit:
        raise ConfigurationError(
            f"must have a unit, not the bare number {number}: 24 GiB are not 24 GB", f"write {examples}"
        )
    if number.count(".") > 1 or len(number) > 30:
        raise ConfigurationError(f"{show(number)} is not a number")
    if unit == "%":
        if not shares:
            raise ConfigurationError(f"must be a size such as {examples}, not a share")
        return _share(str(value), number, zero)
    if unit not in UNITS:
        raise ConfigurationError(f"{unit!a} is not a unit{_meant(unit)}; units are {', '.join(UNITS)}")
    size = _times(number, UNITS[unit])
    if not size and not zero:
        raise ConfigurationError(f"must be more than 0, not {show(value)}")
    return Amount(" ".join(str(value).split()), size=size)


def named_amount(name: str, value: object, zero: bool = False) -> Amount:
    """The same; an error says which option or argument is meant."""
    try:
        return parse_amount(value, zero=zero)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error.message}", error.hint) from None


def named_budget(name: str, value: object) -> Amount:
    """The same of a budget, which is never more than the whole card."""
    amount = named_amount(name, value)
    if not amount.possible:
        raise ConfigurationError(f"{name}: must be at most 100 % of the card, not {amount.text}")
    return amount


def _share(text: str, number: str, zero: bool) -> Amount:
    share = _times(number, PARTS // 100)
    if not share and not zero:
        raise ConfigurationError(f"must be more than 0 %, not {show(text)}")
    return Amount(" ".join(text.split()), share=share)


def _times(number: str, unit: int) -> int:
    """A decimal number times a whole one, rounded down, without floating point."""
    whole, _, fraction = number.partition(".")
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def _meant(unit: str) -> str:
    if unit.lower() in _LOOSE or (unit.lower()[:1] in _LOOSE and unit.lower().endswith("b") and len(unit) == 2):
        return f"; did you mean {_LOOSE[unit.lower()[0]]}?"
    close = next((known for known in UNITS if known.lower() == unit.lower()), None) or nearest(unit, UNITS)
    return f"; did you mean {close}?" if close else ""
