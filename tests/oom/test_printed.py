"""A printed size stands for just those bytes that PyTorch prints so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.oom.printed import Printed, printed, spelled

SIZES = st.one_of(
    st.integers(0, 2**12),
    st.integers(2**20 - 2**12, 2**20 + 2**12),
    st.integers(2**30 - 2**22, 2**30 + 2**22),
    st.integers(0, 2**38),
    st.integers(0, 37).map(lambda bits: 1 << bits),
)


def of(text: str) -> Printed:
    found = printed(*text.split())
    assert found is not None
    return found


@given(SIZES)
def test_the_range_is_that_of_all_sizes_that_print_so(size: int) -> None:
    text = spelled(size)
    found = of(text)
    assert size in found
    assert found.text == text
    # The ends may be ties, which print either way; beyond them nothing does.
    assert found.low == 0 or spelled(found.low - 1) != text
    assert spelled(found.high + 1) != text
    assert spelled(min(found.low + 1, found.high)) == text
    assert spelled(max(found.high - 1, found.low)) == text


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0 bytes", 0, 0),
        ("1024 bytes", 1024, 1024),
        ("1024.00 MiB", 2**30 - 5242, 2**30),
        ("1.00 GiB", 2**30 + 1, 2**30 + 5368709),
        ("2.00 GiB", 2**31 - 5368709, 2**31 + 5368709),
        ("2 GiB", 3 * 2**29, 5 * 2**29),
        ("2.0 KiB", 1997, 2099),
    ],
)
def test_known_ranges(text: str, low: int, high: int) -> None:
    assert (of(text).low, of(text).high) == (low, high)


def test_the_units_of_mps_are_binary_and_in_single_precision() -> None:
    gigabytes, gibibytes = of("8.89 GB"), of("8.89 GiB")
    assert gigabytes.low < gibibytes.low and gibibytes.high < gigabytes.high
    assert gigabytes.high - gibibytes.high < 2**12


def test_what_the_driver_does_not_know_is_no_size() -> None:
    assert printed("17179869184.00", "GiB") is None
    assert printed("18446744073709551615", "bytes") is None


def test_distance() -> None:
    size = Printed("", 10, 20)
    assert [size.distance(each) for each in (7, 10, 15, 20, 24)] == [-3, 0, 0, 0, 4]
    assert size.middle == 15 and not size.exact
