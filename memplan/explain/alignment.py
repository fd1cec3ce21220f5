"""Two sequences laid side by side: the longest common subsequence, fast enough for tens of thousands of events.

The length of the longest common subsequence of all prefixes fits in one bit for each place, and a row of bits follows
from the one before by an addition (Hyyro, "Bit-parallel LCS-length computation revisited", 2004). Python's integers are
as long as needed, so a row costs a few machine instructions for every 64 places.
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]

MOST_BITS = 1 << 28
"""Rows times places that are kept at once, in bits; larger problems are halved (Hirschberg 1975)."""


def align(left: Sequence[int], right: Sequence[int]) -> list[Pair]:
    """The places of a longest common subsequence, as pairs in rising order."""
    pairs: list[Pair] = []
    _align(left, 0, len(left), right, 0, len(right), pairs)
    return pairs


def _align(left: Sequence[int], a: int, b: int, right: Sequence[int], c: int, d: int, pairs: list[Pair]) -> None:
    """The same for left[a:b] and right[c:d]."""
    while a < b and c < d and left[a] == right[c]:
        pairs.append((a, c))
        a, c = a + 1, c + 1
    same: list[Pair] = []
    while a < b and c < d and left[b - 1] == right[d - 1]:
        b, d = b - 1, d - 1
        same.append((b, d))
    if a < b and c < d:
        if b - a == 1 or (b - a) * (d - c) <= MOST_BITS:
            _trace_back(_rows(left, a, b, right, c, d), a, b, c, d, pairs)
        else:
            middle = (a + b) // 2
            front = _lengths(_rows(left, a, middle, right, c, d, last=True)[0], d - c)
            back = _lengths(_rows(left[::-1], len(left) - b, len(left) - middle, right[::-1], len(right) - d,
                                  len(right) - c, last=True)[0], d - c)  # fmt: skip
            cut = max(range(d - c + 1), key=lambda place: front[place] + back[d - c - place])
            _align(left, a, middle, right, c, c + cut, pairs)
            _align(left, middle, b, right, c + cut, d, pairs)
    pairs.extend(reversed(same))


def _rows(left: Sequence[int], a: int, b: int, right: Sequence[int], c: int, d: int, last: bool = False) -> list[int]:
    """A row of bits for each place of left[a:b], or the last one alone. Bit j is 0 where the longest common subsequence
    with right[c : c + j + 1] is longer than that without its last place."""
    where: dict[int, int] = {}
    for place in range(d - c):
        token = right[c + place]
        where[token] = where.get(token, 0) | 1 << place
    every = (1 << (d - c)) - 1
    row = every
    rows: list[int] = []
    for place in range(a, b):
        found = where.get(left[place], 0)
        if found:
            new = row & found
            row = ((row + new) | (row - new)) & every
        if not last:
            rows.append(row)
    return [row] if last else rows


def _trace_back(rows: list[int], a: int, b: int, c: int, d: int, pairs: list[Pair]) -> None:
    found: list[Pair] = []
    i, j = b - a, d - c
    while i and j:
        if rows[i - 1] >> (j - 1) & 1:
            j -= 1
        elif i > 1 and not rows[i - 2] >> (j - 1) & 1:
            i -= 1
        else:
            i, j = i - 1, j - 1
            found.append((a + i, c + j))
    pairs.extend(reversed(found))


def _lengths(row: int, width: int) -> list[int]:
    """The length of the longest common subsequence with the first 0, 1, ..., `width` places."""
    lengths = [0]
    for place in range(width):
        lengths.append(lengths[-1] + (1 - (row >> place & 1)))
    return lengths


def once(sequence: Sequence[int], width: int) -> dict[tuple[int, ...], int]:
    """The rows of `width` tokens that a sequence has once, and where they begin."""
    places: dict[tuple[int, ...], int] = {}
    for place in range(len(sequence) - width + 1):
        words = tuple(sequence[place : place + width])
        places[words] = -1 if words in places else place
    return {words: place for words, place in places.items() if place >= 0}


def anchors(sequence: Sequence[int], known: dict[tuple[int, ...], int], width: int) -> list[Pair]:
    """The places at which the next `width` tokens are such a row, each with where the row is known from."""
    found: list[Pair] = []
    for place in range(len(sequence) - width + 1):
        other = known.get(tuple(sequence[place : place + width]))
        if other is not None:
            found.append((place, other))
    return found
