"""Bounds round an estimate, from what recorded runs near it were off by. Torch-free.

Every recorded run that has been graded left a residual in each tier (memplan/residuals.py). The bounds of a new
estimate are the lowest and the highest of the residuals of the runs nearest to it, in shares of the estimate, widened
for having seen only so many; never narrower than the estimate itself, and never below what is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log2
from typing import TYPE_CHECKING, Literal

from memplan.config.device import Device
from memplan.config.run import TrainingRun
from memplan.residuals import (
    ALLOCATED,
    ARCHITECTURE,
    ATTENTION,
    CAPABILITY,
    CARD,
    IMPLEMENTATION,
    LENGTH,
    PRECISION,
    RECOMPUTE,
    REQUEST,
    SETUP,
    SIMULATED,
    TIERS,
    TORCH,
    Line,
    card_name,
    features,
    fingerprint,
    library_of,
    read_residuals,
)

if TYPE_CHECKING:
    from typing import Protocol

    from memplan.config.models import Model
    from memplan.config.runs import Run

    class Tiers(Protocol):
        """The estimate of a step in each tier, in bytes; None where it cannot be known."""

        @property
        def allocated_bytes(self) -> int: ...
        @property
        def reserved_bytes(self) -> int | None: ...
        @property
        def device_bytes(self) -> int | None: ...


NEAREST = 20
"""How many runs bound an estimate (and all that are as near as the last of them). Residuals that could have come in any
order leave the next one between the lowest and the highest of n with a chance of (n - 1) / (n + 1): 90 % of 20."""

FEWEST = 10
"""Fewer runs than this say too little."""

NEAR = 7.0
"""The largest distance at which a run still says something about another."""

APART = (
    (ATTENTION, 8.0),  # another kernel saves other tensors: never near
    (SETUP, 8.0),  # so does another way to train, and writing
    (PRECISION, 6.0),
    (ARCHITECTURE, 3.0),
    (RECOMPUTE, 3.0),
    (TORCH, 3.0),
    (IMPLEMENTATION, 2.0),
    (CARD, 2.0),
)
"""What a difference in a column adds to the distance between two runs."""

OTHER_CAPABILITY = 8.0  # other kernels, other workspaces: never near
A_DOUBLING_OF_THE_PEAK = 0.5  # a fixed error is a small share of a large run
A_DOUBLING_OF_THE_LENGTH = 0.25

UNMEASURED = 5
"""One part in so many, 20 %, is allowed on both sides where nothing near is recorded. That is a choice, no measurement:
rules read off PyTorch's sources are exact where they are read right, and one kernel read wrong can cost that much."""

NO_MEASUREMENT = "which is no measurement"

UNCONFIRMED = 50
"""One part in so many, 2 %, is allowed where only a simulated card has run what is near (tests/simulated_card): its
allocator is PyTorch's own, but no kernel ran. It is what memplan tolerates of a card at most (memplan/verify.py)."""

PARTS = 10**9  # shares are held in whole parts of this, so that the bounds are the same on every machine


@dataclass(frozen=True, slots=True)
class Interval:
    """Honest bounds round the estimate, in bytes; None where the tier cannot be known."""

    allocated_bytes: tuple[int, int] | None
    reserved_bytes: tuple[int, int] | None
    device_bytes: tuple[int, int] | None
    basis: str


def interval_for(
    model: Model,
    run: Run,
    device: Device,
    tiers: Tiers,
    torch: tuple[int, int],
    *,
    certain: int = 0,
    context: tuple[int, int] | None = None,
    recorded: Sequence[Line] | None = None,
    hold_out: bool = False,
) -> Interval:
    """The bounds of each tier and what they rest on.

    `certain` is what the step needs on any device (parameters, gradients, optimizer state), in bytes. `context` bounds
    the bytes of the driver's context and libraries, for a card on which nothing is recorded. `recorded` stands in for
    the residuals that came with memplan; `hold_out` leaves out those of the very same request, as grading must.
    """
    lines = read_residuals(device.backend) if recorded is None else recorded
    if hold_out:
        same = fingerprint(model, run)
        lines = [line for line in lines if line[REQUEST] != same]
    card = card_name(device.name, device.description, device.capacity_bytes)
    asked = features(model, run, device, torch, card, device.compute_capability)
    # What another implementation needs says nothing of this one.
    library = library_of(asked[ARCHITECTURE])
    if library:
        lines = [line for line in lines if line[ARCHITECTURE] == library]
    else:
        lines = [line for line in lines if " " not in line[ARCHITECTURE]]
    if device.backend == "cpu" and (releases := _covered_exactly(asked, lines)):
        basis = f"{len(lines)} recorded runs on the CPU, all exact (PyTorch {releases})"
        return Interval((tiers.allocated_bytes, tiers.allocated_bytes), None, None, basis)
    near = _nearest(asked, tiers.allocated_bytes, lines)
    allocated, basis = _bounds("allocated", tiers.allocated_bytes, near)
    bases = [("allocated", basis)]
    allocated = (min(max(allocated[0], certain), tiers.allocated_bytes), allocated[1])
    reserved = on_device = None
    if tiers.reserved_bytes is not None:
        reserved, basis = _bounds("reserved", tiers.reserved_bytes, near)
        reserved = _at_least(reserved, allocated)
        bases.append(("reserved", basis))
    if tiers.device_bytes is not None:
        floor_of = reserved or allocated
        here = [line for line in near if line[CARD] == card]  # the context is the card's own
        if len(_shares("device", here)) >= FEWEST:
            on_device, basis = _bounds("device", tiers.device_bytes, here)
        else:
            rest = tiers.device_bytes - (tiers.reserved_bytes or tiers.allocated_bytes)
            low, high = context or (rest, rest)
            on_device = (floor_of[0] + min(low, rest), floor_of[1] + max(high, rest))
            basis = "the bounds of the tier below and those of the CUDA context"
        on_device = _at_least(on_device, floor_of)
        bases.append(("device", basis))
    return Interval(allocated, reserved, on_device, _joined(bases, run, device))


def verdict(lower: int, upper: int, capacity: int) -> Literal["fits", "tight", "does_not_fit"]:
    """What bounds of `lower` to `upper` bytes mean on a card with `capacity` bytes to give: both ends must agree."""
    if upper <= capacity:
        return "fits"
    return "does_not_fit" if lower > capacity else "tight"


def _covered_exactly(asked: Line, lines: Sequence[Line]) -> str:
    """The releases that ran, where every recorded run was exact and each setting asked for is among them; else ""."""
    if len(lines) < FEWEST or any(line[ALLOCATED] != line[ALLOCATED + 1] for line in lines):
        return ""
    # The reference transformer has been run by every release (memplan/ops/backend.py), a library's models by one.
    releases = (TORCH,) if library_of(asked[ARCHITECTURE]) else ()
    for column in (ATTENTION, PRECISION, ARCHITECTURE, IMPLEMENTATION, RECOMPUTE, SETUP, *releases):
        if all(line[column] != asked[column] for line in lines):
            return ""
    return ", ".join(sorted({line[TORCH] for line in lines}, key=lambda text: [int(part) for part in text.split(".")]))


def _nearest(asked: Line, peak: int, lines: Sequence[Line]) -> list[Line]:
    """The nearest runs, nearest first: NEAREST of them and those just as near, none beyond NEAR."""
    size, length = log2(max(peak, 1)), log2(max(int(asked[LENGTH]), 1))
    found: list[tuple[float, Line]] = []
    for line in lines:
        distance = 0.0
        for column, apart in APART:
            if line[column] != asked[column]:
                distance += apart
        if line[CAPABILITY] != asked[CAPABILITY] and line[CARD] != asked[CARD]:
            distance += OTHER_CAPABILITY
        if distance > NEAR:
            continue
        distance += A_DOUBLING_OF_THE_PEAK * abs(log2(max(int(line[ALLOCATED]), 1)) - size)
        distance += A_DOUBLING_OF_THE_LENGTH * abs(log2(max(int(line[LENGTH]), 1)) - length)
        if distance <= NEAR:
            found.append((distance, line))
    found.sort(key=lambda pair: pair[0])
    last = found[NEAREST - 1][0] if len(found) >= NEAREST else NEAR
    return [line for distance, line in found if distance <= last]


def _shares(tier: str, lines: Sequence[Line]) -> list[int]:
    """What each run was above its estimate (below: negative), in PARTS of the estimate, rounded away from 0."""
    column = TIERS[tier]
    shares = []
    for line in lines:
        if not line[column] or not line[column + 1]:
            continue
        estimated = int(line[column])
        above = int(line[column + 1]) - estimated
        share = -(-abs(above) * PARTS // max(estimated, 1))
        shares.append(share if above > 0 else -share)
    return shares


def _bounds(tier: str, estimated: int, near: Sequence[Line]) -> tuple[tuple[int, int], str]:
    """The bounds of one tier, and what they rest on.

    n residuals between low and high say of an even spread that it reaches (high - low) / (n - 1) further on both sides
    (the unbiased estimate of its ends). Where all are 0 the bounds are the estimate.
    """
    shares = _shares(tier, near)
    count = len(shares)
    low, high = min([0, *shares]), max([0, *shares])
    if count < FEWEST:
        few = f"only {count} recorded {'run' if count == 1 else 'runs'} near" if count else "no recorded run near"
        basis = f"{few}, so {100 // UNMEASURED} % on both sides, {NO_MEASUREMENT}"
        allowed = PARTS // UNMEASURED
        return _scaled(estimated, min(low, -allowed), max(high, allowed)), basis
    exact = low == high == 0
    if all(line[CARD].startswith(SIMULATED) for line in near):
        off = "all exact" if exact else f"{_percent(low)} to {_percent(high)} off the estimate"
        basis = f"{count} runs near of PyTorch's CUDA build on a simulated card, {off}; "
        basis += f"{100 // UNCONFIRMED} % on both sides until a card has confirmed them"
        allowed = PARTS // UNCONFIRMED
        return _scaled(estimated, low - allowed, high + allowed), basis
    if exact:
        return (estimated, estimated), f"{count} recorded runs near, all exact"
    beyond = ceil((high - low) / (count - 1))
    basis = f"{count} recorded runs near, {_percent(low)} to {_percent(high)} off the estimate"
    return _scaled(estimated, low - beyond, high + beyond), basis


def _scaled(estimated: int, low: int, high: int) -> tuple[int, int]:
    """`estimated` and so many PARTS of it, rounded away from it; no size is below 0."""
    return max(estimated + estimated * low // PARTS, 0), estimated - estimated * -high // PARTS


def _at_least(bounds: tuple[int, int], below: tuple[int, int]) -> tuple[int, int]:
    """Bounds of a tier that holds all of the tier `below` it."""
    return max(bounds[0], below[0]), max(bounds[1], below[1])


def _percent(share: int) -> str:
    """A share in percent with two decimals, rounded away from 0: what is not exact never reads as 0."""
    if not share:
        return "0 %"
    hundredths = share * 10_000 / PARTS
    return f"{(floor(hundredths) if share < 0 else ceil(hundredths)) / 100:+.2f} %"


def _joined(bases: list[tuple[str, str]], run: Run, device: Device) -> str:
    """One text for tiers that rest on the same, the tiers' names before each where they do not; and the command that
    makes records where there are too few."""
    texts: dict[str, list[str]] = {}
    for tier, basis in bases:
        texts.setdefault(basis, []).append(tier)
    text = "; ".join(f"{' and '.join(tiers)}: {basis}" for basis, tiers in texts.items())
    if len(texts) == 1:
        text = bases[0][1]
    measurable = device.backend == "cpu" or isinstance(run, TrainingRun)
    if measurable and any(NO_MEASUREMENT in basis for basis in texts):
        command = "verify" if device.backend == "cpu" else "measure --suite core --out profiles"
        text += f" (on {device.name} `memplan {command}` makes some)"
    return text
