"""A grid of peaks as CSV, with sizes as arrays (arrays.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from memplan.config.run import TrainingRun
from memplan.errors import NotModelledError
from memplan.sweep.arrays import SIZES, price
from memplan.sweep.axes import Axis

if TYPE_CHECKING:
    from memplan.sweep.grid import Resolve

LINES = 10_000
"""Lines that are given out at once."""


def lines(axes: Sequence[Axis], resolve: Resolve) -> Iterator[str]:
    """CSV text, piece by piece: the settings and the bytes at the peak of each combination, empty where it cannot be
    had. Sizes vary fastest, whatever the order they were given in."""
    sizes = [axis for axis in axes if axis.key in SIZES]
    others = [axis for axis in axes if axis.key not in SIZES]
    if not sizes:
        raise NotModelledError("--peaks: no size is varied", f"one of {', '.join(SIZES)}, or leave out --peaks")
    yield ",".join([*(axis.key for axis in [*others, *sizes]), "allocated_bytes"])
    for words in product(*(axis.values for axis in others)):
        settings: dict[str, Any] = dict(zip((axis.key for axis in others), words, strict=True))
        model, run, device = resolve({**settings, **{axis.key: axis.values[0] for axis in sizes}})
        if not isinstance(run, TrainingRun):
            raise NotModelledError("--peaks: sizes as arrays are those of training", "leave out --peaks")
        found = price(model, run, device, {axis.key: [int(value) for value in axis.values] for axis in sizes})
        head = "".join(f"{word}," for word in words)
        flat = found.bytes.reshape(-1).tolist()
        part: list[str] = []
        for values, size in zip(product(*(axis.values for axis in sizes)), flat, strict=True):
            part.append(f"{head}{','.join(map(str, values))},{size if size >= 0 else ''}")
            if len(part) == LINES:
                yield "\n".join(part)
                part = []
        if part:
            yield "\n".join(part)
