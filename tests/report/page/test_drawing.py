"""Paths, ticks and places of text: the small things that a chart is made of."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from memplan.report.page.drawing import DENSITY, NOTHING, area, columns, levels, line, number, ticks
from memplan.report.page.labels import GAP, inside, packed, width_of, wrapped
from memplan.report.page.spans import Segment


def test_a_cell_covers_its_columns() -> None:
    segment = Segment("forward", 0, 2, 0.0, 2.0)
    assert columns([segment], [5, 9], 0.0, 2.0, 2) == [0, 0, 1, 1]
    assert columns([segment], [5, 9], 0.0, 4.0, 2) == [0, 1, NOTHING, NOTHING]


def test_where_cells_share_a_column_the_most_bytes_are_drawn() -> None:
    segment = Segment("forward", 0, 8, 0.0, 1.0)
    assert columns([segment], [1, 2, 9, 3, 4, 8, 8, 5], 0.0, 1.0, 1) == [2, 5]


def test_closer_only_what_is_in_view_is_drawn() -> None:
    segment = Segment("forward", 0, 10, 0.0, 1.0)
    assert columns([segment], list(range(10)), 0.2, 0.4, 1) == [2, 3]


def test_no_cell_and_no_width_is_lost() -> None:
    narrow = Segment("loss", 3, 6, 1.0, 1.0)  # no width at all
    wide = [Segment("forward", 0, 3, 0.0, 1.0), narrow, Segment("backward", 6, 7, 1.0, 2.0)]
    drawn = columns(wide, [1, 1, 1, 50, 90, 60, 1], 0.0, 2.0, 10)
    assert 4 in drawn and set(drawn) == {0, 1, 2, 4, 6}


@given(st.floats(-1e4, 1e6))
def test_a_coordinate_is_rounded_to_a_tenth(value: float) -> None:
    written = number(value)
    assert re.fullmatch(r"-?\d+(\.[1-9])?", written)
    assert abs(float(written) - value) <= 0.05 + 1e-9 * abs(value)


def test_paths() -> None:
    ups = [10.0, 10.0, 20.0, 20.0, None, None, 5.0, 5.0]
    assert area(ups, 100, 50) == "M100 50V40H101V30H102V50ZM103 50V45H104V50Z"
    assert line(ups, 100, 50) == "M100 40H101V30H102M103 45H104"
    assert area([], 0, 50) == line([], 0, 50) == area([None] * 4, 0, 50) == ""


def test_levels_stay_within_the_plot() -> None:
    assert levels([0, 1, 2, NOTHING, 3], [0, 50, 100, 300], 0, 200, 10) == [0.0, 2.5, 5.0, None, 10.0]
    assert levels([0, 1], [90, 150], 100, 200, 10) == [0.0, 5.0]


def test_ticks_are_round() -> None:
    assert [text for _, text in ticks(0, 3 * 2**30)] == [
        "0.0 GiB",
        "0.5 GiB",
        "1.0 GiB",
        "1.5 GiB",
        "2.0 GiB",
        "2.5 GiB",
        "3.0 GiB",
    ]
    assert ticks(0, 10) == [(0, "0 B"), (2, "2 B"), (4, "4 B"), (6, "6 B"), (8, "8 B"), (10, "10 B")]
    assert [text for _, text in ticks(71 * 2**30, 73 * 2**30)][:2] == ["71.0 GiB", "71.5 GiB"]


@given(st.integers(0, 2**45), st.integers(1, 2**45))
def test_ticks_lie_within_and_are_few(low: int, span: int) -> None:
    found = ticks(low, low + span)
    places = [place for place, _ in found]
    assert places == sorted(set(places)) and len(found) <= 7
    assert len({text for _, text in found}) == len(found)
    assert all(low <= place * (1 + 1e-12) and place <= (low + span) * (1 + 1e-12) for place in places)


WORDS = st.text("abcdefghij_", min_size=1, max_size=16)


@given(st.lists(st.tuples(WORDS, st.floats(0, 500)), max_size=12))
def test_labels_do_not_touch(wanted: list[tuple[str, float]]) -> None:
    wanted.sort(key=lambda each: each[1])
    found = packed(wanted, 50, 450)
    assert len(found) == len(wanted)
    placed = [label for label in found if label is not None]
    for label in placed:
        half = width_of(label.text) / 2
        assert label.x - half >= 50 - 1e-6 and label.x + half <= 450 + 1e-6
    for row in {label.row for label in placed}:
        ends = [
            (label.x - width_of(label.text) / 2, label.x + width_of(label.text) / 2)
            for label in placed
            if label.row == row
        ]
        assert all(left >= right + GAP - 1e-6 for (_, right), (left, _) in pairwise(ends))


@given(st.text("ab .:[]", max_size=80), st.floats(20, 400))
def test_wrapping_loses_nothing(text: str, width: float) -> None:
    lines = wrapped(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width_of(each) <= max(width, width_of("x" * 8)) for each in lines)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), WORDS)
def test_a_name_inside_a_band_stays_inside(thick: list[float], text: str) -> None:
    lower = [20.0] * len(thick)
    upper: list[float | None] = [20 + each for each in thick]
    place = inside(text, lower, upper)
    if place is None:
        return
    x, middle = place
    first, last = math.floor((x - width_of(text) / 2) * DENSITY), math.ceil((x + width_of(text) / 2) * DENSITY)
    assert first >= 0 and last <= len(thick)
    assert all(middle + 7 <= 20 + each and middle - 7 >= 20 for each in thick[first:last])
