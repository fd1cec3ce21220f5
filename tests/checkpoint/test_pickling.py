"""The length of a pickle, beside the pickler's own."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.checkpoint.pickling import PickleSize
from memplan.checkpoint.saved import StateDict

SIZES = [0, 1, 2, 254, 255, 256, 257, 999, 1000, 1001, 2000, 2001]

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.lists(inner, max_size=5).map(tuple)
    ),
    max_leaves=60,
)


@given(values)
def test_any_plain_object(value: object) -> None:
    assert PickleSize.of(value).size == len(pickle.dumps(value, 2))


@pytest.mark.parametrize("count", SIZES)
def test_batches(count: int) -> None:
    numbers = list(range(count))
    for value in (numbers, dict.fromkeys(numbers), tuple(numbers), [f"name {number}" for number in numbers]):
        assert PickleSize.of(value).size == len(pickle.dumps(value, 2))


@pytest.mark.parametrize("count", SIZES)
def test_state_dicts(count: int) -> None:
    """An OrderedDict with `_metadata`, whose items come from an iterator."""
    items = {f"layers.{number}.weight": number for number in range(count)}
    metadata = {f"layers.{number}": {"version": 1} for number in range(count // 2)}
    real: OrderedDict[str, Any] = OrderedDict(items)
    real._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    expected = len(pickle.dumps(real, 2))
    assert PickleSize.of(StateDict(items, metadata)).size == expected  # type: ignore[arg-type]


def test_the_same_object_is_written_once() -> None:
    text, inner = "a text of some length", [1, 2]
    value = [text, text, inner, inner, (inner, text)]
    assert PickleSize.of(value).size == len(pickle.dumps(value, 2))
    other = [text, "".join(text)[:4] + text[4:], inner, [1, 2]]
    assert PickleSize.of(other).size == len(pickle.dumps(other, 2))


@pytest.mark.parametrize("power", [0, 1, 7, 8, 15, 16, 31, 32, 39, 40, 47, 63, 64, 2031, 2032, 2039, 2040, 2047])
def test_integers(power: int) -> None:
    for near in (-1, 0, 1):
        for number in (2**power + near, -(2**power) + near):
            assert PickleSize.of(number).size == len(pickle.dumps(number, 2)), number


def test_what_no_checkpoint_has() -> None:
    with pytest.raises(TypeError, match="no checkpoint has a set"):
        PickleSize.of({1, 2})
