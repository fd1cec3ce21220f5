"""Sequences side by side: as good as the textbook's table, at any size of what is kept at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memplan.explain import alignment
from memplan.explain.alignment import align, anchors, once
from memplan.explain.steps import in_steps

WORDS = st.lists(st.integers(1, 4), max_size=24)


def longest(left: list[int], right: list[int]) -> int:
    """The length of a longest common subsequence, by the table."""
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for place, other in enumerate(right, start=1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS, st.sampled_from((1, 7, 60, 1 << 28)))
def test_an_alignment_is_a_longest_common_subsequence(left: list[int], right: list[int], bits: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "MOST_BITS", bits)
        pairs = align(left, right)
    assert [left[at] for at, _ in pairs] == [right[place] for _, place in pairs]
    assert all(one[0] < other[0] and one[1] < other[1] for one, other in pairwise(pairs))
    assert len(pairs) == longest(left, right)


def test_rows_that_occur_once_are_known_again() -> None:
    known = once([1, 2, 3, 1, 2, 4], 2)
    assert known == {(2, 3): 1, (3, 1): 2, (2, 4): 4}
    assert anchors([9, 2, 3, 3, 1, 2, 4], known, 2) == [(1, 1), (3, 2), (5, 4)]


def test_steps_are_told_by_what_falls_back() -> None:
    twice = [(at, at % 10) for at in range(20)]
    assert in_steps(twice, 10) == [(at, at // 10, at % 10) for at in range(20)]


def test_a_few_places_found_elsewhere_make_no_step() -> None:
    step = [(at, at) for at in range(30)]
    strange = [(30, 4), (31, 5)]
    rest = [(at, at - 2) for at in range(32, 60)]
    found = in_steps([*step, *strange, *rest], 60)
    assert {number for _, number, _ in found} == {0}
    assert not set(strange) & {(at, place) for at, _, place in found}


def test_no_places_are_no_steps() -> None:
    assert in_steps([], 10) == []
