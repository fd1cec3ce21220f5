"""From a tensor's size to the segment that a message names, and back: held against the allocator itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.allocator import CachingAllocator, Settings, parse_settings
from memplan.oom.asking import Asking, tensor_sizes
from memplan.oom.parse import parse
from memplan.oom.printed import spelled

MIB = 2**20
SIZES = st.one_of(
    st.integers(1, 3 * MIB),
    st.integers(9 * MIB, 24 * MIB),
    st.integers(1, 2**36),
    st.integers(1, 4096).map(MIB.__mul__),
)


def caching(asked: str, cached: bool = False) -> Asking:
    end = "; 1.00 MiB cached)" if cached else ""
    message = parse(f"CUDA out of memory. Tried to allocate {asked} (GPU 0; 8.00 GiB total capacity{end}", 1)
    assert message is not None
    return Asking(message)


def asked_of_the_driver(size: int, chosen: Settings | None = None) -> int:
    """What an empty allocator takes from the driver for one tensor."""
    allocator = CachingAllocator(chosen)
    allocator.allocate(size)
    return allocator.reserved


@given(SIZES)
def test_a_tensor_matches_what_the_allocator_asks_for_it(size: int) -> None:
    text = spelled(asked_of_the_driver(size))
    asking = caching(text)
    assert asking.matches(size)
    message = parse(f"CUDA out of memory. Tried to allocate {text}. GPU 0 has a total capacity of 8.00 GiB", 1)
    assert message is not None
    assert any(sizes.low <= size <= sizes.high for sizes in tensor_sizes(message))


@settings(max_examples=300)
@given(SIZES, st.integers(-3, 3))
def test_the_sizes_of_a_message_are_just_those_that_match(size: int, off: int) -> None:
    text = spelled(asked_of_the_driver(size))
    message = parse(f"CUDA out of memory. Tried to allocate {text}. GPU 0 has a total capacity of 8.00 GiB", 1)
    assert message is not None
    asking = Asking(message)
    for sizes in tensor_sizes(message):
        for edge in (sizes.low + off, sizes.high + off):
            within = any(each.low <= edge <= each.high for each in tensor_sizes(message))
            assert asking.matches(edge) == within, (text, edge)


def test_with_other_settings_other_tensors_match() -> None:
    chosen = parse_settings("roundup_power2_divisions:4,large_segment_size_mb:64")
    size = 300 * MIB
    message = parse(f"CUDA out of memory. Tried to allocate {spelled(asked_of_the_driver(size, chosen))} (GPU 0;", 1)
    assert message is not None
    assert Asking(message, chosen).matches(size) and not Asking(message).matches(size)


def test_early_releases_rounded_to_128_kib() -> None:
    early = caching("12.50 MiB", cached=True)
    assert early.matches(12 * MIB + 400 * 1024) and not early.matches(12 * MIB)
    # What later ones do is possible with the same wording.
    later = caching("32.00 MiB", cached=True)
    assert later.matches(30 * MIB + 1) and later.matches(32 * MIB) and not later.matches(30 * MIB)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12345 bytes.", 12345, 12345),
        ("not enough memory: you tried to allocate 2GB. Buy new RAM!", 2**31, 3 * 2**30 - 1),
        # Half a hundredth of a MB either way, and what single precision loses.
        ("MPS backend out of memory. Tried to allocate 768.00 MB on private pool", 805301031, 805311706),
    ],
)
def test_others_say_the_size_itself(text: str, low: int, high: int) -> None:
    message = parse(text, 1)
    assert message is not None
    (sizes,) = tensor_sizes(message)
    assert (sizes.low, sizes.high) == (low, high)
    assert Asking(message).matches(low) and not Asking(message).matches(high + 1)


def test_elements() -> None:
    message = parse("DefaultCPUAllocator: not enough memory: you tried to allocate 4002 bytes.", 1)
    assert message is not None
    (sizes,) = tensor_sizes(message)
    assert sizes.elements(2) == (2001, 2001) and sizes.elements(4) is None
