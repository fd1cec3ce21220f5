"""What would make the run fit: the smallest change first, each tried before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from memplan.allocator import parse_settings
from memplan.check.judge import upper_end
from memplan.check.remedy import remedies_for
from memplan.config.context import context_of
from memplan.config.run import TrainingRun
from memplan.errors import MemplanError
from memplan.estimate import backend_of, estimate, trace
from memplan.expansion import expand
from memplan.oom.failing import run
from memplan.oom.message import Message
from memplan.oom.search import Search
from memplan.sharing import Shared

Kind = Literal["others", "allocator", "run"]
"""Free what other processes hold; set PYTORCH_ALLOC_CONF; change settings of the run."""

EXPANDABLE = "expandable_segments:True"


@dataclass(frozen=True, slots=True)
class Change:
    """One change that fits. `needs` is what the driver will count for the process, in bytes: at most, or of `allocator`
    as replayed. `changes` are settings of the run."""

    kind: Kind
    needs: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    setting: str = ""  # of the allocator


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that fit into `limit` bytes, the smallest first, and what the run needs at most as it is (`upper`).
    A limit of 0: it is not known, and nothing was tried. `besides` is what the process holds beyond the run, which is
    taken off already."""

    limit: int
    upper: int
    found: tuple[Change, ...]
    besides: int = 0

    @property
    def fits(self) -> bool:
        """Whether the run is said to fit as it is."""
        return bool(self.limit) and self.upper <= self.limit


def changes_for(message: Message, found: Search, shared: Shared) -> Changes:
    """What would fit the card of the message, or into what the process allows itself of it."""
    device = found.device
    if not device.capacity_bytes:
        return Changes(0, 0, ())
    asked = estimate(found.model, found.run, device, found.torch, found.allocator_settings, shared=shared)
    upper = upper_end(asked)
    context = context_of(device).bytes
    besides = max(found.best.besides or 0, 0) if found.best is not None else 0
    limit = device.available_bytes
    if message.kind == "caching" and message.limit is not None:
        limit = min(limit, message.limit.middle + context)
    own = limit == device.available_bytes
    limit = max(limit - besides, 1)
    result: list[Change] = []
    if own and device.used_by_others_bytes and limit < upper <= device.capacity_bytes - besides:
        result.append(Change("others", upper))
    expandable = _expandable(found, context, besides, shared)
    if expandable is not None:
        result.append(expandable)
    if upper > limit:
        result += [Change("run", each.upper, dict(each.changes)) for each in remedies_for(asked, limit, shared)]
        if not any(each.kind == "run" for each in result):
            result += _planned(found, limit)
    return Changes(limit, upper, tuple(result), besides)


def _expandable(found: Search, context: int, besides: int, shared: Shared) -> Change | None:
    """Segments that grow, where the run then goes through with the very memory that it failed with."""
    if found.expected is None or found.room is None or EXPANDABLE in found.allocator_settings:
        return None
    text = f"{found.allocator_settings},{EXPANDABLE}" if found.allocator_settings else EXPANDABLE
    ledger = shared.ledger(found.model, found.run, backend_of(found.device, found.torch), trace)
    outcome = run(expand(ledger), parse_settings(text, found.torch), found.room - besides)
    if outcome.failure is not None:
        return None
    return Change("allocator", outcome.peak + context, setting=text)


def _planned(found: Search, limit: int) -> list[Change]:
    """Dearer changes, where no mild one fits: precision, optimizer, adapters."""
    if not isinstance(found.run, TrainingRun):
        return []
    from memplan.plan.choices import plan

    device = replace(found.device, used_by_others_bytes=0)  # type: ignore[call-arg]
    try:
        options = plan(found.model, found.run, device, "fit", limit=limit, most=3).options
    except MemplanError:
        return []
    return [Change("run", option.upper, dict(option.changes)) for option in options if option.fits]
