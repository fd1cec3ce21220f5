"""Millions of combinations at once: peaks of the allocated tier on the CPU as arrays.

One trace with symbols (memplan/ops/symbols.py) says what every combination needs for which it would have gone the same
way. So: trace in the middle of what is left, take all that goes the same way, and go on until nothing is left. The peak
is then the largest of some polynomials, of which only those matter that no other one is above everywhere.

Needs numpy.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memplan.config.run import TrainingRun
from memplan.config.validate import validate_model, validate_run
from memplan.errors import ConfigurationError, MissingDependencyError, NotModelledError
from memplan.estimate import backend_of, trace
from memplan.ops import layout
from memplan.ops.symbols import Polynomial, Term, Unknowns, polynomial

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.ledger import Ledger

    Array = Any

SIZES = ("micro_batch_size", "sequence_length", "source_length", "target_length")
"""Settings that may be arrays."""

COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le}
MOST_REGIONS = 400
LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class Prices:
    """Bytes at the peak by combination: an array with a dimension for each of `sizes`, in their order; -1 where the
    combination cannot be had. `regions` is how many traces it took."""

    sizes: tuple[str, ...]
    bytes: Array
    regions: int


def price(model: Model, run: TrainingRun, device: Device, sizes: Mapping[str, Sequence[int]]) -> Prices:
    """The peak of a training step for every combination of `sizes` (values of SIZES), laid over `run`: the same bytes
    as `estimate` gives one by one.

    Raises ConfigurationError for sizes that are none, NotModelledError for a card and for what cannot be traced with
    symbols, MissingDependencyError without numpy.
    """
    try:
        import numpy
    except ImportError as error:
        raise MissingDependencyError("sizes as arrays need numpy", "pip install numpy") from error
    if device.backend != "cpu":
        raise NotModelledError(
            f"sizes as arrays on {device.name}: what a card reserves depends on the order of things", "use --device cpu"
        )
    model = validate_model(model)
    names = tuple(sizes)
    for name, values in sizes.items():
        if name not in SIZES or not len(values) or min(values) < 1:
            raise ConfigurationError(f"sizes: {name!a} must be one of {', '.join(SIZES)}, with values of at least 1")
    axes = [numpy.asarray(values, dtype=numpy.int64) for values in sizes.values()]
    result = numpy.full([len(axis) for axis in axes], -1, dtype=numpy.int64)
    left = _possible(numpy, model, run, device, names, axes)
    regions = 0
    while left.any():
        regions += 1
        if regions > MOST_REGIONS:
            raise NotModelledError("sizes as arrays: the sizes go too many different ways", "estimate them one by one")
        places = numpy.argwhere(left)
        place = places[len(places) // 2]
        chosen = {name: int(axis[index]) for name, axis, index in zip(names, axes, place, strict=True)}
        region = _Region(numpy, model, run, device, chosen)
        grids = numpy.ix_(*axes)
        same = region.covers(grids) & left
        if not same[tuple(place)]:
            raise NotModelledError("sizes as arrays: a trace does not cover itself")
        region.price(grids, same, result)
        left &= ~same
    return Prices(names, result, regions)


def _possible(
    numpy: Any, model: Model, run: TrainingRun, device: Device, names: tuple[str, ...], axes: list[Array]
) -> Array:
    """Which combinations can be had. What a size may be does not depend on the others."""
    possible = numpy.ones([len(axis) for axis in axes], dtype=bool)
    first = {name: int(axis[0]) for name, axis in zip(names, axes, strict=True)}
    for dimension, (name, axis) in enumerate(zip(names, axes, strict=True)):
        sound = []
        for value in axis:
            try:
                validate_run(model, _with(run, {**first, name: int(value)}), device)
            except ConfigurationError:
                sound.append(False)
            else:
                sound.append(True)
        shape = [1] * len(axes)
        shape[dimension] = len(axis)
        possible &= numpy.array(sound).reshape(shape)
    return possible


def _with(run: TrainingRun, sizes: Mapping[str, int]) -> TrainingRun:
    changes: dict[str, Any] = dict(sizes)
    return replace(run, **changes)


class _Region:
    """One trace: the polynomials of its peaks, and where they hold."""

    def __init__(self, numpy: Any, model: Model, run: TrainingRun, device: Device, values: Mapping[str, int]) -> None:
        self.numpy = numpy
        self.names = list(values)
        self.unknowns = Unknowns()
        plain = validate_run(model, _with(run, values), device)
        symbols = {name: self.unknowns.symbol(name, value) for name, value in values.items()}
        with _fresh_answers():
            try:
                ledger = trace(model, _with(plain, symbols), backend_of(device))
                self.terms, self.peaks = _peaks(numpy, ledger, self.unknowns)
            except TypeError as error:
                raise NotModelledError(f"sizes as arrays: {error}") from error
        self.conditions = list(self.unknowns.conditions.items())
        self.known: dict[int, Array] = {}

    def covers(self, grids: Sequence[Array]) -> Array:
        """Where every comparison comes out as it did."""
        self.known = dict(enumerate(grids))
        numpy = self.numpy
        holds = numpy.ones([axis.size for axis in grids], dtype=bool)
        for (kind, difference), outcome in self.conditions:
            value = self.evaluate(dict(difference))
            compared = (
                value == 0 if kind == "==" else value != 0 if kind == "!=" else value < 0 if kind == "<" else value <= 0
            )
            holds &= compared == outcome
        return holds

    def evaluate(self, terms: Polynomial) -> Array:
        """A polynomial over the grid, as small as its unknowns allow."""
        total: Array = 0
        for term, factor in terms.items():
            total = total + factor * self.product(term)
        return total

    def product(self, term: Term) -> Array:
        value: Array = 1
        for unknown in term:
            value = value * self.unknown(unknown)
        return value

    def unknown(self, number: int) -> Array:
        if number not in self.known:
            above, below, sign = self.unknowns.quotients[number]
            self.known[number] = (sign or 1) * (self.evaluate(above) // self.evaluate(below))
        return self.known[number]

    def price(self, grids: Sequence[Array], where: Array, result: Array) -> None:
        """Fill in the peaks there."""
        numpy = self.numpy
        columns = [numpy.broadcast_to(self.product(term), where.shape)[where] for term in self.terms]
        highest = None
        bound = 0.0
        for row in self.peaks:
            value: Array = 0
            for factor, column in zip(row, columns, strict=True):
                if factor:
                    value = value + int(factor) * column
            highest = value if highest is None else numpy.maximum(highest, value)
            bound = max(bound, sum(abs(float(f)) * float(c.max(initial=0)) for f, c in zip(row, columns, strict=True)))
        if bound > LARGEST:
            raise NotModelledError("sizes as arrays: the bytes do not fit 64 bits")
        result[where] = highest


@contextmanager
def _fresh_answers() -> Iterator[None]:
    """Kept answers hold the sizes they were asked with, so none may come in, and none go out."""
    layout.forget()
    try:
        yield
    finally:
        layout.forget()


def _peaks(numpy: Any, ledger: Ledger, unknowns: Unknowns) -> tuple[list[Term], Array]:
    """Every height that the alive bytes can have right after a birth, as rows of factors of terms: those that no other
    row is above in every term."""
    sizes = {allocation: polynomial(allocation.size) for allocation, birth in ledger.events if birth}
    terms = sorted({term for size in sizes.values() for term in size} | {()})
    place = {term: number for number, term in enumerate(terms)}
    numbers: dict[tuple[tuple[Term, int], ...], int] = {}
    table: list[list[int]] = []
    which = []
    for allocation, birth in ledger.events:
        key = tuple(sizes[allocation].items())
        number = numbers.get(key)
        if number is None:
            number = numbers[key] = len(table)
            row = [0] * len(terms)
            for term, factor in key:
                row[place[term]] = factor
            table.append(row)
        which.append(number if birth else ~number)
    rows = numpy.array(table, dtype=numpy.int64)
    kinds = numpy.array(which, dtype=numpy.int64)
    births = kinds >= 0
    changes = numpy.where(births[:, None], rows[kinds], -rows[numpy.where(births, 0, ~kinds)])
    alive = numpy.zeros(len(terms), dtype=numpy.int64)
    heights = []
    for segment in ledger.segments:
        part = changes[segment.start : segment.stop]
        if not len(part):
            continue
        running = numpy.cumsum(part, axis=0)
        net = running[-1]
        if segment.phase != "initial":
            tops = running[births[segment.start : segment.stop]]
            for index in {0, segment.copies - 1}:
                heights.append(alive + index * net)
                heights.append(alive + index * net + tops)
        alive = alive + segment.copies * net
    both = {number for number, (_, _, sign) in unknowns.quotients.items() if not sign}
    signed = numpy.array([both.isdisjoint(term) for term in terms])
    return terms, _highest(numpy, numpy.unique(numpy.vstack(heights), axis=0), signed)


def _highest(numpy: Any, rows: Array, signed: Array) -> Array:
    """Rows that no other row is at least as large as in every column whose terms are at least 0 (`signed`), and equal
    to in the others."""
    kept = []
    order = numpy.argsort(-rows.astype(float).sum(axis=1))
    rows = rows[order]
    while len(rows):
        first = rows[0]
        kept.append(first)
        below = (rows[:, signed] <= first[signed]).all(axis=1) & (rows[:, ~signed] == first[~signed]).all(axis=1)
        rows = rows[~below]
    return numpy.array(kept)
