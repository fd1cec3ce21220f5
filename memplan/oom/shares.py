"""Whose the card was when memory ran out: this process, others, and what nobody names."""

from __future__ import annotations

from memplan.oom.message import Message
from memplan.units import MIB

NOISE = 64 * MIB
"""What figures with two decimals leave unexplained is no other process."""

WIDEST_CONTEXT = 1_400 * MIB
"""A CUDA context with its kernels takes less (memplan/config/contexts.toml): what is beyond is somebody else's."""


def is_this_process(message: Message) -> bool:
    """Whether the only process that the message names is the one that failed. In a container PyTorch knows itself by
    another number than the driver does, and so speaks of "Process 3270336": one that holds at least what this one has
    reserved, on a card with no room for both."""
    held = message.held
    if message.this_process is not None or len(message.others) != 1 or held is None:
        return False
    size = message.others[0].size
    if size is None or message.capacity is None:
        return False
    return size.high >= held[0] and size.low + held[0] > message.capacity.high


def outside(message: Message) -> tuple[int, int] | None:
    """The least and the most bytes of the card that neither this allocator holds nor is free: the context of this
    process, and all of other processes. None where the message does not tell."""
    held = message.held
    if held is None or message.capacity is None or message.free is None:
        return None
    low = message.capacity.low - message.free.high - held[1]
    return max(low, 0), max(message.capacity.high - message.free.low - held[0], 0)


def held_by_others(message: Message, context: int = WIDEST_CONTEXT) -> int:
    """What other processes hold of the card, in bytes, as far as the message tells; `context` is what this one takes
    beside its allocator, where the message does not say."""
    own = message.this_process
    if own is None and is_this_process(message):
        own = message.others[0].size
    if own is not None and message.capacity is not None and message.free is not None:
        others = max(message.capacity.middle - message.free.middle - own.middle, 0)
    elif message.others:
        others = message.others_bytes
    else:
        beyond = outside(message)
        others = max(sum(beyond) // 2 - context, 0) if beyond is not None else 0
    return others if others >= NOISE else 0


def own_context(message: Message) -> int:
    """What the driver counts for this process beside its allocator's segments, in bytes: its context, kernels and
    libraries. 0 where the message does not tell."""
    own = message.others[0].size if is_this_process(message) else message.this_process
    held = message.held
    if own is None or held is None:
        return 0
    return max(own.middle - sum(held) // 2, 0)
