"""The three tiers of a step on a card: what the allocator hands out, what it reserves, what the driver counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memplan.allocator import Settings
from memplan.config.context import Context, context_of
from memplan.config.device import Device
from memplan.ledger import Ledger
from memplan.replay import Replay, replay

if TYPE_CHECKING:
    from memplan.sharing import Shared


class CardTiers:
    """A step on a card, replayed. `tiers` are the bytes allocated, reserved, and seen by the driver. `squeezed` says
    that the allocator has to give cached memory back on the way, `short` that even so the card has too little."""

    __slots__ = ("context", "replay", "short", "squeezed", "tiers")

    def __init__(self, replayed: Replay, context: Context) -> None:
        self.replay = replayed
        self.context = context
        self.squeezed = False
        self.short = False
        allocated = max(phase.peak_allocated for phase in replayed.phases.values())
        reserved = replayed.peak_reserved
        self.tiers = (allocated, reserved, reserved + context.bytes)


def on_card(
    ledger: Ledger, device: Device, settings: Settings, steps: int | None = None, shared: Shared | None = None
) -> CardTiers:
    """The step of `ledger` on `device`, in its steady state or after `steps` steps.

    Where the allocator would keep more than the card has, it is replayed with the card's limit: it then gives cached
    segments back before it fails, as PyTorch's does. What runs out even so is reported without the limit.
    """
    context = context_of(device)

    def replayed(capacity: int | None) -> Replay:
        if shared is None:
            return replay(ledger, settings, capacity, steps)
        key = (capacity, steps, *(getattr(settings, name) for name in settings.__slots__))
        return shared.replay(ledger, key, lambda: replay(ledger, settings, capacity, steps))

    found = CardTiers(replayed(None), context)
    if not device.capacity_bytes or (found.tiers[2]) <= device.available_bytes:
        return found
    room = max(device.available_bytes - context.bytes, 0)
    limited = replayed(room)
    if limited.out_of_memory is not None:
        found.short = True
        return found
    squeezed = CardTiers(limited, context)
    squeezed.squeezed = True
    return squeezed
