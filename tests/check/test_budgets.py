"""Sizes as people write them."""

from __future__ import annotations

import pytest

from memplan.check.budgets import UNITS, parse_amount
from memplan.errors import ConfigurationError
from memplan.units import GB, GIB, MIB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24 GiB", 24 * GIB),
        ("24 GB", 24 * GB),
        ("24GiB", 24 * GIB),
        ("1.5 GiB", 3 * GIB // 2),
        ("0.1 GiB", GIB // 10),
        ("1_024 MiB", 1024 * MIB),
        ("  7 B ", 7),
        ("1 kB", 1000),
        ("0.1 B", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ConfigurationError, match="must be more than 0"):
            parse_amount(text)
    else:
        assert parse_amount(text).of(10**15) == size


@pytest.mark.parametrize(
    ("text", "whole", "size"),
    [
        ("90 %", 1000, 900),
        ("100%", 17, 17),
        ("33.3 %", 1000, 333),
        ("0.5 %", 1000, 5),
        ("90 %", 85_027_979_264, 76525181337),
    ],
)
def test_shares_are_rounded_down(text: str, whole: int, size: int) -> None:
    assert parse_amount(text).of(whole) == size


def test_every_unit_is_its_own_size() -> None:
    sizes = [parse_amount(f"3 {unit}").size for unit in UNITS]
    assert sizes == [3 * size for size in UNITS.values()]
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize(
    ("value", "wrong", "right"),
    [
        (24, "bare number 24: 24 GiB are not 24 GB", '"24 GiB" or "90 %"'),
        (1.5, "bare number 1.5", "24 GiB"),
        ("24", "bare number 24", "24 GiB"),
        ("24 gib", "'gib' is not a unit; did you mean GiB?", "KiB"),
        ("24 GIB", "did you mean GiB?", "KiB"),
        ("24 gb", "did you mean GiB or GB?", "KiB"),
        ("24 G", "did you mean GiB or GB?", "GiB"),
        ("24 m", "did you mean MiB or MB?", "GiB"),
        ("24 parsecs", "'parsecs' is not a unit", "units are B, KiB"),
        ("0 GiB", "must be more than 0", ""),
        ("0 %", "must be more than 0 %", ""),
        ("-3 GiB", "must be a size with a unit", "24 GiB"),
        ("1e3 GiB", "must be a size with a unit", "24 GiB"),
        ("1.2.3 GiB", "'1.2.3' is not a number", ""),
        (f"{'9' * 40} GiB", "is not a number", ""),
        ("", "must be a size with a unit", "24 GiB"),
        (True, "must be a size with a unit", "24 GiB"),
        (["24 GiB"], "must be a size with a unit", "a list"),
        ("\u0664 GiB", "must be a size with a unit", "24 GiB"),
    ],
)
def test_what_is_no_size_is_explained(value: object, wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_amount(value)
    assert wrong in str(caught.value)
    assert right in str(caught.value)


def test_a_share_where_none_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match="not a share"):
        parse_amount("90 %", shares=False)


def test_nothing_is_an_amount_where_it_is_asked_for() -> None:
    assert parse_amount("0 %", zero=True).of(1000) == 0
    assert parse_amount("0 B", zero=True).of(1000) == 0


def test_no_part_is_more_than_all() -> None:
    assert parse_amount("100 %").possible
    assert parse_amount("24 GiB").possible
    assert not parse_amount("100.01 %").possible
