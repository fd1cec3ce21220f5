"""Every point of a grid, estimated; and where along an axis the device ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from memplan.errors import MemplanError
from memplan.estimate import Estimate, estimate
from memplan.sweep.axes import Axis, Value

if TYPE_CHECKING:
    from memplan.config.device import Device
    from memplan.config.models import Model
    from memplan.config.runs import Run

    Request = tuple[Model, Run, Device]

Resolve = Callable[[dict[str, Value]], "Request"]
"""The validated request with settings laid over it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One combination: the settings, and its estimate, or why there is none."""

    settings: tuple[tuple[str, Value], ...]
    estimate: Estimate | None
    error: str = ""

    @property
    def need(self) -> int | None:
        """Bytes of the highest tier: what a device has to hold."""
        if self.estimate is None:
            return None
        tiers = self.estimate.tiers
        sizes = (tiers.device_bytes, tiers.reserved_bytes, tiers.allocated_bytes)
        return next(size for size in sizes if size is not None)

    @property
    def verdict(self) -> str:
        """`fits`, `tight` or `does_not_fit`; "" where nothing is fixed."""
        return self.estimate.fit.verdict if self.estimate is not None and self.estimate.fit is not None else ""


def points(axes: Sequence[Axis], resolve: Resolve) -> Iterator[Point]:
    """Every point of the grid, the last axis fastest. What cannot be had is a point that says why."""
    for values in product(*(axis.values for axis in axes)):
        settings = tuple(zip((axis.key for axis in axes), values, strict=True))
        try:
            yield Point(settings, estimate(*resolve(dict(settings))))
        except MemplanError as error:
            yield Point(settings, None, error.message)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a line ends: the largest value along the first axis that still fits, 0 where none does; `beyond` says that
    the whole axis fits."""

    settings: tuple[tuple[str, Value], ...]
    largest: int
    beyond: bool


def crossings(axes: Sequence[Axis], found: Sequence[Point], resolve: Resolve) -> Iterator[Crossing]:
    """For each line over the first axis, the largest whole number within the axis that fits: between the last point
    that fits and the first that does not, found by bisection."""
    first = axes[0]
    if not first.numeric or not all(isinstance(value, int) for value in first.values):
        return
    lines: dict[tuple[tuple[str, Value], ...], list[Point]] = {}
    for point in found:
        lines.setdefault(point.settings[1:], []).append(point)
    for settings, line in lines.items():
        known = [point for point in line if point.verdict]
        if not known:
            continue
        refused = next((point for point in known if point.verdict != "fits"), None)
        if refused is None:
            yield Crossing(settings, int(known[-1].settings[0][1]), True)
            continue
        before = [point for point in known if point.verdict == "fits" and point.settings[0][1] < refused.settings[0][1]]  # type: ignore[operator]
        low = int(before[-1].settings[0][1]) if before else 0
        high = int(refused.settings[0][1])
        while high - low > 1:
            middle = (low + high) // 2
            if _fits(resolve, dict(settings) | {first.key: middle}):
                low = middle
            else:
                high = middle
        yield Crossing(settings, low, False)


def _fits(resolve: Resolve, settings: dict[str, Value]) -> bool:
    try:
        fit = estimate(*resolve(settings)).fit
    except MemplanError:
        return False
    return fit is not None and fit.verdict == "fits"
