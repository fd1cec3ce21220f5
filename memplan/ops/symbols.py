"""Sizes that remember how they came about, so that one trace says what many sizes need.

A Symbol is an int, and everything that runs on sizes runs on it as it is. Beside its value it carries that value as a
polynomial over unknowns (a micro-batch, a length), and every comparison that decides how the trace goes on is noted. So
the polynomials of a trace hold wherever all noted comparisons come out as they did: there the trace would have been the
same, event for event. What an int does inside Python's own C code (`range`, an index) is not seen: who traces with
symbols checks some points against traces without.
"""

from __future__ import annotations

from typing import Any

from memplan.ops.size import Size

Term = tuple[int, ...]
"""A product of unknowns by number, in ascending order; () is 1."""

Polynomial = dict[Term, int]


class Unknowns:
    """What one trace is about: the unknowns, and the comparisons it made. An unknown is given from outside, or is a
    quotient, whose parts are noted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.quotients: dict[int, tuple[Polynomial, Polynomial, int]] = {}
        """What is divided by what, and the sign by which the result is never negative (0: it can be both)."""
        self.conditions: dict[tuple[str, tuple[tuple[Term, int], ...]], bool] = {}

    def symbol(self, name: str, value: int) -> Symbol:
        """A new unknown, `value` in this trace."""
        self.names.append(name)
        return Symbol(value, name, {(len(self.names) - 1,): 1}, self)

    def note(self, kind: str, difference: Polynomial, outcome: bool) -> bool:
        """Note that `difference kind 0` came out so."""
        if any(difference):  # beyond a constant
            self.conditions[kind, tuple(sorted(difference.items()))] = outcome
        return outcome


class Symbol(Size):
    """An int that knows its polynomial. Arithmetic with ints and symbols gives symbols."""

    terms: Polynomial
    unknowns: Unknowns

    def __new__(cls, value: int, name: str, terms: Polynomial, unknowns: Unknowns) -> Symbol:
        symbol = int.__new__(cls, value)
        symbol.name, symbol.terms, symbol.unknowns = name, terms, unknowns
        return symbol

    def named(self, name: str) -> Symbol:
        """The same under another name."""
        return Symbol(int(self), name, self.terms, self.unknowns)

    def __int__(self) -> int:
        return int.__add__(self, 0)

    def _made(self, value: int, terms: Polynomial) -> Any:
        return Symbol(value, str(value), terms, self.unknowns) if any(terms) else value

    def __mul__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return self._made(int.__mul__(self, other), _times(self.terms, _terms(other)))

    __rmul__ = __mul__

    def __add__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return self._made(int.__add__(self, other), _plus(self.terms, _terms(other), 1))

    __radd__ = __add__

    def __sub__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return self._made(int.__sub__(self, other), _plus(self.terms, _terms(other), -1))

    def __rsub__(self, other: int) -> Any:
        return self._made(int.__rsub__(self, other), _plus(_terms(other), self.terms, -1))

    def __neg__(self) -> Any:
        return self._made(int.__neg__(self), {term: -factor for term, factor in self.terms.items()})

    def __floordiv__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _quotient(self.unknowns, self, other)

    def __rfloordiv__(self, other: int) -> Any:
        return _quotient(self.unknowns, other, self)

    def __mod__(self, other: int) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return self - (self // other) * other

    def __rmod__(self, other: int) -> Any:
        return other - (other // self) * self

    def __truediv__(self, other: Any) -> Any:
        raise TypeError("a size over many sizes has no fraction")

    __rtruediv__ = __pow__ = __rpow__ = __lshift__ = __rshift__ = __and__ = __or__ = __truediv__  # type: ignore[assignment]
    __divmod__ = __float__ = __truediv__  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return self.unknowns.note("!=", self.terms, int.__bool__(self))

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if not isinstance(other, int):
            return NotImplemented
        return self.unknowns.note("==", _plus(self.terms, _terms(other), -1), int.__eq__(self, other))

    def __ne__(self, other: object) -> Any:
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __lt__(self, other: int) -> Any:
        return self.unknowns.note("<", _plus(self.terms, _terms(other), -1), int.__lt__(self, other))

    def __le__(self, other: int) -> Any:
        return self.unknowns.note("<=", _plus(self.terms, _terms(other), -1), int.__le__(self, other))

    def __gt__(self, other: int) -> Any:
        return not self <= other

    def __ge__(self, other: int) -> Any:
        return not self < other

    __hash__ = int.__hash__


def polynomial(size: int) -> Polynomial:
    """The polynomial of a size, a constant for a plain one."""
    return _terms(size)


def _terms(size: int) -> Polynomial:
    return size.terms if isinstance(size, Symbol) else {(): int(size)} if size else {}


def _plus(left: Polynomial, right: Polynomial, sign: int) -> Polynomial:
    result = dict(left)
    for term, factor in right.items():
        total = result.get(term, 0) + sign * factor
        if total:
            result[term] = total
        else:
            result.pop(term, None)
    return result


def _times(left: Polynomial, right: Polynomial) -> Polynomial:
    if len(left) == 1 and len(right) == 1:
        (term, factor), (other, again) = *left.items(), *right.items()
        return {tuple(sorted(term + other)) if term and other else term or other: factor * again}
    result: Polynomial = {}
    for term, factor in left.items():
        for other, again in right.items():
            joined = tuple(sorted(term + other))
            total = result.get(joined, 0) + factor * again
            if total:
                result[joined] = total
            else:
                result.pop(joined, None)
    return result


def _quotient(unknowns: Unknowns, above: int, below: int) -> Any:
    """above // below: exact where every factor divides, else an unknown of its own."""
    value = int.__floordiv__(int(above), int(below))
    top, bottom = _terms(above), _terms(below)
    if list(bottom) == [()] and all(factor % bottom[()] == 0 for factor in top.values()):
        return Symbol(value, str(value), {term: factor // bottom[()] for term, factor in top.items()}, unknowns)
    sign = _sign(top) * _sign(bottom)
    for number, parts in unknowns.quotients.items():
        if parts == (top, bottom, sign):
            return Symbol(value, str(value), {(number,): sign or 1}, unknowns)
    unknowns.symbol("quotient", value)
    number = len(unknowns.names) - 1
    unknowns.quotients[number] = (top, bottom, sign)
    return Symbol(value, str(value), {(number,): sign or 1}, unknowns)


def _sign(terms: Polynomial) -> int:
    """The sign of a polynomial over unknowns that are at least 0; 0 where it can be both."""
    factors = terms.values()
    return 1 if all(factor >= 0 for factor in factors) else -1 if all(factor <= 0 for factor in factors) else 0
